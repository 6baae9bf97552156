"""What a user sees during a run: optimizer steps of those planned, on a terminal as a bar, else as lines."""

import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import rich
from lightning.pytorch.callbacks import Callback
from rich.console import Console

from neuroada.config.schema import RunConfig
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.training.callbacks.progress import progress
from neuroada.training.callbacks.progress_bar import ProgressBar
from neuroada.training.callbacks.progress_lines import ProgressLines
from neuroada.training.trainer import build_trainer

from ...tiny_runs import StopAt

MakeRun = Callable[..., RunConfig]
# 22 rows in steps of 4 examples and micro-batches of 2: six steps an epoch.
EVERY_BATCH = {"_target_": "neuroada.training.callbacks.progress_lines.ProgressLines", "seconds": 0}
BAR = {"_target_": f"{__name__}.WatchedBar"}


class WatchedBar(ProgressBar):
    """Remembers what its training bar showed at the end of each step, and its bars at the end."""

    seen: list[tuple[int, float | None, str]]
    bars: list[tuple[str, float, float | None]]
    drawn: io.StringIO

    def __init__(self) -> None:
        super().__init__()
        # Lightning makes rich's console anew.
        self._console_kwargs = {"file": self.drawn, "force_terminal": True, "width": 80}

    def on_train_start(self, *args: Any) -> None:
        type(self).seen, type(self).bars = [], []
        super().on_train_start(*args)

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        super().on_train_batch_end(*args, **kwargs)
        task = self.train_progress_bar
        self.seen.append((int(task.completed), task.total, task.description))

    def _stop_progress(self) -> None:
        if self.progress is not None and not self._progress_stopped:
            self.bars.extend((task.description, task.completed, task.total) for task in self.progress.tasks)
        super()._stop_progress()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is drawn on the terminal that rich believes to have."""
    drawn = io.StringIO()
    monkeypatch.setattr(WatchedBar, "drawn", drawn, raising=False)
    monkeypatch.setattr(rich, "_console", Console(file=drawn, force_terminal=True, width=80))
    return drawn


def with_parts(run: RunConfig, **parts: Any) -> RunConfig:
    return dataclasses.replace(run, callbacks={**(run.callbacks or {}), **parts})


def lines(caplog: pytest.LogCaptureFixture, beginning: str) -> list[str]:
    return [message for message in caplog.messages if message.startswith(beginning)]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    ("limits", "total", "end"),
    [
        (("trainer.max_steps=8",), 8, "epoch 2 of 2"),
        (("trainer.max_epochs=2",), 12, "epoch 2 of 2"),
        (("trainer.max_epochs=-1", "trainer.max_steps=3"), 3, "epoch 1"),
    ],
)
def test_the_bar_counts_optimizer_steps_of_those_planned(
    limits: tuple[str, ...], total: int, end: str, make_run: MakeRun, tmp_path: Path, terminal: io.StringIO
) -> None:
    finetune(with_parts(make_run(*limits), progress_bar=BAR), tmp_path / "run")
    assert {shown[1] for shown in WatchedBar.seen} == {total}
    # Two micro-batches a step, but for the last one of an epoch.
    assert [shown[0] for shown in WatchedBar.seen][:4] == [0, 1, 1, 2]
    assert WatchedBar.seen[-1] == (total, total, end)
    fits = [bar for bar in WatchedBar.bars if bar[0].startswith("epoch")]
    assert fits == [(end, total, total)]
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert re.search(rf"{end} .* {total}/{total} \S+ • 0:00:00 [\d,]+ tokens/s loss: \d+\.\d{{3}}", drawn)


@pytest.mark.slow
def test_a_resumed_bar_begins_where_the_run_was(
    make_run: MakeRun, tmp_path: Path, terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroada.training.callbacks.watch.StopAt", StopAt, raising=False)
    stop = {"_target_": "neuroada.training.callbacks.watch.StopAt", "step": 7}
    run = with_parts(make_run("callbacks.checkpoint.every_n_train_steps=5"), progress_bar=BAR)
    with pytest.raises(RuntimeError, match="crash"):
        finetune(with_parts(run, watch=stop), tmp_path / "run")
    finetune(run, tmp_path / "run")
    assert WatchedBar.seen[0][0] in (5, 6)
    assert WatchedBar.seen[-1] == (12, 12, "epoch 2 of 2")


def test_benchmarks_have_a_bar_each_that_stays(make_run: MakeRun, tmp_path: Path, terminal: io.StringIO) -> None:
    finetune(with_parts(make_run("trainer.max_steps=1"), progress_bar=BAR), tmp_path / "run")
    tests = [bar for bar in WatchedBar.bars if not bar[0].startswith("epoch")]
    assert [bar[0].split()[0] for bar in tests] == ["boolq", "AddSub"]
    assert all(done == total for _, done, total in tests)
    assert "boolq" in terminal.getvalue()


def test_output_that_is_piped_gets_lines(make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    finetune(with_parts(make_run("trainer.max_steps=8"), progress_bar=EVERY_BATCH), tmp_path / "run")
    fit = lines(caplog, "step ")
    pattern = r"step \d of 8 \(epoch [12] of 2\)(, loss \d+\.\d{3})?, [\d,]+ tokens/s, (\d+:\d\d:\d\d|-:--:--) left"
    assert [line for line in fit[:-1] if not re.fullmatch(pattern, line)] == []
    assert [line.split()[1] for line in fit[:4]] == ["0", "1", "1", "2"]
    assert re.fullmatch(r"step 8 of 8, loss \d+\.\d{3}, [\d,]+ tokens/s", fit[-1])
    scored = lines(caplog, "AddSub: ")
    assert re.fullmatch(r"AddSub: (\d+) of \1 batches, [\d.]+% right so far, (0:00:00|-:--:--) left", scored[-1])


def test_lines_come_only_when_they_are_due(make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    finetune(with_parts(make_run(), progress_bar={**EVERY_BATCH, "seconds": 3600}), tmp_path / "run")
    assert [line.split(",")[0] for line in lines(caplog, "step ")] == ["step 12 of 12"]


def test_an_evaluation_alone_gets_lines_too(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    evaluate(with_parts(make_run("job=evaluate"), progress_bar=EVERY_BATCH), tmp_path / "run")
    assert {line.split(":")[0] for line in caplog.messages if "right so far" in line} == {"boolq", "AddSub"}


def test_other_ranks_are_silent(caplog: pytest.LogCaptureFixture) -> None:
    class SecondRank:
        is_global_zero = False

    caplog.set_level("INFO")
    part = ProgressLines(seconds=0)
    assert not part._is_due(SecondRank())  # type: ignore[arg-type]
    part.on_train_end(SecondRank(), lightning.LightningModule())  # type: ignore[arg-type]
    assert caplog.messages == []


def test_the_shipped_callback_fits_the_output(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    part: Callback = progress()
    assert isinstance(part, ProgressBar)
    monkeypatch.setattr(rich, "_console", Console(file=io.StringIO()))
    assert isinstance(progress(seconds_between_lines=5), ProgressLines)


@pytest.mark.parametrize("kind", ["progress_bar.ProgressBar", "progress_lines.ProgressLines"])
def test_a_trainer_without_progress_shows_none(kind: str, make_run: MakeRun, tmp_path: Path) -> None:
    part = {"_target_": f"neuroada.training.callbacks.{kind}"}
    run = with_parts(make_run("+trainer.enable_progress_bar=false"), progress_bar=part)
    shown = [type(part).__name__ for part in build_trainer(run, tmp_path).callbacks]
    assert not {"ProgressBar", "ProgressLines"} & set(shown)
