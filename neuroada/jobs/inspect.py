"""``job=inspect``: what an adapter has learnt, layer by layer, which inputs it chose, and what two adapters share."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas
import torch
from rich.progress import track
from torch import Tensor
from transformers import PreTrainedModel

from neuroada.backbones import loading
from neuroada.backbones.heads import head_of
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.side_by_side import BASE, Writers, answers_table, protocol_of_questions, questions
from neuroada.jobs.sizing import kind_of
from neuroada.methods.changes import Change, Kept, Overlap, Size, choices
from neuroada.methods.saved import Saved, open_saved
from neuroada.report.inspection import (
    FIGURES_FOLDER,
    WEIGHTS_FILE,
    Inspection,
    inputs_table,
    kinds_table,
    write_inspection,
)
from neuroada.report.terminal import console_for_tables, table_of
from neuroada.runs.adapter_origin import unchanged_adapter
from neuroada.runs.folder_lock import locked
from neuroada.runs.foreign_files import begins_with, refuse_other_files
from neuroada.training.data_sources import sources_of

_BLOCK = re.compile(r"\.(\d+)\.")
_BEGINNINGS = ("adapter,kind,", "<!DOCTYPE html>")
_OF_OVERLAP = ("shared", "either", "product", "square", "square of the other")
"""Columns with the fields of ``Overlap``, in their order."""


def inspect(run: RunConfig, folder: Path) -> None:
    """Print tables of what ``adapter`` has learnt, beside ``inspect.against``, and write a page into ``folder``.

    Raises:
        UserError, AdapterError: An adapter or its base cannot be read, or do not belong together, or the folder holds
            files of something else.
    """
    refuse_other_files(folder, own=_written_by(folder))
    assert run.adapter is not None, "checked with the configuration"
    with locked([folder]):
        adapters = _opened([run.adapter, *([run.inspect.against] if run.inspect.against else [])], run.allow_precision)
        found, answers = _looked_into(run, adapters)
        console = console_for_tables()
        console.print(table_of(kinds_table(found), "what was learnt, by kind of layer"))
        if not found.inputs.empty:
            console.print(table_of(inputs_table(found), "inputs that neurons chose"))
        if answers:
            console.print(answers_table(answers))
        for note in found.notes:
            console.print(note, soft_wrap=True, markup=False)
        page = write_inspection(folder, found)
        console.print(f"page: {page}", soft_wrap=True, markup=False)


def _written_by(folder: Path) -> Callable[[Path], bool]:
    """Tells whether this job has written a file of the folder."""
    begins = begins_with(*_BEGINNINGS)

    def own(file: Path) -> bool:
        is_figure = file.parent == folder / FIGURES_FOLDER
        return begins(folder / WEIGHTS_FILE) if is_figure else begins(file)

    return own


def _opened(paths: Sequence[str], allow_precision: bool) -> dict[str, Saved]:
    """The adapters by the names that tables give them."""
    directories = [unchanged_adapter(Path(path)) for path in paths]
    names = _names(paths)
    return {name: open_saved(directory, allow_precision) for name, directory in zip(names, directories, strict=True)}


def _names(paths: Sequence[str]) -> list[str]:
    """The parts of the paths that tell them apart: the task where that differs, and not the seed where it does not."""
    parts = [Path(path).parts for path in paths]
    if len(set(map(len, parts))) == 1:
        differ = [place for place, found in enumerate(zip(*parts, strict=True)) if len(set(found)) > 1]
        names = ["/".join(part[place] for place in differ) for part in parts]
        if differ and len(set(names)) == len(names):
            return names
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"inspect.against={paths[-1]}: the same as adapter; give another one")


def _looked_into(run: RunConfig, adapters: Mapping[str, Saved]) -> tuple[Inspection, list[dict[str, Any]]]:
    writers, asked = None, []
    if run.inspect.prompts:
        protocol = protocol_of_questions(run, sources_of(run))
        asked = questions("inspect.prompts", run.inspect.prompts, protocol, "leave it out")
        writers = Writers.of(run, protocol, adapters)
    on_cpu = replace(run.model, liger_kernel=False)  # its kernels are for GPUs, and nothing is computed here
    head = head_of(run.task, run.method.get("modules_to_save"))
    model = loading.load_model(on_cpu, torch.device("cpu"), head=head) if writers is None else writers.model
    look = _Look()
    for name, saved in adapters.items():
        look.into(name, model, saved)
    if len(adapters) > 1:
        look.compare_the_rest()
    answers: list[dict[str, Any]] = []
    if writers is not None:
        answers = list(writers.rows(asked))
    columns = ["instruction", BASE, *adapters]
    shown = pandas.DataFrame([[row[name] for name in columns] for row in answers], columns=["question", *columns[1:]])
    return look.inspection(shown), answers


@dataclass
class _Look:
    """What was found in one adapter after another."""

    weights: list[dict[str, Any]] = field(default_factory=list)
    inputs: dict[tuple[str, str], tuple[Tensor, int]] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of the first adapter, by weight, until the second one is found to change it, too."""

    def into(self, name: str, model: PreTrainedModel, saved: Saved) -> None:
        trained = saved.attach(model)
        is_second = bool(self.kept)
        try:
            with torch.no_grad():
                for change in track(trained.changes(), f"reading {name}", transient=True):
                    self._note(name, change, is_second)
        finally:
            trained.detach()

    def _note(self, name: str, change: Change, is_second: bool) -> None:
        kind, block = place_of(change.name)
        size = Size.of(change)
        row = {
            "adapter": name,
            "kind": kind,
            "block": block,
            "weight": change.name,
            "entries": size.num_entries,
            "rms base": size.rms_base,
            "rms learnt": size.rms_delta,
            "largest": size.largest,
            "lost": size.num_lost,
        }
        if change.singles_out_inputs:
            self._count_inputs(name, kind, change)
        self.weights.append(row)
        if not is_second:
            self.kept[change.name] = Kept.of(change)
            self.rows[change.name] = row
        elif change.name in self.kept:
            self.rows.pop(change.name).update(_columns_of(self.kept[change.name].overlap(change)))
        else:
            overlap = Kept.of(change).alone
            # In the roles of the second adapter.
            row.update(_columns_of(replace(overlap, square_ours=0.0, square_theirs=overlap.square_ours)))

    def compare_the_rest(self) -> None:
        """Weights that the first adapter alone changes count as well."""
        for name, row in self.rows.items():
            row.update(_columns_of(self.kept[name].alone))

    def _count_inputs(self, name: str, kind: str, change: Change) -> None:
        counts = choices(change).cpu()
        before, neurons = self.inputs.get((name, kind), (torch.zeros_like(counts), 0))
        if before.shape == counts.shape:  # blocks of other widths are counted in none
            self.inputs[name, kind] = (before + counts, neurons + len(change.base))

    def inspection(self, answers: pandas.DataFrame) -> Inspection:
        weights = pandas.DataFrame(self.weights)
        rows = [
            (name, kind, place, count, neurons)
            for (name, kind), (counts, neurons) in self.inputs.items()
            for place, count in enumerate(counts.tolist())
        ]
        inputs = pandas.DataFrame(rows, columns=["adapter", "kind", "input", "times chosen", "neurons"])
        return Inspection(weights, inputs, answers, list(_notes(weights)))


def _columns_of(overlap: Overlap) -> dict[str, float]:
    return {**dict(zip(_OF_OVERLAP, astuple(overlap), strict=True)), "cosine": overlap.cosine}


def _notes(weights: pandas.DataFrame) -> Iterator[str]:
    """What the tables do not say by themselves."""
    first, *others = weights["adapter"].unique()
    by_adapter = [set(of_one["weight"]) for _, of_one in weights.groupby("adapter")]
    if others and not set.intersection(*by_adapter):
        yield f"{first} and {others[0]} have no weight in common, so that nothing can be compared."
    elif others:
        total = Overlap(*(weights[key].sum() for key in _OF_OVERLAP))
        yield (
            f"{first} and {others[0]}: of the entries that either changes, both change {100 * total.jaccard:.1f} %; "
            f"the cosine of the two changes is {total.cosine:.2f}."
        )


def place_of(parameter: str) -> tuple[str, int | None]:
    """The kind of a weight and its block: ``("q_proj", 3)`` of ``model.layers.3.self_attn.q_proj.weight``."""
    ending = parameter.rpartition(".")[2]
    kind = kind_of(parameter) if ending == "weight" else f"{kind_of(parameter)}.{ending}"
    found = _BLOCK.search(parameter)
    return kind, int(found[1]) if found else None
