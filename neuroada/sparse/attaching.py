"""Attach a new adapter to a model, or one that was saved."""

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from neuroada.sparse import adapter_files
from neuroada.sparse.adapter import Adapter
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.gradient import AUTO, check_way
from neuroada.sparse.module_names import plain_modules
from neuroada.sparse.selection import layer_seed, select_columns
from neuroada.sparse.targets import check_layers, match_targets, refuse_attached
from neuroada.sparse.whole_modules import check_stored, match_whole, refuse_fresh_head

logger = logging.getLogger(__name__)

Track = Callable[[Iterable[str]], Iterable[str]]


def attach(model: nn.Module, config: NeuroAdaConfig, *, gradient: str = AUTO, track: Track = iter) -> Adapter:
    """Give the target layers of a model bypasses that start at zero, and freeze everything else. In place.

    How many layers of how many blocks are adapted, and the largest matrices that are not, is logged, and is in
    ``adapter.budget().coverage``. Large weights that no linear layer owns, such as the experts of most mixtures, stay
    frozen; a warning is logged.

    Args:
        model: Any torch or Hugging Face model with ``nn.Linear`` layers.
        config: What to adapt.
        gradient: How the gradient of the values is computed: ``auto`` (the fastest for each layer, by measured
            rule), ``gathered``, ``sampled``, ``gemm`` or ``triton``; ``triton_rows``,
            ``triton_groups`` and ``triton_shared`` name one of its kernels. It affects only speed, so it is not saved
            with the adapter.
        track: Wraps the names of the layers while their connections are ranked, to show progress:
            ``rich.progress.track`` or ``tqdm`` do.

    Raises:
        AdapterError: The targets do not match the model, it has an adapter already, or a head that is new and would
            not be saved; the model is then unchanged.
    """
    check_way(gradient)
    columns = selected_columns(model, config, track)
    adapter = Adapter(model, config, columns, gradient)
    covered = adapter.coverage
    logger.info("adapted %s", covered)
    if covered.left_out:
        logger.warning("%s", covered.left_out)
    return adapter


def selected_columns(model: nn.Module, config: NeuroAdaConfig, track: Track = iter) -> dict[str, Tensor]:
    """(out_features, k) columns for each target layer, by name. Nothing is changed.

    Raises:
        AdapterError: As ``attach``.
    """
    whole = match_whole(model, config.modules_to_save)
    targets = match_targets(model, config.target_modules, whole)
    refuse_fresh_head(model, whole)
    columns = {}
    for name in track(list(targets)):
        weight_OI = targets[name].weight
        if weight_OI.is_meta:
            raise AdapterError(f"{name}: its weight is on the meta device, so there is nothing to rank; load it first")
        try:
            columns[name] = select_columns(weight_OI, config.top_k, config.selection, layer_seed(config.seed, name))
        except AdapterError as error:
            raise AdapterError(f"{name}: {error}") from error
    return columns


def load(model: nn.Module, directory: str | Path, *, gradient: str = AUTO) -> Adapter:
    """Attach a saved adapter to the base model it was trained on, with its stored columns and values.

    Args:
        model: The base model.
        directory: What ``Adapter.save`` wrote, or the folder of a run, which holds it as ``adapter/``.
        gradient: As in ``attach``.

    Raises:
        AdapterError: The files are missing, damaged or of a newer format, or the model is another base or has an
            adapter already; the model is then unchanged.
    """
    check_way(gradient)
    directory = adapter_files.adapter_folder(directory)
    modules = plain_modules(model)
    refuse_attached(modules)
    stored = adapter_files.read(directory)
    missing = sorted(stored.columns.keys() - modules.keys())
    if missing:
        raise AdapterError(
            f"{directory}: this model has no layer {missing[0]} ({len(missing)} of {len(stored.columns)} are missing); "
            f"the adapter was trained on {stored.base_model_name_or_path or 'another model'}"
        )
    layers = check_layers(model, list(stored.columns))
    whole = match_whole(model, stored.config.modules_to_save)
    check_stored(stored.whole, whole, directory)
    try:
        stored.check_base({name: layer.weight for name, layer in layers.items()}, directory)
    except AdapterError:
        _refuse_lost_layers(model, stored, whole, directory)
        raise
    adapter = Adapter(model, stored.config, stored.columns, gradient)
    adapter.whole.write(stored.whole)
    with torch.no_grad():
        for name, layer in adapter.layers.items():
            layer.values.copy_(stored.values[name])
    adapter.sync()
    return adapter


def _refuse_lost_layers(
    model: nn.Module, stored: adapter_files.StoredAdapter, whole: Collection[str], directory: Path
) -> None:
    """The fingerprint is of all layers together, so that one without its tensors looks like another base."""
    try:
        named = match_targets(model, stored.config.target_modules, whole)
    except AdapterError:
        return
    if lost := [name for name in named if name not in stored.columns]:
        raise AdapterError(
            f"{directory / adapter_files.TENSORS_FILE}: lacks columns and values of {lost[0]} ({len(lost)} layers of "
            f"target_modules), or the base is another; copy or save the adapter again"
        )
