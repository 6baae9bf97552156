"""The parts of ``job=gpu_check``, in the order in which they run."""

from collections.abc import Callable
from dataclasses import dataclass

from neuroada.gpu_check import (
    adapter_switch,
    answer_timing,
    attention_exact,
    column_selection,
    generation,
    gradient_exact,
    machine,
    memory_plan,
    packed_step,
    step_timing,
)
from neuroada.gpu_check.setting import Rows, Setting

LIMIT_SECONDS = 480.0
"""Of every part."""


def _never(setting: Setting) -> str | None:
    return None


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        rows: What it looks at.
        expected_seconds: On an H100, with the start of its process: rounded up from a run with fewer k and repeats;
            estimated for the last two parts.
        why_left_out: What is missing for it, in one line; None if it can run.
        limit_seconds: After which it is ended.
    """

    rows: Rows
    expected_seconds: float
    why_left_out: Callable[[Setting], str | None] = _never
    limit_seconds: float = LIMIT_SECONDS


PARTS = {
    "machine": Part(machine.rows, 20),
    "gradient_exact": Part(gradient_exact.rows, 60),
    "attention_exact": Part(attention_exact.rows, 15),
    "packed_step": Part(packed_step.rows, 25),
    "generation": Part(generation.rows, 20),
    "gradient_timing": Part(step_timing.gradients, 90),
    "layer_timing": Part(step_timing.layers, 40),
    "model_timing": Part(step_timing.models, 180),
    "memory_plan": Part(memory_plan.rows, 90),
    "adapter_switch": Part(adapter_switch.rows, 40),
    "column_selection": Part(column_selection.rows, 50),
    "answer_timing": Part(answer_timing.rows, 120, answer_timing.why_left_out),
}
