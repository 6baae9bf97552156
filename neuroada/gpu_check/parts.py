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
        expected_seconds: On an H100, with the start of its process; estimated, not measured.
        why_left_out: What is missing for it, in one line; None if it can run.
        limit_seconds: After which it is ended.
    """

    rows: Rows
    expected_seconds: float
    why_left_out: Callable[[Setting], str | None] = _never
    limit_seconds: float = LIMIT_SECONDS


PARTS = {
    "machine": Part(machine.rows, 25),
    "gradient_exact": Part(gradient_exact.rows, 100),
    "attention_exact": Part(attention_exact.rows, 30),
    "packed_step": Part(packed_step.rows, 40),
    "generation": Part(generation.rows, 60),
    "gradient_timing": Part(step_timing.gradients, 180),
    "layer_timing": Part(step_timing.layers, 90),
    "model_timing": Part(step_timing.models, 240),
    "memory_plan": Part(memory_plan.rows, 150),
    "adapter_switch": Part(adapter_switch.rows, 120),
    "column_selection": Part(column_selection.rows, 50),
    "answer_timing": Part(answer_timing.rows, 120, answer_timing.why_left_out),
}
