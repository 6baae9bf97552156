"""``job=gpu_check``: whether this machine's GPU computes what a CPU does, and how fast it is, in one file.

It runs in parts, ``neuroada.gpu_check.parts``, and is made for short leases of a GPU: a later start of the same command
does what is missing. ``gpu_check=tiny`` rehearses all of it on any machine.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console

import neuroada
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.costs.measured_table import merged_table
from neuroada.costs.measurement import device_name
from neuroada.gpu_check.ledger import BEGINNING, Ledger, PartRecord
from neuroada.gpu_check.outcome import MARKDOWN_BEGINNING, details, markdown, overview, worth_reading
from neuroada.gpu_check.parts import PARTS
from neuroada.gpu_check.running import run_here, run_in_child
from neuroada.gpu_check.series import run_parts
from neuroada.gpu_check.setting import Setting
from neuroada.runs.foreign_files import begins_with, refuse_other_files
from neuroada.sparse import measured_ways
from neuroada.sparse.measured_ways import kind_of_gpu
from neuroada.storage.whole_files import write_whole
from neuroada.training.trainer import build_trainer

logger = logging.getLogger(__name__)

_TABLE_PART = "gradient_timing"
"""The part from which the table of fastest ways is made."""
_LARGEST_ON_CPU = 1 << 20
"""Entries of a layer: more belong to a GPU, and would take hours without one."""


def gpu_check(run: RunConfig, folder: Path) -> None:
    """Run the parts that the file lacks, each added to it as it ends; print what was found.

    Raises:
        UserError: There is no part of a name, no GPU for shapes of this size, or the file is damaged.
    """
    path = folder / run.gpu_check.out
    refuse_other_files(path.parent, own=_is_own)
    setting = Setting(run, build_trainer(run, folder).strategy.root_device)
    _refuse_large_shapes(setting)
    names = _chosen(run.gpu_check.parts)
    version = neuroada.__version__
    ledger = Ledger(path, version) if run.resume == "never" else Ledger.opened(path, version)
    left = {name: reason for name in names if (reason := PARTS[name].why_left_out(setting))}
    to_do = ledger.missing([name for name in names if name not in left], device_name(setting.device))
    left |= run_parts(to_do, setting, ledger, run_in_child if setting.device.type == "cuda" else run_here)
    _report(names, ledger, left, setting.device)


def _chosen(asked: Sequence[str] | None) -> list[str]:
    if unknown := [name for name in asked or () if name not in PARTS]:
        raise UserError(f"gpu_check.parts: there is no part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    return [name for name in PARTS if asked is None or name in asked]


def _refuse_large_shapes(setting: Setting) -> None:
    largest = max(out_features * in_features for out_features, in_features in setting.check.layers)
    if setting.device.type != "cuda" and largest > _LARGEST_ON_CPU:
        raise UserError(
            f"job=gpu_check: torch {torch.__version__} finds no GPU here; gpu_check=tiny rehearses the command on a CPU"
        )


def _is_own(file: Path) -> bool:
    return file.name == measured_ways.FILE.name or begins_with(BEGINNING, MARKDOWN_BEGINNING)(file)


def _report(names: Sequence[str], ledger: Ledger, left: Mapping[str, str], device: torch.device) -> None:
    console = Console(highlight=False)
    done = {name: ledger.records[name] for name in names if name in ledger.records}
    for name, record in done.items():
        if worth_reading(record.rows):
            console.print(details(name, record))
    console.print(overview(names, ledger.records, left))
    if not ledger.records:
        return
    text = ledger.path.with_suffix(".md")
    write_whole(text, markdown(PARTS, ledger.records))
    console.print(f"written: {_shown(ledger.path)} and {_shown(text)}", soft_wrap=True)
    if device.type != "cuda":
        console.print("This was a rehearsal on a CPU: its times say nothing about a GPU.")
        return
    console.print("Commit both under docs/benchmarks/, named after the card, and fill docs/performance.md from them.")
    if (timed := done.get(_TABLE_PART)) is not None:
        _write_fastest_ways(timed, device, ledger.path.with_name(measured_ways.FILE.name), console)


def _write_fastest_ways(timed: PartRecord, device: torch.device, path: Path, console: Console) -> None:
    stored = measured_ways.FILE.read_text(encoding="utf-8")
    write_whole(path, merged_table(stored, kind_of_gpu(device), timed.rows))
    console.print(f"The fastest ways of the gradient: copy {_shown(path)} to {measured_ways.FILE}", soft_wrap=True)


def _shown(path: Path) -> str:
    return os.path.relpath(path)
