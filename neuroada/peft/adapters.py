"""Several adapters of one model, of which one at most is in its weights; the parameters of the others wait aside."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from neuroada.sparse.adapter import Adapter
from neuroada.sparse.adapter_files import StoredAdapter
from neuroada.sparse.attaching import attach, attach_stored, check_stored_fits
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.gradient import AUTO
from neuroada.sparse.layer import Bypass
from neuroada.sparse.measurement import Losses
from neuroada.sparse.switching import PreparedAdapter


@dataclass
class _Kept:
    """An adapter with its parameters.

    Attributes:
        prepared: What puts it into the model.
        precision: What the base's weights are stored as.
        gradient: How gradients of its values are computed.
    """

    prepared: PreparedAdapter
    precision: str
    gradient: str


class Adapters(nn.Module):
    """The adapters of a model by name. What waits is registered here, so that it moves with the model.

    Attributes:
        model: The model. It is frozen, and stays so.
        active: The name of the adapter that counts; None if none does.
        live: That adapter, in the model; None also while an active one has no values yet.
    """

    model: nn.Module

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.__dict__["model"] = model  # not a child: it is one of its wrapper
        model.requires_grad_(False)
        self.active: str | None = None
        self.live: Adapter | None = None
        self._kept: dict[str, _Kept] = {}
        self._trains: dict[str, bool] = {}
        self._is_disabled = False
        self.inactive_bypasses = nn.ModuleDict()

    def has_values(self, name: str) -> bool:
        """Whether an adapter was added or loaded, and not only announced."""
        return name in self._kept

    def bypasses(self, layer: str) -> dict[str, Bypass]:
        """Of the adapters that have one in a layer, by the adapter's name."""
        owners = {name: one.prepared.bypasses for name, one in self._kept.items()}
        return {name: bypasses[layer] for name, bypasses in owners.items() if layer in bypasses}

    def owned(self, name: str) -> list[Bypass]:
        """The bypasses of an adapter."""
        return list(self._kept[name].prepared.bypasses.values())

    def layers(self) -> list[str]:
        """Names of the layers in which some adapter has a bypass."""
        return list(dict.fromkeys(layer for one in self._kept.values() for layer in one.prepared.bypasses))

    def add(self, name: str, config: NeuroAdaConfig, losses: Losses | None = None, gradient: str = AUTO) -> None:
        """Select the connections of a new adapter by the base's weights; it is not active.

        Raises:
            AdapterError: As ``neuroada.attach``.
        """
        with self._plain_model():
            self._keep(name, attach(self.model, config, losses=losses, gradient=gradient), gradient)

    def load(self, name: str, stored: StoredAdapter, source: Path, allow_precision: bool, gradient: str) -> None:
        """Give an adapter stored values; parameters with the same connections stay the same objects.

        Args:
            source: Where they come from, for messages.

        Raises:
            AdapterError: As ``neuroada.load``; nothing has changed then.
        """
        present = self._kept.get(name)
        if present is not None and _same_places(present.prepared, stored):
            entries = {layer: bypass.original for layer, bypass in present.prepared.bypasses.items()}
            stored.base.check(entries, source, present.precision, allow_precision)
            self._write(name, stored)
            return
        with self._plain_model():
            check_stored_fits(self.model, stored, source, allow_precision)
            self._keep(name, attach_stored(self.model, stored, gradient), gradient)

    def stored(self, name: str) -> StoredAdapter:
        """What the files of an adapter hold."""
        if self.live is not None and name == self.active:
            return self.live.stored()
        return self._kept[name].prepared.stored(self._kept[name].precision)

    def activate(self, name: str | None, trains: bool = True) -> None:
        """Let this adapter count, and no other; the base's weights are restored in between.

        Args:
            trains: Whether its values require gradients then.
        """
        if name != self.active or self.live is None:
            self._put_aside()
            self.active = name
            self._put_in()
        if name is not None:
            self.train_values(name, trains)

    def train_values(self, name: str, trains: bool) -> None:
        """Let the values of an adapter require gradients, or not."""
        self._trains[name] = trains
        if name not in self._kept or (name == self.active and self._is_disabled):
            return
        is_live = self.live is not None and name == self.active
        values = [bypass.values for bypass in self._kept[name].prepared.bypasses.values()]
        for parameter in self.live.parameters() if self.live is not None and is_live else values:
            parameter.requires_grad_(trains)

    def disable(self) -> None:
        """Compute as the base, bit for bit."""
        self._is_disabled = True
        if self.live is not None:
            self.live.disable()

    def enable(self) -> None:
        """Undo ``disable``."""
        self._is_disabled = False
        if self.live is not None and self.active is not None:
            self.live.enable()
            self.train_values(self.active, self._trains[self.active])

    @property
    def is_disabled(self) -> bool:
        """Whether the model computes as its base until ``enable``."""
        return self._is_disabled

    def remove(self, name: str) -> None:
        """Forget an adapter; if it was active, none is."""
        if name == self.active:
            self.activate(None)
        self._kept.pop(name, None)
        self._trains.pop(name, None)
        if name in self.inactive_bypasses:
            del self.inactive_bypasses[name]

    def leave(self, merges: bool) -> None:
        """End all of it: the model is plain, with the active adapter's values in its weights or without.

        Raises:
            AdapterError: As ``Adapter.merge``; the model is then unchanged.
        """
        if self.live is not None and merges:
            self.live.merge()
        elif self.live is not None:
            self.live.detach()
        self.live, self.active, self._kept = None, None, {}
        self.inactive_bypasses.clear()

    @contextmanager
    def _plain_model(self) -> Iterator[None]:
        """The model without any adapter; the active one is back afterwards."""
        self._put_aside()
        try:
            yield
        finally:
            self._put_in()

    def _keep(self, name: str, adapter: Adapter, gradient: str) -> None:
        self._kept[name] = _Kept(adapter.taken(), adapter.precision, gradient)
        adapter.detach()
        self._wait(name)

    def _wait(self, name: str) -> None:
        bypasses = self._kept[name].prepared.bypasses
        for bypass in bypasses.values():
            bypass.values.requires_grad_(False)
        waiting: Mapping[str, nn.Module] = {layer.replace(".", "/"): bypass for layer, bypass in bypasses.items()}
        self.inactive_bypasses[name] = nn.ModuleDict(waiting)

    def _put_aside(self) -> None:
        if self.live is None or self.active is None:
            return
        self._kept[self.active].prepared = self.live.taken()
        self.live.detach()
        self.live = None
        self._wait(self.active)

    def _put_in(self) -> None:
        if self.active is None or self.active not in self._kept:
            return
        kept = self._kept[self.active]
        del self.inactive_bypasses[self.active]
        bypasses = kept.prepared.bypasses
        columns = {layer: bypass.columns for layer, bypass in bypasses.items()}
        rows = {layer: bypass.rows for layer, bypass in bypasses.items() if bypass.rows is not None}
        self.live = Adapter(self.model, kept.prepared.config, columns, kept.gradient, rows)
        self.live.switch(kept.prepared)
        is_disabled, self._is_disabled = self._is_disabled, False
        self.train_values(self.active, self._trains.get(self.active, True))
        if is_disabled:
            self.disable()

    @torch.no_grad()
    def _write(self, name: str, stored: StoredAdapter) -> None:
        prepared = self._kept[name].prepared
        for layer, bypass in prepared.bypasses.items():
            bypass.values.copy_(stored.values[layer])
        if self.live is None or name != self.active:
            prepared.whole.update(stored.whole)
            return
        self.live.enable()
        self.live.whole.write(stored.whole)
        self.live.sync()
        if self._is_disabled:
            self.live.disable()


def _same_places(present: PreparedAdapter, stored: StoredAdapter) -> bool:
    """Whether an adapter has the connections and whole modules of a stored one."""
    if present.bypasses.keys() != stored.columns.keys() or present.whole.keys() != stored.whole.keys():
        return False
    shapes = {name: (part.shape, part.dtype) for name, part in present.whole.items()}
    return shapes == {name: (part.shape, part.dtype) for name, part in stored.whole.items()} and all(
        _equal(bypass.columns, stored.columns[layer]) and _equal(bypass.rows, stored.rows.get(layer))
        for layer, bypass in present.bypasses.items()
    )


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.cpu().equal(other.cpu().to(one.dtype))
