"""What is recorded of a cell: its runs at the chosen rate, what they reached, and the same item by item."""

import statistics
from dataclasses import dataclass, replace

from neuroada.report.cells import loss_before_training
from neuroada.report.estimates import Estimate
from neuroada.report.paired_means import Values
from neuroada.report.significance import Item, item_scores
from neuroada.runs.held_out_rows import read_rows
from neuroada.runs.listing import Run
from neuroada.studies.plan import Rate, StudyPlan
from neuroada.studies.records import Record


@dataclass(frozen=True)
class CellResults:
    """A cell with its records.

    Attributes:
        name: Of the cell.
        rate: The chosen learning rate; None if it has none, or none is chosen yet.
        records: Of the runs at that rate, in the order of the seeds.
        before_training: Of the base: its held-out loss, which the runs that train measure at step 0; None if they
            disagree, or none does.
    """

    name: str
    rate: Rate | None
    records: tuple[Record, ...]
    before_training: float | None = None

    @property
    def runs(self) -> list[Run]:
        return [record.run for record in self.records if record.run is not None]

    def estimate(self, number: str) -> Estimate | None:
        """One of ``Run.numbers`` over the seeds; None if none recorded it."""
        if number == "held-out loss" and self.before_training is not None:
            return Estimate((self.before_training,))
        values = tuple(run.numbers[number] for run in self.runs if number in run.numbers)
        return Estimate(values) if values else None

    @property
    def cpu_seconds(self) -> float:
        """Mean processor time of a run."""
        return statistics.fmean(record.entry["cpu_seconds"] for record in self.records)

    def item_scores(self) -> dict[int, Values]:
        """Seed -> item -> its score, 0 to 1; seeds without predictions are left out."""
        found = {int(run.setting("seed")): item_scores(run.folder, run.result) for run in self.runs}
        return {seed: of_run for seed, of_run in found.items() if of_run}

    def held_out(self) -> dict[int, Values]:
        """Seed -> held-out row -> its loss in nats per token; empty if a run of an early version kept none.

        Else the mean of some seeds would stand beside the mean of all in the table of results.
        """
        found: dict[int, Values] = {}
        for run in self.runs:
            rows = read_rows(run.folder, run.result)
            if rows:
                found[int(run.setting("seed"))] = {
                    Item(row.dataset, row.row, ""): row.mean for row in rows if row.num_tokens
                }
        return found if len(found) == len(self.runs) else {}


def results_of(plan: StudyPlan) -> list[CellResults]:
    """Every cell of a study with what is recorded of it."""
    found = []
    for cell in plan.study.cells:
        records = [record for run in plan.results(cell) if (record := plan.record(run)) is not None]
        found.append(CellResults(cell, plan.rate(cell), tuple(records)))
    loss = loss_before_training(run for cell in found for run in cell.runs)
    return [replace(cell, before_training=loss) if any(run.is_base for run in cell.runs) else cell for cell in found]
