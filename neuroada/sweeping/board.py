"""Show a running sweep: a live table on a terminal, otherwise a line for each change."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from neuroada.runs.files import LOG_FILE
from neuroada.sweeping.objective import held_out_loss
from neuroada.sweeping.sweep_jobs import Job, State

_STYLES = {
    State.WAITING: "dim",
    State.RUNNING: "cyan",
    State.FINISHED: "green",
    State.FAILED: "red",
    State.REJECTED: "red",
    State.SKIPPED: "dim",
    State.STOPPED: "yellow",
}
_LINES_AROUND_ROWS = 8


class Board:
    """Shows jobs inside its ``with`` block; ``refresh`` shows what has changed."""

    def __init__(self, jobs: Sequence[Job], console: Console | None = None) -> None:
        self.jobs = jobs
        self.console = console or Console(highlight=False)
        self._shown: dict[int, State] = {}
        self._live = Live(console=self.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        self.refresh()
        return self

    def refresh(self) -> None:
        """Redraw the table, or write a line for every job whose state has changed."""
        if self.console.is_terminal:
            self._live.update(jobs_table(self.jobs, self.console.height - _LINES_AROUND_ROWS), refresh=True)
            return
        for number, job in enumerate(self.jobs):
            if job.state is not State.WAITING and self._shown.get(number) is not job.state:
                self._shown[number] = job.state
                self.console.print(escape(_line(number, len(self.jobs), job)), soft_wrap=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()
        else:
            self.refresh()
        self.console.print(jobs_table(self.jobs))


def jobs_table(jobs: Sequence[Job], num_rows: int | None = None) -> Table:
    """All jobs, or as many as fit around the first unfinished one."""
    num_rows = max(1, len(jobs) if num_rows is None else num_rows)
    table = Table(caption=_counts(jobs), caption_justify="left")
    table.add_column("#", justify="right")
    table.add_column("job", overflow="fold")
    table.add_column("state")
    table.add_column("accuracy %", justify="right")
    table.add_column("loss", justify="right")
    table.add_column("time", justify="right")
    still_open = (number for number, job in enumerate(jobs) if job.state in (State.RUNNING, State.WAITING))
    first = max(0, min(next(still_open, 0) - 1, len(jobs) - num_rows))
    for number, job in list(enumerate(jobs))[first : first + num_rows]:
        state = f"[{_STYLES[job.state]}]{job.state.value}[/]"
        table.add_row(str(number), escape(job.label), state, _accuracy(job), _loss(job), _time(job))
    return table


def _counts(jobs: Sequence[Job]) -> str:
    counts = {state: sum(job.state is state for job in jobs) for state in State}
    counted = f"{len(jobs)} jobs: " + ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
    running = next((job for job in jobs if job.state is State.RUNNING and job.has_own_process), None)
    return f"{counted}\noutput of the first running job: {running.folder / LOG_FILE}" if running else counted


def _line(number: int, num_jobs: int, job: Job) -> str:
    outcome = [f"accuracy {_accuracy(job)} %" if _accuracy(job) else "", f"loss {_loss(job)}" if _loss(job) else ""]
    where = f"output in {job.folder / LOG_FILE}" if job.state is State.RUNNING and job.has_own_process else ""
    took = _time(job) if job.state is State.FINISHED else ""
    details = "; ".join(part for part in [*outcome, job.message, where, took] if part)
    return f"#{number} of {num_jobs}  {job.state.value:<8}  {job.label}" + (f"  ({details})" if details else "")


def _accuracy(job: Job) -> str:
    value = ((job.result or {}).get("metrics") or {}).get("macro")
    return "" if value is None else f"{100 * value:.1f}"


def _loss(job: Job) -> str:
    value = held_out_loss(job.result)
    return "" if value is None else f"{value:.4f}"


def _time(job: Job) -> str:
    if job.seconds is None:
        return ""
    minutes, seconds = divmod(round(job.seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"
