"""PiSSA: LoRA that starts from the strongest singular directions, which it takes out of the base's weights.

Peft leaves three things open. The base gets its original weights back when the method is taken off. A decomposition is
made once: its factors go into checkpoints, and a resumed run uses those. What is saved is plain LoRA of twice the rank
on the original base: the trained factors beside the negated first ones (Meng et al., 2024, PiSSA, appendix C).

Shapes: O outputs, I inputs, R rank.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from neuroada.methods.contract import refuse_foreign_state
from neuroada.methods.peft_attached import AttachedPeft, Before
from neuroada.sparse.adapter_files import TENSORS_FILE
from neuroada.sparse.file_modes import open_as_new

_INITIAL = "initial."
_ADAPTER = "default"


class AttachedPissa(AttachedPeft):
    """LoRA layers on what the decomposition leaves of each weight."""

    def __init__(self, wrapped: Any, model: nn.Module, before: Before) -> None:
        super().__init__(wrapped, model, before)
        self._initial = {name: parameter.detach().clone() for name, parameter in self._trained.items()}
        self._write_residual()

    def state(self) -> dict[str, Tensor]:
        """The factors, and those that training began with."""
        return {**super().state(), **{f"{_INITIAL}{name}": tensor for name, tensor in self._initial.items()}}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        refuse_foreign_state(state, self.state())
        for name, parameter in self._trained.items():
            self._initial[name] = state[f"{_INITIAL}{name}"].to(parameter.device, parameter.dtype, copy=True)
            parameter.copy_(self._initial[name])
        self._write_residual()
        for name, parameter in self._trained.items():
            parameter.copy_(state[name])

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, parameter in self._trained.items():
            key = f"base_model.model.{name.replace(f'.{_ADAPTER}.', '.')}"
            first = self._initial[name].to(parameter.device)
            is_input_side = ".lora_A." in name  # (R, I), else (O, R)
            joined = torch.cat([parameter, first], 0) if is_input_side else torch.cat([parameter, -first], 1)
            tensors[key] = joined.detach().cpu().contiguous()
        save_file(tensors, directory / TENSORS_FILE, metadata={"format": "pt"})
        open_as_new([directory / TENSORS_FILE])
        self._plain_config().save_pretrained(str(directory))

    def _plain_config(self) -> Any:
        config = copy.deepcopy(self._wrapped.peft_config[_ADAPTER])
        config.lora_alpha *= 2**0.5 if config.use_rslora else 2
        config.r *= 2
        config.init_lora_weights = True
        config.inference_mode = True
        return config

    @torch.no_grad()
    def _write_residual(self) -> None:
        """Let the base be the original weight less the product of the first factors, as they are stored."""
        for name, layer in self._model.named_modules():
            factor = getattr(layer, "lora_A", None)
            if factor is None or _ADAPTER not in factor:
                continue
            base = layer.base_layer
            assert isinstance(base, nn.Linear)
            device = base.weight.device
            input_RI = self._initial[f"{name}.lora_A.{_ADAPTER}.weight"].to(device).float()
            output_OR = self._initial[f"{name}.lora_B.{_ADAPTER}.weight"].to(device).float()
            original_OI = self._before.originals[f"{name}.weight"].to(device).float()
            base.weight.copy_(original_OI - layer.scaling[_ADAPTER] * (output_OR @ input_RI))
