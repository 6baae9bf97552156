"""What peft asks each layer of a model: which adapters it has, and which of them count."""

from typing import TYPE_CHECKING, Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

if TYPE_CHECKING:
    from neuroada.peft.tuner import NeuroAdaModel


class NeuroAdaLayer(nn.Module, BaseTunerLayer):
    """Stands for a layer with bypasses in ``get_model_status``; without parameters, and not part of the layer itself.

    Args:
        tuner: Knows the adapters.
        layer: Name of the layer.
    """

    adapter_layer_names = ("bypasses",)
    tuner: "NeuroAdaModel"

    def __init__(self, tuner: "NeuroAdaModel", layer: str) -> None:
        super().__init__()
        self.__dict__["tuner"] = tuner  # not a child
        self.layer = layer

    @property
    def bypasses(self) -> nn.ModuleDict:
        """The bypasses of the layer by adapter."""
        return nn.ModuleDict(self.tuner.adapters.bypasses(self.layer))

    @property
    def disable_adapters(self) -> bool:
        """Whether the layer computes as the base's."""
        return bool(self.tuner.adapters.is_disabled)

    @property
    def active_adapter(self) -> str | list[str]:
        """The adapter that counts."""
        active: str | list[str] = self.tuner.active_adapter
        return active

    @property
    def merged_adapters(self) -> list[str]:  # type: ignore[override]  # nobody sets it here
        """The adapter that counts while ``merge_adapter`` is in effect."""
        return list(self.tuner.merged)

    def get_base_layer(self) -> nn.Module:
        """The layer itself."""
        model: nn.Module = self.tuner.model
        return model.get_submodule(self.layer)

    def _move_adapter_to_device_of_base_layer(self, *args: Any, **kwargs: Any) -> None:
        """Bypasses are made where their layer is."""
