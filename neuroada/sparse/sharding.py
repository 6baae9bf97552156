"""Shard an adapted model over ranks with FSDP2, such that rewriting the weights after a step is local to each rank.

All tensors of a layer are aligned by row: weight (O, I), columns, values and original entries (O, K). They are split
into the same blocks of rows, so each rank holds the values, their columns and the weight entries they belong to. The
ranks exchange what FSDP exchanges for a frozen model, plus columns and values with each weight, plus the gradient of
the values.

Memory: columns are selected before sharding, on whole weights, on the device where these are. A model on the CPU stays
there until ``shard_model``; then one whole block of layers at a time is moved to the rank's device and sharded, and
the rest of it is freed. In training the device holds its share of all blocks, the current block, the next one, which
is prefetched, and everything outside the blocks (embeddings, output head). The latter stays whole, because once
gathered it would be needed from the start of the forward to the end of the backward.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from neuroada.sparse.errors import AdapterError
from neuroada.sparse.layer import BypassedLinear
from neuroada.sparse.sharded_rows import is_sharded, rows_as

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def check_torch() -> None:
    """Raise AdapterError if this torch cannot shard an adapter: FSDP up to 2.11 fails at integer parameters.

    The columns are such parameters. See issue 177844 of pytorch/pytorch.
    """
    if torch.__version__ < "2.12":
        raise AdapterError(
            f"torch {torch.__version__} cannot shard an adapter, because its FSDP refuses integer parameters; "
            "install torch 2.12 or newer, or use DDP"
        )


def shard_model(model: nn.Module, layers: Sequence[BypassedLinear], mesh: "DeviceMesh") -> None:
    """Shard each block of layers by rows over a one-dimensional mesh, and move the rest to the device. In place.

    Args:
        model: The parameters of its blocks become ``DTensor`` parameters with the same names. A model without a module
            list is one block.
        layers: All its adapted layers; a layer outside the blocks is sharded separately.
        mesh: The ranks; they compute on its device type.

    Raises:
        AdapterError: See ``check_torch``.
    """
    check_torch()
    # Imported here because it takes more than a second.
    from torch.distributed.fsdp import fully_shard

    for layer in layers:
        # Elsewhere these are buffers, as an integer parameter breaks requires_grad_(True); but FSDP shards parameters.
        columns_OK = layer.columns
        del layer.bypass.columns
        layer.bypass.register_parameter("columns", nn.Parameter(columns_OK, requires_grad=False))
    blocks = list(_blocks(model)) or [model]
    inside = {id(module) for block in blocks for module in block.modules()}
    for part in [*blocks, *(layer for layer in layers if id(layer) not in inside)]:
        fully_shard(part, mesh=mesh)
    # With one root above them, FSDP gathers a block while the previous one computes.
    root = _common_parent(model, blocks)
    if root is not blocks[0]:
        fully_shard(root, mesh=mesh, ignored_params={rest for rest in root.parameters() if not is_sharded(rest)})
    model.to(next(blocks[0].parameters()).device)
    for layer in layers:
        # The forward does not read them, so they must not be gathered: they stay a buffer, with this rank's rows.
        layer.bypass.original = rows_as(layer.bypass.original, layer.values)


def by_rows(layers: Mapping[str, nn.Module]) -> list[BypassedLinear]:
    """The layers, if the rows of each of their weights are its neurons.

    Raises:
        AdapterError: One is quantised, or stores its weight in another way.
    """
    found = []
    for name, layer in layers.items():
        if type(layer) is not BypassedLinear:
            raise AdapterError(
                f"shard(): {name} is quantised, or stores its weight in another way than nn.Linear, so its rows cannot "
                "be sharded; train on whole models, such as with DDP"
            )
        found.append(layer)
    return found


def reshard(model: nn.Module) -> None:
    """Reduce every parameter to this rank's share: FSDP leaves the parameters of its roots whole after a forward."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The members of the outermost module lists: the layers of a transformer."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if next(block.parameters(), None) is not None)
        else:
            yield from _blocks(child)


def _common_parent(module: nn.Module, blocks: Sequence[nn.Module]) -> nn.Module:
    """The innermost module with a forward that contains all blocks: the decoder of a language model."""
    for child in module.children():
        inside = set(child.modules())
        if not isinstance(child, nn.ModuleList) and all(block in inside for block in blocks):
            return _common_parent(child, blocks)
    return module
