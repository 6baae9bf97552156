"""Which weights of a model an adapter reaches, and which large ones it leaves frozen."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from neuroada.sparse.linear_layers import is_linear, packed_sizes
from neuroada.sparse.module_names import plain_modules
from neuroada.sparse.whole_modules import is_inside

_MOST_SHOWN = 3
_LARGE = 0.05
"""Share of the model from which on weights that no bypass can be put on are worth a warning; experts always are."""


@dataclass(frozen=True)
class Coverage:
    """What target layers cover.

    Attributes:
        num_layers: Adapted layers.
        num_adapted_blocks: Transformer blocks with at least one of them.
        num_blocks: Transformer blocks of the model: the members of its outermost module lists.
        reached: Parameters in the weights of the adapted layers and in modules that train whole.
        total: Parameters of the model; tied ones count once.
        untouched: Parameters of the matrices that stay frozen, by name, largest first.
        left_out: In one line, the weights that cannot be adapted because no linear layer owns them, such as the
            experts of most mixtures; empty if there are none worth a warning.
    """

    num_layers: int
    num_adapted_blocks: int
    num_blocks: int
    reached: int
    total: int
    untouched: dict[str, int]
    left_out: str = ""

    def __str__(self) -> str:
        """Layers, blocks and the largest untouched matrices, in one line."""
        blocks = f" in {self.num_adapted_blocks} of {self.num_blocks} blocks" if self.num_blocks else ""
        largest = [f"{name} ({self._share(size)})" for name, size in list(self.untouched.items())[:_MOST_SHOWN]]
        others = len(self.untouched) - len(largest)
        untouched = f"; largest untouched: {', '.join(largest)}" if largest else ""
        more = f" and {others} more" if others else ""
        return f"{self.num_layers} linear layers{blocks}, {self._share(self.reached)} of the model{untouched}{more}"

    def described(self) -> dict[str, Any]:
        """For records: plain values, with the largest untouched matrices only."""
        largest = dict(list(self.untouched.items())[:_MOST_SHOWN])
        return {
            "layers": self.num_layers,
            "blocks": [self.num_adapted_blocks, self.num_blocks],
            "reached": self.reached,
            "largest_untouched": largest,
        }

    def _share(self, num_parameters: int) -> str:
        return f"{num_parameters / self.total:.0%}"


def coverage(model: nn.Module, layers: Collection[str], whole: Collection[str] = ()) -> Coverage:
    """What adapting these layers reaches. Reads shapes only, so it works on the meta device.

    Args:
        layers: Plain names of the adapted layers.
        whole: Plain names of modules that train whole.
    """
    modules = plain_modules(model)
    sizes = _Sizes(packed_sizes(modules.values()))
    blocks = [name for name, _ in blocks_of(modules[""])]
    weights = [part for name in layers for part in modules[name].parameters(recurse=False) if part.dim() > 1]
    own = {id(part): sizes.of(part) for part in weights}
    own |= {id(part): sizes.of(part) for name in whole for part in modules[name].parameters()}
    matrices = {name: part for name, part in _matrices(modules) if id(part) not in own}
    return Coverage(
        num_layers=len(layers),
        num_adapted_blocks=sum(any(is_inside(layer, {block}) for layer in layers) for block in blocks),
        num_blocks=len(blocks),
        reached=sum(own.values()),
        total=sum(map(sizes.of, model.parameters())),
        untouched=dict(
            sorted(((name, sizes.of(part)) for name, part in matrices.items()), key=lambda found: -found[1])
        ),
        left_out=_left_out(modules, set(own), sizes),
    )


@dataclass(frozen=True)
class _Sizes:
    """Parameters as they count, whatever number of entries a quantised weight is stored in."""

    packed: Mapping[int, int]

    def of(self, part: nn.Parameter) -> int:
        return self.packed.get(id(part), part.numel())


def blocks_of(model: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The members of the outermost module lists, with their names."""
    for name, child in model.named_children():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(child, nn.ModuleList):
            yield from ((f"{path}.{place}", block) for place, block in enumerate(child))
        else:
            yield from blocks_of(child, path)


def _matrices(modules: dict[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of at least two dimensions; a shared one under its first name."""
    seen: set[int] = set()
    for owner, module in modules.items():
        for key, part in module.named_parameters(recurse=False):
            if part.dim() > 1 and id(part) not in seen:
                seen.add(id(part))
                yield f"{owner}.{key}" if owner else key, part


def _left_out(modules: dict[str, nn.Module], own: set[int], sizes: _Sizes) -> str:
    found = {name: _matrices_of_no_layer(module, own) for name, module in modules.items()}
    owners = {name: weights for name, weights in found.items() if weights}
    experts = {
        name: weights for name, weights in owners.items() if "expert" in f"{name} {_kind(modules[name])}".lower()
    }
    owners = experts or owners
    num_parameters = sum(sizes.of(part) for weights in owners.values() for part in weights)
    share = num_parameters / sum(map(sizes.of, modules[""].parameters()))
    if not owners or (share < _LARGE and not experts):
        return ""
    first = next(iter(owners))
    others = f" and {len(owners) - 1} more" if len(owners) > 1 else ""
    num_weights = sum(map(len, owners.values()))
    return (
        f"{'experts' if experts else 'large weights'} stay frozen: {num_weights} "
        f"{'weight' if num_weights == 1 else 'weights'} with {num_parameters:,} parameters ({share:.0%} of the model), "
        f"owned by no linear layer ({_kind(modules[first])} at {first or 'the model'}{others})"
    )


def _matrices_of_no_layer(module: nn.Module, own: set[int]) -> list[nn.Parameter]:
    # As for targets: other subclasses of nn.Linear cannot be adapted either. Embeddings are no projections.
    if is_linear(module) or isinstance(module, nn.Embedding):
        return []
    return [part for part in module.parameters(recurse=False) if part.dim() > 1 and id(part) not in own]


def _kind(module: nn.Module) -> str:
    return type(module).__name__
