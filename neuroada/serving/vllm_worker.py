"""What vLLM's workers can do beside their own: hold adapters, and switch between them in place.

vLLM imports this module in each of its workers (``--worker-extension-cls``) and mixes the class into its own.
"""

from typing import Any

import torch

from neuroada.serving.switched_weights import SwitchedWeights


class SwitchingWorker:
    """Called through vLLM's ``collective_rpc``; arguments are texts, and each worker answers with a mapping.

    What goes wrong is answered under ``error``: an exception would end in vLLM's log alone.
    """

    model_runner: Any
    model_config: Any
    switched_weights: SwitchedWeights

    def prepare_adapter(self, folder: str, allow_precision: str = "") -> dict[str, Any]:
        """Read an adapter and keep it ready; the base's weights are in place afterwards.

        Args:
            folder: The adapter's.
            allow_precision: ``true`` if its base may be in another precision here.
        """
        try:
            return {"values": self._switched().prepare(folder, allow_precision == "true")}
        except Exception as error:
            return {"error": _told(error)}

    def switch(self, folder: str) -> dict[str, Any]:
        """Put a prepared adapter in place of the current one; an empty text stands for the base."""
        try:
            return {"milliseconds": self._switched().switch(folder)}
        except Exception as error:
            return {"error": _told(error)}

    def _switched(self) -> SwitchedWeights:
        if not hasattr(self, "switched_weights"):
            model = self.model_runner.get_model()
            self.switched_weights = SwitchedWeights(model, _skeleton(self.model_config.hf_config), _gathered)
        return self.switched_weights


def _skeleton(config: Any) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: torch.nn.Module = AutoModelForCausalLM.from_config(config)
    return model


def _gathered(part: Any) -> list[Any]:
    """What all workers that hold parts of the model have."""
    from vllm.distributed.parallel_state import get_world_group

    group = get_world_group()
    if group.world_size == 1:
        return [part]
    parts: list[Any] = [None] * group.world_size
    torch.distributed.all_gather_object(parts, part, group=group.cpu_group)
    return parts


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _keep_weights_in_place() -> None:
    """On a CPU, have linear layers compute with their weight.

    vLLM packs weights for its CPU kernels as a model is loaded, and drops the weights themselves.
    """
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    pack = utils.dispatch_cpu_unquantized_gemm

    def keep(layer: torch.nn.Module, remove_weight: bool) -> None:
        weight: Any = layer.weight
        if weight.ndim == 2 and not weight.is_meta:
            layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]
        else:
            pack(layer, remove_weight)

    utils.dispatch_cpu_unquantized_gemm = keep


_keep_weights_in_place()
