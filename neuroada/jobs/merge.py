"""``job=merge``: write the base with a saved adapter merged in, as a plain Hugging Face checkpoint."""

import logging
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from transformers import PreTrainedModel

from neuroada.backbones import loading, shipped_files
from neuroada.backbones.heads import head_of
from neuroada.backbones.quantization import dequantise
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.data.chat_templates import with_chat_template
from neuroada.decoding.answer_ends import answer_ends
from neuroada.methods.saved import open_saved
from neuroada.runs.adapter_origin import unchanged_adapter
from neuroada.runs.files import PROMPTS_FILE
from neuroada.runs.foreign_files import refuse_other_files
from neuroada.sparse.dequantising import DEQUANTIZE
from neuroada.sparse.file_modes import open_as_new
from neuroada.sparse.linear_layers import is_quantised
from neuroada.storage.whole_files import PARTIAL_ENDING, whole_folder

logger = logging.getLogger(__name__)

MERGED_FOLDER = "merged"
_CONFIG_FILE = "config.json"
"""The first file of a checkpoint that is written."""


def merge(run: RunConfig, folder: Path) -> None:
    """Write ``merged/`` into the merge's own run folder: weights, configuration and tokenizer, for ``from_pretrained``.

    Not into the adapter's run: that one may be read-only or received, and another dtype gives another checkpoint. Files
    beside the weights are those of the base, unchanged but for what training changed. There is no
    ``adapter_config.json``: with peft installed, ``from_pretrained`` would read it as a peft adapter.

    Raises:
        UserError, AdapterError: The adapter or its base cannot be read, or do not belong together, or ``merged/`` is
            there already.
    """
    assert run.adapter is not None, "checked with the configuration"
    target = folder / MERGED_FOLDER
    if target.exists() and run.resume != "never":
        raise UserError(f"{target} exists already; use resume=never to overwrite it, or another hydra.run.dir")
    for place in (target, folder / f"{MERGED_FOLDER}{PARTIAL_ENDING}"):
        _refuse_foreign(place)
    refuse_other_files(folder, own=lambda file: MERGED_FOLDER in file.relative_to(folder).parts[0])
    directory = unchanged_adapter(Path(run.adapter))
    saved = open_saved(directory, run.allow_precision)
    head = head_of(run.task, run.method.get("modules_to_save"))
    model = loading.load_model(replace(run.model, liger_kernel=False), torch.device("cpu"), head=head)
    if run.job.quantized_base == DEQUANTIZE:
        dequantise(model)  # before the adapter, so that whatever kind it is finds plain layers
    else:
        _refuse_quantised(run, model)
    trained = saved.attach(model)
    facts = trained.facts()
    trained.merge()
    with whole_folder(target) as written:
        _write(run, model, directory, written)
    if facts.get("rounded_away"):
        logger.info("%.2f %% of the values are lost to rounding in %s", 100 * facts["rounded_away"], model.dtype)
    _say_where(target)


def _refuse_quantised(run: RunConfig, model: PreTrainedModel) -> None:
    """Raises UserError if a layer is quantised, so that values cannot be added to its weight."""
    if any(is_quantised(module) for module in model.modules()):
        raise UserError(
            "job=merge: the base is quantised, so its weights cannot take the values; job.quantized_base=dequantize "
            "makes plain layers of it first, or merge into the base as it was before: model.quantization=null "
            "allow_precision=true"
        )


def _write(run: RunConfig, model: PreTrainedModel, adapter: Path, folder: Path) -> None:
    model.save_pretrained(folder)
    open_as_new(folder.glob("*.safetensors"))
    ends = answer_ends(run.model, with_chat_template(loading.load_tokenizer(run.model), run.data.chat_template))
    shipped_files.complete(run.model, model, ends, folder)
    if run.data.chat_template is not None:
        shipped_files.write_chat_template(run.data.chat_template, folder)
    if (adapter / PROMPTS_FILE).is_file():
        shutil.copyfile(adapter / PROMPTS_FILE, folder / PROMPTS_FILE)


def _refuse_foreign(checkpoint: Path) -> None:
    """A folder of that name is replaced only if it is a checkpoint."""
    if any(checkpoint.glob("*")) and not (checkpoint / _CONFIG_FILE).is_file():
        raise UserError(f"{checkpoint} holds files that no merge wrote; use another hydra.run.dir")


@rank_zero_only
def _say_where(target: Path) -> None:
    shown = target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target
    # Not through the logger: the path is there to be copied, so that it may not be broken.
    console = Console(highlight=False)
    console.print(f"merged checkpoint: {shown}", soft_wrap=True, markup=False)
    override = shlex.quote(f"model.name_or_path={shown}")
    console.print(f"score it with: job=evaluate {override} and its task", soft_wrap=True, markup=False)
