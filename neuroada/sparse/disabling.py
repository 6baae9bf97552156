"""Disable an adapter for a while: the model computes as its base, bit for bit, and values and optimizers stay.

A training step may do this between its forward and its backward pass, as preference losses do for the answers of a
reference model. torch counts the changes of each tensor and refuses a backward pass after any. Weights that are again
what they were get their count back; in between, a backward pass is refused as usual.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuroada.sparse.bypassing import AdaptedLayer
from neuroada.sparse.layer import BypassedLinear
from neuroada.sparse.rewrite import write_values
from neuroada.sparse.whole_modules import WholeModules


@dataclass
class _SetAside:
    """What comes back when an adapter is enabled.

    Attributes:
        whole: Trained tensors of modules that train whole.
        trained: The parameters that required gradients.
        changes: How often each value was changed, by torch's count.
        counts: Restores torch's counts of the tensors that were written, when left.
    """

    whole: dict[str, Tensor]
    trained: list[nn.Parameter]
    changes: list[int]
    counts: Any


class CanBeDisabled:
    """What ``Adapter`` can do besides: compute as the base."""

    layers: dict[str, AdaptedLayer]
    whole: WholeModules
    _set_aside: _SetAside | None = None

    def disable(self) -> None:
        """Compute as the base model, bit for bit, until ``enable``; values, gradients and optimizers stay as they are.

        Does nothing if it is disabled already. ``save`` saves the values in any case.
        """
        if self._set_aside is not None:
            return
        trained = [part for part in self._trained() if part.requires_grad]
        written = [layer.weight for layer in self.layers.values() if isinstance(layer, BypassedLinear)]
        written += list(self.whole.tensors().values())
        self._set_aside = _SetAside(
            whole={name: tensor.detach().clone() for name, tensor in self.whole.tensors().items()},
            trained=trained,
            changes=self._changes(),
            counts=torch.autograd._unsafe_preserve_version_counter(tuple(written)),
        )
        for layer in self.layers.values():
            layer.restore()
            layer.bypass.is_off = True
        self.whole.write(self.whole.originals)
        for part in trained:
            part.requires_grad_(False)

    def enable(self) -> None:
        """Undo ``disable``; does nothing if it is not disabled."""
        before, self._set_aside = self._set_aside, None
        if before is None:
            return
        for layer in self.layers.values():
            layer.bypass.is_off = False
        write_values(self.layers.values())
        self.whole.write(before.whole)
        for part in before.trained:
            part.requires_grad_(True)
        if self._changes() == before.changes:
            before.counts.__exit__(None, None, None)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base model within a ``with`` block."""
        was_disabled = self._set_aside is not None
        self.disable()
        try:
            yield
        finally:
            if not was_disabled:
                self.enable()

    def _trained(self) -> list[nn.Parameter]:
        return [*(layer.values for layer in self.layers.values()), *self.whole.parameters()]

    def _changes(self) -> list[int]:
        return [layer.values._version for layer in self.layers.values()]

    def _whole_now(self) -> Mapping[str, Tensor]:
        """Trained tensors of modules that train whole, also while it is disabled."""
        return self.whole.tensors() if self._set_aside is None else self._set_aside.whole
