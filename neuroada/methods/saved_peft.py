"""Adapters of the peft library, scored by the same code: merged into the backbone, as they would be shipped."""

import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.methods.methods import Targets
from neuroada.sparse.budget import Budget

TENSORS_FILE = "adapter_model.safetensors"


@dataclass
class PeftAdapter:
    """A saved adapter of the peft library as the method of an evaluation.

    Args:
        name: Of the method, such as ``peft-lora``.
        peft_type: As in its ``adapter_config.json``.
        directory: Where it lies.
        label: Names the run folder.
    """

    name: str
    peft_type: str
    directory: str
    label: str = ""

    def budget(self, model: nn.Module, targets: Targets, top_k: int) -> Budget:
        """What its file holds; raises UserError where it cannot be read."""
        path = Path(self.directory) / TENSORS_FILE
        if not path.is_file():
            raise UserError(f"{path} is missing; save the adapter with safe_serialization=True")
        try:
            with safe_open(path, framework="pt") as tensors:
                shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} is damaged ({first_line(error)}); give another adapter") from error
        layers = {name: math.prod(shape) for name, shape in shapes.items()}
        total = sum(parameter.numel() for parameter in model.parameters())
        return Budget(trainable=sum(layers.values()), total=total, layers=layers)

    def attach(self, model: PreTrainedModel, targets: Targets, top_k: int) -> None:
        """Merge it into the backbone, in place.

        Raises:
            UserError: peft is not installed, or cannot load or merge it.
        """
        try:
            import peft
        except ImportError as error:
            raise UserError(
                f"adapter={self.directory}: needs the peft library; pip install 'neuroada[peft]'"
            ) from error
        try:
            wrapped = peft.PeftModel.from_pretrained(model, self.directory)
            merged = wrapped.merge_and_unload(safe_merge=True)
        except (AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"adapter={self.directory}: the {self.peft_type} adapter cannot be merged into this base "
                f"({first_line(error)}); give the base it was trained on, or an adapter that can be merged"
            ) from error
        assert merged is model
        model.requires_grad_(False)
