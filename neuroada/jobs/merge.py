"""``job=merge``: write the base with a saved adapter merged in, as a plain Hugging Face checkpoint."""

import logging
import shutil
from pathlib import Path

import torch

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.methods.saved import open_saved
from neuroada.runs.adapter_origin import adapter_directory

logger = logging.getLogger(__name__)

MERGED_FOLDER = "merged"


def merge(run: RunConfig, folder: Path) -> None:
    """Write ``merged/`` into the run folder: weights, configuration and tokenizer, for ``from_pretrained``.

    The folder has no ``adapter_config.json``: with peft installed, ``from_pretrained`` would read it as a peft adapter.

    Raises:
        UserError, AdapterError: The adapter or its base cannot be read, or do not belong together.
    """
    assert run.adapter is not None, "checked with the configuration"
    target = folder / MERGED_FOLDER
    if target.exists() and run.resume != "never":
        raise UserError(f"{target} exists already; use resume=never to overwrite it, or another hydra.run.dir")
    saved = open_saved(adapter_directory(Path(run.adapter)))
    tokenizer = loading.load_tokenizer(run.model)
    model = loading.load_model(run.model, torch.device("cpu"))
    trained = saved.attach(model)
    facts = trained.facts()
    trained.merge()
    partial = folder / f"{MERGED_FOLDER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    logger.info("merged checkpoint: %s", target)
    if facts.get("rounded_away"):
        logger.info("%.2f %% of the values are lost to rounding in %s", 100 * facts["rounded_away"], model.dtype)
