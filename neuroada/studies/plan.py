"""The runs of a study, and which of them are missing."""

from dataclasses import dataclass
from pathlib import Path

from neuroada.config.errors import UserError
from neuroada.studies.definition import StudyConfig
from neuroada.studies.records import Record, read_record


@dataclass(frozen=True)
class StudyRun:
    """One run.

    Attributes:
        cell: The setting that it belongs to.
        rate: Its learning rate; None if the setting has none.
        seed: Its seed.
        chooses_rate: Whether it only serves to choose a learning rate.
        overrides: What it is told on the command line.
    """

    cell: str
    rate: float | None
    seed: int
    chooses_rate: bool
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Path of its record below the study's records, such as ``lora/lr0.01-s1``."""
        rate = "" if self.rate is None else f"lr{self.rate:g}-"
        return f"{self.cell}/{'rate-' if self.chooses_rate else ''}{rate}s{self.seed}"


@dataclass(frozen=True)
class Rate:
    """The learning rate that a cell takes.

    Attributes:
        value: The rate.
        losses: Held-out loss of every rate that was tried; None if the run diverged or failed.
    """

    value: float
    losses: dict[float, float | None]

    @property
    def is_at_edge(self) -> bool:
        """Whether a rate beyond those that were tried might do better."""
        return len(self.losses) > 1 and self.value in (min(self.losses), max(self.losses))


class StudyPlan:
    """A study and its records.

    Args:
        study: What it runs.
        records: The folder of its records.
    """

    def __init__(self, study: StudyConfig, records: Path) -> None:
        self.study = study
        self._records = records

    def record(self, run: StudyRun) -> Record | None:
        """The record of a run; None if there is none.

        Raises:
            UserError: It is damaged, or of a run with other overrides.
        """
        found = read_record(self._records / run.name)
        if found is not None and found.overrides != run.overrides:
            raise UserError(
                f"{found.folder} is of a run with other overrides ({_difference(found.overrides, run.overrides)}); "
                "delete it to run this one"
            )
        return found

    def missing(self) -> list[StudyRun]:
        """Runs without a record that can start now; those at a chosen rate wait for the runs that choose it."""
        needed = [run for cell in self.study.cells for run in self._needed(cell)]
        return [run for run in needed if self.record(run) is None]

    def num_missing(self) -> dict[str, int]:
        """Cell -> how many of its runs have no record, those that wait for a rate included."""
        counts = {}
        for cell in self.study.cells:
            rate_runs = [run for run in self.rate_runs(cell) if self.record(run) is None]
            waiting = len(self.study.seeds_of(cell)) if rate_runs else len(self._unrecorded_results(cell))
            counts[cell] = len(rate_runs) + waiting
        return counts

    def rate_runs(self, cell: str) -> list[StudyRun]:
        """The runs that choose the cell's rate; none if there is nothing to choose."""
        rates = self.study.rates_of(cell)
        return [self._run(cell, rate, self.study.rate_seed, True) for rate in rates] if len(rates) > 1 else []

    def rate(self, cell: str) -> Rate | None:
        """The rate of the cell with the lowest held-out loss; None if it has no rate, or no run to choose it yet.

        Raises:
            UserError: All rates diverged.
        """
        rates = self.study.rates_of(cell)
        if len(rates) == 1:
            return Rate(rates[0], {rates[0]: None})
        losses = {}
        for run in self.rate_runs(cell):
            record = self.record(run)
            if record is None:
                return None
            assert run.rate is not None
            losses[run.rate] = record.held_out_loss
        measured = {rate: loss for rate, loss in losses.items() if loss is not None}
        if losses and not measured:
            raise UserError(f"cells.{cell}.rates: no run with any of them ended well; give lower ones")
        return Rate(min(measured, key=lambda rate: measured[rate]), losses) if measured else None

    def results(self, cell: str) -> list[StudyRun]:
        """The runs that the tables are made of, one per seed; none before the rate is chosen."""
        if not self.study.rates_of(cell):
            return [self._run(cell, None, seed, False) for seed in self.study.seeds_of(cell)]
        rate = self.rate(cell)
        return [] if rate is None else [self._run(cell, rate.value, seed, False) for seed in self.study.seeds_of(cell)]

    def _needed(self, cell: str) -> list[StudyRun]:
        return [*self.rate_runs(cell), *self.results(cell)]

    def _unrecorded_results(self, cell: str) -> list[StudyRun]:
        return [run for run in self.results(cell) if self.record(run) is None]

    def _run(self, cell: str, rate: float | None, seed: int, chooses_rate: bool) -> StudyRun:
        study = self.study
        overrides = [*study.overrides, *(study.rate_overrides if chooses_rate else []), *study.cells[cell].overrides]
        overrides += [] if rate is None else [f"optimizer.lr={rate:g}"]
        return StudyRun(cell, rate, seed, chooses_rate, (*overrides, f"seed={seed}"))


def _difference(recorded: tuple[str, ...], wanted: tuple[str, ...]) -> str:
    """What is told only to one of two runs."""
    only = [f"-{one}" for one in recorded if one not in wanted] + [f"+{one}" for one in wanted if one not in recorded]
    return " ".join(only) or "in another order"
