"""``job=combine``: the weighted sum of saved adapters, written as one."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.json_files import read_json
from neuroada.config.schema import RunConfig
from neuroada.methods.saved import SavedNeuroAda, open_saved
from neuroada.runs.adapter_origin import unchanged_adapter
from neuroada.runs.files import ADAPTER_FOLDER, PROMPTS_FILE
from neuroada.runs.foreign_files import refuse_foreign
from neuroada.runs.record import recorded, write_config
from neuroada.sparse.combining import combined, refuse_whole
from neuroada.storage.whole_files import whole_folder, write_whole


def combine(run: RunConfig, folder: Path) -> None:
    """Write ``adapter/``, the sum, and ``config.yaml``, with which other jobs read it like a run's; say what was lost.

    Raises:
        UserError, AdapterError: An adapter or its base cannot be read, they do not belong together, one is no NeuroAda
            adapter, or the folder has a sum or files of something else.
    """
    refuse_foreign(folder)
    target = folder / ADAPTER_FOLDER
    if target.exists() and run.resume != "never":
        raise UserError(f"{target} exists already; use resume=never to overwrite it, or another hydra.run.dir")
    directories = [_part(Path(path)) for path in run.adapter]
    model = loading.load_model(replace(run.model, liger_kernel=False), torch.device("cpu"))
    weights = run.combine.weights or [1 / len(directories)] * len(directories)
    combination = combined(model, directories, weights, allow_precision=run.allow_precision)
    write_config(folder, recorded(run))
    with whole_folder(target) as partial:
        combination.adapter.save(partial)
        if prompts := _prompts(directories):
            write_whole(partial / PROMPTS_FILE, json.dumps(prompts, indent=2, ensure_ascii=False) + "\n")
    _say(str(combination), folder)


def _part(path: Path) -> Path:
    directory = unchanged_adapter(path)
    saved = open_saved(directory)
    if not isinstance(saved, SavedNeuroAda):
        raise UserError(
            f"adapter={path}: holds no NeuroAda bypasses, which job=combine adds up; give adapters of method=neuroada "
            "(peft adds its own kinds with add_weighted_adapter)"
        )
    refuse_whole(directory)
    return directory


def _prompts(directories: Sequence[Path]) -> dict[str, Any]:
    """The definitions of the prompts that all parts were trained on, by data set; of two, the first one's."""
    found: dict[str, Any] = {}
    for directory in reversed(directories):
        if (directory / PROMPTS_FILE).is_file():
            found |= read_json(directory / PROMPTS_FILE, dict[str, Any], "copy the adapter again")
    return found


@rank_zero_only
def _say(loss: str, folder: Path) -> None:
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    console = Console(highlight=False)
    for line in (loss, f"adapter: {shown}", f"score it with: job=evaluate adapter={shown}"):
        console.print(line, soft_wrap=True, markup=False)
