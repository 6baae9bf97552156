"""Predictions written while a run generates, so that an interrupted run can resume.

``<benchmark>.rank<r>.partial.jsonl`` holds what rank r has generated so far. Its first line identifies the run: a file
from another model, adapter, prompt or decoding is rejected. Each further line is a prediction.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from neuroada.config.errors import UserError
from neuroada.config.json_files import parsed
from neuroada.runs.identity import changed_keys
from neuroada.storage.whole_files import write_whole
from neuroada.tasks.scoring import Prediction

_SUFFIX = ".partial.jsonl"


class _Beginning(TypedDict):
    run: dict[str, Any]


class PartialPredictions:
    """The partial files of one benchmark.

    Args:
        folder: The folder with the files of all ranks.
        benchmark: Its name.
        run: What the predictions depend on, as JSON values.
        rank: The rank that appends.
    """

    def __init__(self, folder: Path, benchmark: str, run: Mapping[str, Any], rank: int) -> None:
        self._folder = folder
        self._benchmark = benchmark
        self._run = run
        self._path = folder / f"{benchmark}.rank{rank}{_SUFFIX}"
        self._is_begun = False

    def read(self) -> list[Prediction]:
        """The stored predictions of all ranks; an incomplete last line of a killed process is ignored.

        Raises:
            UserError: A file belongs to another run, or is damaged.
        """
        return [row for path in self._paths() for row in self._rows(path)]

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write predictions of this rank; they are flushed to the file when this returns."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in predictions)
        if not self._is_begun:
            text = self._beginning() + text
            self._is_begun = True
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text)

    def remove(self) -> None:
        """Delete the files of all ranks."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._benchmark}.rank*{_SUFFIX}"))

    def _beginning(self) -> str:
        """The first line if the file lacks it; removes an incomplete last line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = _whole_lines(self._path)
        write_whole(self._path, whole)
        return "" if whole else json.dumps({"run": self._run}) + "\n"

    def _rows(self, path: Path) -> Iterator[Prediction]:
        # Not splitlines(): a generation may contain other line separators, which JSON does not escape.
        try:
            lines = _whole_lines(path).split("\n")[:-1]
            stored = parsed(lines[0], _Beginning)["run"] if lines else self._run
            rows: list[Prediction] = [parsed(line, Prediction) for line in lines[1:]]
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}); delete it to generate its items again") from error
        other = changed_keys(stored, self._run)
        if other:
            raise UserError(
                f"{path} holds predictions of another run ({other[0]}); use resume=never to replace them, or another "
                "hydra.run.dir"
            )
        yield from rows


def count_answers(folder: Path) -> dict[str, int]:
    """Benchmark -> predictions that an interrupted run has stored, over all ranks."""
    counts: dict[str, int] = {}
    for path in sorted(folder.glob(f"*.rank*{_SUFFIX}")):
        benchmark = path.name.removesuffix(_SUFFIX).rpartition(".rank")[0]
        # The first line identifies the run.
        counts[benchmark] = counts.get(benchmark, 0) + max(0, _whole_lines(path).count("\n") - 1)
    return {benchmark: count for benchmark, count in counts.items() if count}


def _whole_lines(path: Path) -> str:
    if not path.is_file():
        return ""
    text = path.read_bytes()
    return text[: text.rfind(b"\n") + 1].decode("utf-8")
