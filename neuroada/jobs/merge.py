"""``job=merge``: write the base with a saved adapter merged in, as a plain Hugging Face checkpoint."""

import logging
import shlex
import shutil
from pathlib import Path

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console

from neuroada.backbones import loading, shipped_files
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.data.chat_templates import with_chat_template
from neuroada.decoding.answer_ends import answer_ends
from neuroada.methods.saved import open_saved
from neuroada.runs.adapter_origin import adapter_directory
from neuroada.runs.files import PROMPTS_FILE
from neuroada.sparse.file_modes import open_as_new

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
    partial = folder / f"{MERGED_FOLDER}.partial"
    _refuse_foreign(target)
    _refuse_foreign(partial)
    directory = adapter_directory(Path(run.adapter))
    saved = open_saved(directory)
    model = loading.load_model(run.model, torch.device("cpu"))
    trained = saved.attach(model)
    facts = trained.facts()
    trained.merge()
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    open_as_new(partial.glob("*.safetensors"))
    ends = answer_ends(run.model, with_chat_template(loading.load_tokenizer(run.model), run.data.chat_template))
    shipped_files.complete(run.model, model, ends, partial)
    if run.data.chat_template is not None:
        shipped_files.write_chat_template(run.data.chat_template, partial)
    if (directory / PROMPTS_FILE).is_file():
        shutil.copyfile(directory / PROMPTS_FILE, partial / PROMPTS_FILE)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    if facts.get("rounded_away"):
        logger.info("%.2f %% of the values are lost to rounding in %s", 100 * facts["rounded_away"], model.dtype)
    _say_where(target)


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
