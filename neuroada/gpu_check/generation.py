"""Part ``generation``: the answers of the run's own model, on the device and on the CPU."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from neuroada.costs.evaluation_speed import Answers, Questions, Written, questions_of, written_by
from neuroada.costs.failures import Failure, attempt
from neuroada.gpu_check.setting import Row, Setting, row

_ALLOWED_GAP = 1e-2
"""Of two logits that stand for different tokens: a tie, up to the order of sums in fp32."""


def rows(setting: Setting) -> Iterator[Row]:
    """The engine, and transformers' ``generate`` in batches: fp32, greedy, because ties are rare there."""
    run = replace(
        setting.run,
        adapter=None,
        benchmark=setting.timing("evaluation", random_weights=False),
        evaluation=replace(setting.run.evaluation, limit=setting.check.questions),
        model=replace(setting.run.model, dtype="float32"),
    )
    on_cpu = questions_of(run, torch.device("cpu"), torch.float32)
    expected = written_by(on_cpu.engine())
    here = questions_of(run, setting.device, torch.float32)
    for name, answers in (("engine", here.engine), ("plain loop", here.plain)):
        about = f"{run.model.name}, {name}"
        gaps = attempt(about, partial(_compared, on_cpu, answers, expected))
        if isinstance(gaps, Failure):
            yield row(about, "", right=False, failed=gaps.reason)
            continue
        said = f"{len(expected) - len(gaps)} of {len(expected)} items have the CPU's tokens"
        said += f"; largest gap of the others' logits {max(gaps):.1e}" if gaps else ""
        largest = max(map(abs, gaps), default=0.0)
        yield row(about, said, right=largest <= _ALLOWED_GAP, items=len(expected), differing=len(gaps), gap=largest)


def _compared(on_cpu: Questions, answers: Callable[[], Answers], expected: Written) -> list[float]:
    """For each item with other tokens than on the CPU, by how much the CPU prefers its own at the first of them."""
    written = written_by(answers())
    return [on_cpu.gap(*key, best, written[key]) for key, best in expected.items() if written[key] != best]
