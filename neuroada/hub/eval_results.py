"""Scores in the Hub's two formats: ``model-index`` in the card, and ``.eval_results/*.yaml`` for its leaderboards.

The first takes any data set. The second takes those that the Hub has registered as benchmarks, and puts the score
beside those of other models: so only the whole, unchanged test set goes there.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from neuroada.data.catalog import DATASETS
from neuroada.hub.scores import ACCURACY, BenchmarkScore, scores_of
from neuroada.runs.listing import Run

RESULTS_FILE = ".eval_results/neuroada.yaml"
_TEXT, _CLASSES = "text-generation", "text-classification"
_SPLIT = "test"
_LINE = 1000
"""Letters of a line of YAML; a note stays on one."""


@dataclass(frozen=True)
class _Leaderboard:
    """Where the Hub collects the scores of a benchmark.

    Attributes:
        dataset: The data set that has it.
        task: Its task there.
    """

    dataset: str
    task: str


_LEADERBOARDS = {"gsm8k": _Leaderboard("openai/gsm8k", "gsm8k")}
"""Data sets of ``neuroada.data.catalog`` with the same questions as a registered benchmark of the Hub."""


def task_of(run: Run) -> str:
    """What the adapted model does, as the Hub calls it."""
    return _TEXT if run.setting("task.objective") is None else _CLASSES


def model_index(run: Run) -> list[EvalResult]:
    """The scores for the metadata of a card."""
    split = run.setting("data.split")
    return [
        EvalResult(
            task_type=task_of(run),
            dataset_type=score.name,
            dataset_name=score.name,
            dataset_split=split if split in ("test", "validation") else None,
            metric_type=score.metric,
            metric_value=round(score.value, 2),
            metric_name=f"{score.metric}, % (95 % interval {score.interval}, n {score.n})",
        )
        for score in scores_of(run)
    ]


def leaderboard_file(run: Run) -> str | None:
    """The content of ``RESULTS_FILE``; None if no score of the run belongs on a leaderboard."""
    entries = list(_entries(run))
    if not entries:
        return None
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=_LINE)


def _entries(run: Run) -> Iterator[EvalResultEntry]:
    date = re.match(r"\d{4}-\d\d-\d\d", str(run.outcome("finished_at") or ""))
    for score in scores_of(run):
        if score.key in _LEADERBOARDS and _is_whole(run, score):
            board = _LEADERBOARDS[score.key]
            yield EvalResultEntry(
                dataset_id=board.dataset,
                task_id=board.task,
                value=round(score.value, 2),
                date=date[0] if date else None,
                notes=_conditions(score),
            )


def _is_whole(run: Run, score: BenchmarkScore) -> bool:
    """Whether it is over all rows of the known file, and no other, as that benchmark is asked and judged."""
    known, read = DATASETS[score.key].remote[_SPLIT], run.outcome("content.data")
    digest = read.get(f"{score.key}/{_SPLIT}") if isinstance(read, Mapping) else None
    is_own = score.key in (run.setting("data.sets") or {}) or any((run.setting("protocol") or {}).values())
    return score.n == known.num_rows and digest == known.sha256 and score.metric == ACCURACY and not is_own


def _conditions(score: BenchmarkScore) -> str:
    leaked = f"; {score.leaked.n} questions were in the training data" if score.leaked and score.leaked.n else ""
    return f"zero-shot, fine-tuned adapter; 95 % interval {score.interval}{leaked}"
