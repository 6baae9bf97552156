"""An adapted model spread over ranks with FSDP2, so that rewriting the weights after a step stays local to each rank.

Everything of a layer is aligned by row: weight (O, I), columns, values and original entries (O, K). Cut into the same
blocks of rows, each rank holds the values, the columns and the weight entries they belong to. What moves is what FSDP
moves for a frozen model, plus columns and values with each weight, plus the gradient of the values.

What is held when: columns are chosen before sharding, on whole weights, wherever these lie. A model on the CPU stays
there until ``shard_model`` reaches it; then one block of layers at a time goes to the rank's device, whole, is cut,
and the rest of it is dropped. In training the device holds its share of all blocks, the block at work and the next
one, gathered ahead, and what belongs to no block (embeddings, output head), which stays whole: gathered, it would
have to be there from the forward's start to the backward's end.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import nn

from neuroada.sparse.layer import BypassedLinear
from neuroada.sparse.sharded_rows import is_sharded, rows_as

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard_model(model: nn.Module, layers: Sequence[BypassedLinear], mesh: "DeviceMesh") -> None:
    """Shard each block of layers by rows over a one-dimensional mesh, and move the rest to the device. In place.

    Args:
        model: Its blocks' parameters become ``DTensor`` parameters of the same names. A model without a module list
            is one block.
        layers: All its adapted layers; one outside the blocks is sharded by itself.
        mesh: The ranks; its device type is where they compute.
    """
    # Imported where it is used: it takes more than a second.
    from torch.distributed.fsdp import fully_shard

    for layer in layers:
        # Buffers everywhere else: an integer parameter breaks requires_grad_(True). But FSDP shards parameters only.
        columns_OK = layer.columns
        del layer.bypass.columns
        layer.bypass.register_parameter("columns", nn.Parameter(columns_OK, requires_grad=False))
    blocks = list(_blocks(model)) or [model]
    inside = {id(module) for block in blocks for module in block.modules()}
    for part in [*blocks, *(layer for layer in layers if id(layer) not in inside)]:
        fully_shard(part, mesh=mesh)
    # With one root above them, FSDP gathers a block while the one before it computes.
    root = _common_parent(model, blocks)
    if root is not blocks[0]:
        fully_shard(root, mesh=mesh, ignored_params={rest for rest in root.parameters() if not is_sharded(rest)})
    model.to(next(blocks[0].parameters()).device)
    for layer in layers:
        # The forward does not read them, so they are not to be gathered: a buffer still, of this rank's rows.
        layer.bypass.original = rows_as(layer.bypass.original, layer.values)


def reshard(model: nn.Module) -> None:
    """Let every parameter be this rank's share: FSDP leaves those of its roots whole after a forward."""
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
    """The innermost module with a forward that holds all blocks: the decoder of a language model."""
    for child in module.children():
        inside = set(child.modules())
        if not isinstance(child, nn.ModuleList) and all(block in inside for block in blocks):
            return _common_parent(child, blocks)
    return module
