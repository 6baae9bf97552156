"""Callbacks of Lightning's that cannot work in these runs, and settings of those that can."""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from neuroada.config.errors import shown

_CHECKPOINTS = "checkpoints"
"""The folder that a run goes on from; see ``runs.files``."""
_INSTEAD_OF = {
    "GradientAccumulationScheduler": "a step has data.batch_size examples throughout; set that",
    "LearningRateFinder": "set optimizer.lr, or compare several with a sweep",
    "BatchSizeFinder": "leave data.micro_batch_size=null, which finds one",
}
_AVERAGES = ("WeightAveraging", "EMAWeightAveraging")
_CHECKPOINT = "ModelCheckpoint"


def mistaken_callbacks(callbacks: Mapping[str, Any]) -> Iterator[str]:
    """One line for each callback that would end training with a trace, or in a run that cannot be continued.

    Args:
        callbacks: The group, whose entries may be mistyped.
    """
    nodes = {name: node for name, node in callbacks.items() if isinstance(node, Mapping)}
    has_checkpoints = any(_class_of(node) == _CHECKPOINT for node in nodes.values())
    for name, node in nodes.items():
        kind, key = _class_of(node), f"callbacks.{name}"
        if kind in _INSTEAD_OF:
            yield f"{key}._target_={node['_target_']}: cannot be used here; {_INSTEAD_OF[kind]}"
        if kind in _AVERAGES and has_checkpoints:
            yield f"{key}._target_={node['_target_']}: its averages are in no checkpoint; add callbacks.checkpoint=null"
        if kind == _CHECKPOINT:
            yield from _mistaken_checkpoint(key, node)


def _mistaken_checkpoint(key: str, node: Mapping[str, Any]) -> Iterator[str]:
    folder = node.get("dirpath")
    if PurePath(str(folder)) != PurePath(_CHECKPOINTS):
        yield f"{key}.dirpath={shown(folder)}: a run goes on only from its own folder; use {_CHECKPOINTS}"
    if only := node.get("save_weights_only"):
        yield f"{key}.save_weights_only={only}: a run cannot go on from weights alone; leave it out"


def _class_of(node: Mapping[str, Any]) -> str:
    return str(node.get("_target_")).rpartition(".")[2]
