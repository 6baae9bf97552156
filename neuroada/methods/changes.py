"""What a method has learnt, weight by weight, and figures about it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from neuroada.sparse.entries import entries_at
from neuroada.sparse.whole_modules import WholeModules

_SPARSE_SHARE = 0.1
"""Share of changed entries up to which ``Kept`` stores only those."""
_DENSE_SHARE = 0.9
"""Share of changed entries from which on a weight is said to change as a whole."""


@dataclass(frozen=True)
class Change:
    """One weight and what was learnt for it.

    Attributes:
        name: The parameter's name in the backbone.
        base: The base's weight, (out_features, in_features) for a linear layer, else of any shape.
        delta: What is added to it, of the same shape, in fp32 or wider, before it is rounded to the base's dtype.
        columns: (out_features, k) int64 inputs that were chosen for each neuron; None where nothing was chosen, and
            what counts is what changed.
        rows: (rows,) neurons that ``columns``, then (rows, k), belongs to; None where every neuron has a row.
    """

    name: str
    base: Tensor
    delta: Tensor
    columns: Tensor | None = None
    rows: Tensor | None = None

    @classmethod
    def between(cls, name: str, base: Tensor, trained: Tensor) -> "Change":
        """The change from one content of a weight to another, (base's shape)."""
        wide = torch.promote_types(base.dtype, torch.float32)
        return cls(name, base, trained.to(base.device, wide) - base.to(wide))

    @property
    def singles_out_inputs(self) -> bool:
        """Whether neurons have inputs that were chosen, or that changed while most others did not."""
        if self.columns is not None:
            return True
        return self.base.dim() == 2 and int((self.delta != 0).sum()) < _DENSE_SHARE * self.delta.numel()


@dataclass(frozen=True)
class Size:
    """How large a change is.

    Attributes:
        num_entries: Entries that were chosen, or changed where nothing was chosen.
        rms_base: Root mean square of the base at those entries.
        rms_delta: Root mean square of what was learnt there.
        largest: The largest absolute value learnt.
        num_lost: Entries whose learnt value is not zero but is lost to rounding in the base's dtype.
    """

    num_entries: int
    rms_base: float
    rms_delta: float
    largest: float
    num_lost: int

    @property
    def ratio(self) -> float:
        """Learnt values against the base entries below them; 0 where the base has none."""
        return self.rms_delta / self.rms_base if self.rms_base else 0.0

    @classmethod
    @torch.no_grad()
    def of(cls, change: Change) -> "Size":
        base, delta = _entries(change)
        if not delta.numel():
            return cls(0, 0.0, 0.0, 0.0, 0)
        wide = base.to(delta.dtype)
        is_lost = (delta != 0) & ((wide + delta).to(base.dtype) == base)
        return cls(delta.numel(), _rms(wide), _rms(delta), float(delta.abs().max()), int(is_lost.sum()))


def whole_changes(whole: WholeModules) -> Iterator[Change]:
    """What modules that train whole have learnt; counts, such as the batches that a norm has seen, are left out."""
    current = whole.tensors()
    for name, original in whole.originals.items():
        if original.is_floating_point():
            yield Change.between(name, original, current[name].detach())


def choices(change: Change) -> Tensor:
    """(in_features,) int64: for how many neurons each input was chosen, or changed where nothing was chosen."""
    if change.columns is None:
        return (change.delta != 0).sum(dim=0)
    return torch.bincount(change.columns.flatten(), minlength=change.base.shape[1])


@dataclass(frozen=True)
class Kept:
    """A change that is kept to be compared with another adapter's; the changed entries only, where they are few.

    Attributes:
        delta: The learnt values, dense or as a sparse COO tensor, on the CPU.
    """

    delta: Tensor

    @classmethod
    def of(cls, change: Change) -> "Kept":
        delta = change.delta.cpu()
        is_sparse = int((delta != 0).sum()) <= _SPARSE_SHARE * delta.numel()
        return cls(delta.to_sparse() if is_sparse else delta)

    @property
    def alone(self) -> "Overlap":
        """If the other adapter does not change this weight."""
        delta = self.delta.to_dense()
        return Overlap(num_either=int((delta != 0).sum()), square_ours=float(delta.double().square().sum()))

    def overlap(self, change: Change) -> "Overlap":
        """How the change of the same weight by another adapter relates to this one."""
        ours, theirs = self.delta.to_dense(), change.delta.cpu()
        is_ours, is_theirs = ours != 0, theirs != 0
        return Overlap(
            num_shared=int((is_ours & is_theirs).sum()),
            num_either=int((is_ours | is_theirs).sum()),
            product=float((ours.double() * theirs).sum()),
            square_ours=float(ours.double().square().sum()),
            square_theirs=float(theirs.double().square().sum()),
        )


@dataclass(frozen=True)
class Overlap:
    """Two adapters' changes of the same weights; they add up over weights.

    Attributes:
        num_shared: Entries that both change.
        num_either: Entries that at least one changes.
        product: Sum of the products of both changes.
        square_ours: Sum of the squares of the first.
        square_theirs: Sum of the squares of the second.
    """

    num_shared: int = 0
    num_either: int = 0
    product: float = 0.0
    square_ours: float = 0.0
    square_theirs: float = 0.0

    def __add__(self, other: "Overlap") -> "Overlap":
        return Overlap(
            self.num_shared + other.num_shared,
            self.num_either + other.num_either,
            self.product + other.product,
            self.square_ours + other.square_ours,
            self.square_theirs + other.square_theirs,
        )

    @property
    def jaccard(self) -> float:
        """Shared entries among all that either changes, 0 to 1."""
        return self.num_shared / self.num_either if self.num_either else 0.0

    @property
    def cosine(self) -> float:
        """Cosine of the two changes as vectors, -1 to 1; 0 where one is zero."""
        norms = (self.square_ours * self.square_theirs) ** 0.5
        return self.product / norms if norms else 0.0


def _entries(change: Change) -> tuple[Tensor, Tensor]:
    """Base and delta at the entries that count, flat."""
    if change.columns is not None:
        base, delta = (entries_at(part, change.columns, change.rows) for part in (change.base, change.delta))
        return base.flatten(), delta.flatten()
    is_changed = change.delta != 0
    return change.base[is_changed], change.delta[is_changed]


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
