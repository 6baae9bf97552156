"""``job=rescore``: judge the stored generations of finished runs again; no model is needed.

Everything is read and checked before anything is written. The files of a run are replaced one by one, each atomically
and ``result.json`` last. If that is interrupted, running the job again repairs it: the generations are kept.
"""

import datetime
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from rich.console import Console
from rich.markup import escape

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.data.entries import Sources, name_of
from neuroada.data.leaks import split_score
from neuroada.runs.files import METRICS_FILE, PREDICTIONS_FOLDER, RESULT_FILE
from neuroada.runs.folder_lock import locked
from neuroada.runs.listing import outputs_of, run_folders
from neuroada.runs.predictions import predictions_path, read_predictions, refuse_row
from neuroada.runs.protocols import protocols_of
from neuroada.runs.recorded_files import FILES, FILES_TO_COME, changed_files, describe_text
from neuroada.runs.stored_files import read_result
from neuroada.storage.whole_files import write_together, write_whole
from neuroada.tasks.judges import Judge
from neuroada.tasks.label_protocol import label_protocol
from neuroada.tasks.protocol import Example, Protocol
from neuroada.tasks.scoring import Prediction, benchmark_score, differs, judge_again, summarise

NUM_LISTED = 10
"""Disagreements shown for each benchmark."""
SHOWN_LENGTH = 24
"""Characters of an answer that are shown."""

_Verdict = Literal["correct", "strict_correct"]
_VERDICTS: dict[str, _Verdict] = {"protocol": "correct", "strict": "strict_correct"}


@dataclass(frozen=True)
class Rescored:
    """A run with its generations judged by the current code."""

    folder: Path
    result: dict[str, Any]
    """Stored content of ``result.json``."""
    before: dict[str, list[Prediction]]
    """Stored rows of each benchmark."""
    after: dict[str, list[Prediction]]
    protocols: Mapping[str, Protocol]
    """Of each benchmark."""

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """Content of ``metrics.json`` by the current code; other stored entries are kept as long as they are valid."""
        stored = self.result["metrics"]
        return _renewed(stored, summarise({name: self._score(name) for name in self.after}))

    @property
    def is_changed(self) -> bool:
        return self.before != self.after or self.result["metrics"] != self.metrics

    @property
    def without_clean_part(self) -> list[str]:
        """Benchmarks that lose their clean score: verdicts changed, and the rows do not say which items leaked."""
        stored = self.result["metrics"]["benchmarks"]
        return [
            name
            for name, rows in self.after.items()
            if "contamination" in stored[name]
            and any(_moved(self.before[name], rows, "correct"))
            and not all("leaked" in row for row in rows)
        ]

    def _score(self, name: str) -> dict[str, Any]:
        rows = self.after[name]
        score = _renewed(self.result["metrics"]["benchmarks"][name], benchmark_score(rows, self.protocols[name]))
        if name in self.without_clean_part:
            del score["contamination"]
        elif "contamination" in score and all("leaked" in row for row in rows):
            leaks = frozenset(row["index"] for row in rows if row["leaked"])
            score["contamination"] = split_score(rows, leaks, self.protocols[name])
        return score


def rescore(run: RunConfig, folder: Path) -> None:
    """Rescore every finished run below ``runs``; print what changed, and where protocol and strict scoring disagree.

    Raises:
        UserError: There is no such run, a file is damaged, or a run is being written; nothing is written then.
    """
    folders = [path for path in run_folders(Path(run.runs)) if _scored(path)]
    if not folders:
        raise UserError(
            f"runs={run.runs}: no finished run with {PREDICTIONS_FOLDER}/ below this folder; "
            "give one that job=finetune or job=evaluate wrote"
        )
    protocols = protocols_of(run.data)
    for path in folders:
        _refuse_links(path, outputs_of(Path(run.runs)))
    for path in folders:
        with locked([path]):
            judged_again(path, protocols)  # raises if anything is damaged
    console = Console(highlight=False)
    for path in folders:
        with locked([path]):
            _rescore_one(path, protocols, console)


def _rescore_one(path: Path, protocols: Mapping[str, Protocol], console: Console) -> None:
    again = judged_again(path, protocols)
    console.print(f"[bold]{escape(str(path))}[/bold]", soft_wrap=True)
    for line in [*changes(again), *disagreements(again)]:
        console.print(f"  {escape(line)}", soft_wrap=True)
    if again.is_changed or _was_left_halfway(again):
        _write_run(again)


def _was_left_halfway(again: Rescored) -> bool:
    """Whether files of the run are not as recorded, or are recorded in two versions: rewriting them ended early."""
    return FILES_TO_COME in again.result or bool(changed_files(again.folder, again.result, read_adapter=False))


def judged_again(folder: Path, protocols: Mapping[str, Protocol]) -> Rescored:
    """The run with new verdicts on its stored generations; nothing is written.

    Args:
        folder: The run folder.
        protocols: The judges, by name. None is built from what the run stored: that could be any code.

    Raises:
        UserError: A file is missing or damaged, does not fit the scores of the run, or needs another protocol.
    """
    result = read_result(folder)
    scores = (result.get("metrics") or {}).get("benchmarks")
    if not scores:
        raise UserError(f"{folder / RESULT_FILE} holds no scores; score the run again")
    _refuse_changed(folder, result)
    before, after, used = {}, {}, {}
    for name, score in scores.items():
        path = predictions_path(folder, name)
        rows = read_predictions(path)
        if len(rows) != score.get("n"):
            raise UserError(
                f"{path}: has {len(rows)} rows where {RESULT_FILE} counts {score.get('n')}; score the run again"
            )
        protocol = used[name] = _protocol(folder, result, name, protocols)
        before[name] = rows
        after[name] = [_judged(path, number, row, protocol) for number, row in enumerate(rows, start=1)]
    return Rescored(folder, result, before, after, used)


def changes(again: Rescored) -> Iterator[str]:
    """One line for each benchmark whose rows changed."""
    if not again.is_changed:
        yield "nothing changed"
        return
    for name, rows in again.after.items():
        moved = [
            f"{label} {_num_true(again.before[name], key)} -> {_num_true(rows, key)}"
            for label, key in _VERDICTS.items()
            if any(_moved(again.before[name], rows, key))
        ]
        if moved:
            yield f"{name}: {', '.join(moved)} correct of {len(rows)}"
        elif again.before[name] != rows:
            yield f"{name}: same verdicts, other fields"
    for name in again.without_clean_part:
        yield f"{name}: accuracy on clean items removed, as the rows do not say which items leaked; score the run again"
    if again.before == again.after:
        yield "same predictions, metrics rewritten"


def disagreements(again: Rescored) -> Iterator[str]:
    """Items where protocol and strict scoring differ: the first of each benchmark, and the number of the rest."""
    for name, rows in again.after.items():
        found = [row for row in rows if differs(row)]
        if found:
            yield f"{name}: protocol and strict differ on {len(found)} of {len(rows)} items"
        for row in found[:NUM_LISTED]:
            yield (
                f"  index {row['index']}: gold {_short(row['answer'])}, "
                f"protocol reads {_short(row['extracted'])}, strict reads {_short(row['strict_extracted'])}"
            )
        if len(found) > NUM_LISTED:
            yield f"  and {len(found) - NUM_LISTED} more"


def _scored(folder: Path) -> bool:
    return (folder / RESULT_FILE).is_file() and (folder / PREDICTIONS_FOLDER).is_dir()


def _refuse_links(folder: Path, outputs: Path) -> None:
    """What is written stays below the folder that was given, whatever links a received folder has."""
    if not (folder / PREDICTIONS_FOLDER).resolve().is_relative_to(outputs.resolve()):
        raise UserError(
            f"{folder / PREDICTIONS_FOLDER}: a link leads out of {outputs}; give runs=<the folder that it leads to>"
        )


def _refuse_changed(folder: Path, result: Mapping[str, Any]) -> None:
    for changed in changed_files(folder, result, read_adapter=False):
        if changed.benchmark is not None:
            raise UserError(
                f"{folder / changed.path} {changed.how} since {RESULT_FILE} was written; put the file of the run back, "
                "or start the run again with its command, which answers the items again"
            )


def _judged(path: Path, number: int, row: Prediction, protocol: Protocol) -> Prediction:
    problem = protocol.gold_problem(row["answer"])
    if problem:
        refuse_row(path, number, f"its answer {problem}")
    example = Example(index=row["index"], instruction=row["instruction"], output="", answer=row["answer"])
    try:
        return cast(Prediction, _renewed(row, judge_again(example, row, protocol)))
    except LookupError:
        refuse_row(path, number, "lacks what its answer was chosen by")


def _renewed(stored: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """The new values, followed by the other stored entries."""
    return {**present, **{key: value for key, value in stored.items() if key not in present}}


def _protocol(folder: Path, result: dict[str, Any], benchmark: str, protocols: Mapping[str, Protocol]) -> Protocol:
    """The protocol by which a stored run scored a benchmark."""
    config = result.get("config") or {}
    data, task = config.get("data") or {}, config.get("task") or {}
    scored = (config.get("evaluation") or {}).get("benchmarks") or task.get("benchmarks") or []
    entry = next((entry for entry in scored if name_of(entry) == benchmark), benchmark)
    folder_of_data = data.get("dir") or "data"
    try:
        labelled = label_protocol(*(task.get(key) for key in ("objective", "labels", "metrics")))
        settings = config.get("protocol")
        sources = Sources.of(folder_of_data, data.get("sets"), protocols, settings, _refuse_code, labelled)
        (split,) = sources.splits([entry], data.get("split") or "test", "benchmarks")
        return split.protocol
    except UserError as error:
        raise UserError(f"{folder}: {benchmark}: {error}") from error


def _refuse_code(node: Mapping[str, Any], key: str) -> Judge:
    raise UserError(
        f"{key}: was judged by {node['_target_']}, and code that a run folder names is not run; give the protocol in "
        "data.protocols, and name it in the data set's entry"
    )


def _moved(before: list[Prediction], after: list[Prediction], key: _Verdict) -> Iterator[bool]:
    """For each item, whether its verdict changed."""
    return (old[key] != new[key] for old, new in zip(before, after, strict=True))


def _num_true(rows: list[Prediction], key: _Verdict) -> int:
    return sum(row[key] for row in rows)


def _short(text: str | None) -> str:
    if text is None:
        return "nothing"
    return repr(text if len(text) <= SHOWN_LENGTH else f"{text[: SHOWN_LENGTH - 3]}...")


def _write_run(again: Rescored) -> None:
    folder = again.folder
    texts = {predictions_path(again.folder, name): _as_lines(rows) for name, rows in again.after.items()}
    texts[folder / METRICS_FILE] = json.dumps(again.metrics, indent=2) + "\n"
    result = {**again.result, "metrics": again.metrics, "rescored_at": _now()}
    if FILES in again.result:  # those of earlier versions list none
        to_come = {path.relative_to(folder).as_posix(): describe_text(text) for path, text in texts.items()}
        # Should this end halfway, some files are as before and some are new: either is what the run has recorded.
        write_whole(folder / RESULT_FILE, _as_text({**again.result, FILES_TO_COME: to_come}))
        result[FILES] = {**again.result[FILES], **to_come}
    texts[folder / RESULT_FILE] = _as_text({key: value for key, value in result.items() if key != FILES_TO_COME})
    write_together(texts)


def _as_text(result: Mapping[str, Any]) -> str:
    return json.dumps(result, indent=2) + "\n"


def _as_lines(rows: list[Prediction]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
