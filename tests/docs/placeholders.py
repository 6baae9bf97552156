"""What stands for the placeholders of documented commands, such as ``<run folder>``."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from neuroada.runs.files import SWEEP_FILE

from .documented import ROOT
from .walking import SHORT, failure_of

BUNDLED_MODEL = ROOT / "neuroada" / "bundled" / "model"
_ANY = re.compile(r"<[a-z][^<>]*>", re.IGNORECASE)


MADE_BY = {
    "neuroada-k1": ("method=neuroada",),
    "neuroada-k5": ("method=neuroada", "budget=top5"),
    "lora": ("method=lora",),
}
"""Beginning of a run folder -> what makes it."""


class FinishedRuns:
    """Finished runs on the bundled model, made when they are first asked for.

    Args:
        folder: Where they are made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, name: str) -> Path:
        """The run folder of one of ``MADE_BY``, relative to ``folder``."""
        if not (found := self._found(name)):
            failure = failure_of([*MADE_BY[name], *SHORT, "~callbacks.progress_bar"], self.folder)
            assert failure is None, failure
            found = self._found(name)
        return found[0].parent.relative_to(self.folder)

    def _found(self, name: str) -> list[Path]:
        return list(self.folder.glob(f"outputs/finetune/*/*/{name}-*/s*/result.json"))


class Workspace:
    """A folder in which the commands of a page run.

    Args:
        folder: The folder.
        finished: Runs that placeholders stand for.
    """

    def __init__(self, folder: Path, finished: FinishedRuns) -> None:
        self.folder = folder
        self._finished = finished
        self._values: dict[str, Callable[[], str]] = {
            "<run folder>": lambda: self._run("neuroada-k1"),
            "<another run folder>": lambda: self._run("neuroada-k5"),
            "<adapter folder>": lambda: f"{self._run('neuroada-k1')}/adapter",
            "<PEFT adapter folder>": lambda: f"{self._run('lora')}/adapter",
            "<merged checkpoint>": lambda: str(BUNDLED_MODEL),
            "<hub id, folder or .gguf>": lambda: str(BUNDLED_MODEL),
            "<hub id>": lambda: f"{self._run('neuroada-k1')}/adapter",  # what is fetched is such a folder
            "<hub id or folder>": lambda: str(BUNDLED_MODEL),
            "<text file or data set>": self._text,
            "<sweep folder>": self._sweep,
        }

    def filled(self, text: str) -> str:
        """A command with a real value for each placeholder.

        Raises:
            KeyError: A placeholder that has none.
        """
        return _ANY.sub(lambda found: self._values[found[0]](), text)

    def _run(self, name: str) -> str:
        run = self._finished.of(name)
        shutil.copytree(self._finished.folder / run, self.folder / run, dirs_exist_ok=True)
        return str(run)

    def _text(self) -> str:
        path = self.folder / "general.txt"
        path.write_text("The sky is blue and the sea is deep. " * 40, encoding="utf-8")
        return path.name

    def _sweep(self) -> str:
        folder = self.folder / "outputs" / "sweeps" / "method-01234567"
        folder.mkdir(parents=True, exist_ok=True)
        runs = [f"../../../{self._run(name)}" for name in ("neuroada-k1", "lora")]
        (folder / SWEEP_FILE).write_text(json.dumps({"runs": runs}), encoding="utf-8")
        return str(folder.relative_to(self.folder))
