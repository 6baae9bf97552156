"""A peft model around the backbone, as the rest of the package sees a method."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from neuroada.config.errors import UserError
from neuroada.methods.attached import Attached, flags
from neuroada.methods.changes import Change
from neuroada.methods.peft_quantized import learnt_beside, refuse_merging
from neuroada.sparse.adapter_files import TENSORS_FILE
from neuroada.sparse.file_modes import open_as_new
from neuroada.sparse.frozen_layers import FrozenWeights
from neuroada.sparse.linear_layers import is_quantised

_REWRITING = ("pissa", "olora", "corda", "loftq")
"""Values of ``init_lora_weights`` that change the base's weights when an adapter is loaded with them."""


_IN_FILES = "base_model.model."
"""Before the name of each tensor of the model."""


@dataclass(frozen=True)
class Before:
    """What a backbone was before peft changed it.

    Attributes:
        requires_grad: Flags of its parameters.
        originals: Weights that attaching changes, on the CPU; empty where it changes none.
        frozen: Its quantised layers, which are kept from changing by themselves.
    """

    requires_grad: Mapping[str, bool]
    originals: Mapping[str, Tensor]
    frozen: FrozenWeights

    @classmethod
    def of(cls, model: nn.Module, originals: Mapping[str, Tensor]) -> Self:
        return cls(flags(model), originals, FrozenWeights.of(model))

    @torch.no_grad()
    def write_originals(self, model: nn.Module) -> None:
        """Put the weights that attaching changed back."""
        parameters = dict(model.named_parameters())
        for name, original in self.originals.items():
            if name in parameters:
                parameters[name].copy_(original)


class AttachedPeft(Attached):
    """Adapter layers of the peft library, which replace layers of the backbone.

    The state is all that trains; what else an adapter holds is created again from its seed when it is attached.

    Args:
        wrapped: The ``peft.PeftModel``; the backbone inside it is used without it.
        model: The backbone.
        before: What the backbone was.
    """

    def __init__(self, wrapped: Any, model: nn.Module, before: Before) -> None:
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        super().__init__(model, before.requires_grad, trained)
        self._wrapped = wrapped
        self._before = before

    @classmethod
    def on(cls, model: nn.Module, config: Any) -> Self:
        """Add new adapter layers with this configuration."""
        import peft

        originals = rewritten(model, config)
        with quiet_peft(), undone_on_failure(model, originals) as before:
            return cls(peft.get_peft_model(model, config), model, before)

    @classmethod
    def loaded(cls, model: nn.Module, directory: Path) -> Self:
        """Add the adapter layers saved in a directory; they do not train.

        Raises:
            UserError: They belong to other layers. If shapes differ, peft raises its own error.
        """
        import peft

        with quiet_peft():
            config = peft.PeftConfig.from_pretrained(str(directory))
            originals = {**rewritten(model, config), **stored_weights(model, directory)}
            with undone_on_failure(model, originals) as before:
                wrapped = peft.PeftModel.from_pretrained(model, str(directory))
                refuse_other_layers(wrapped, model, directory)
        model.requires_grad_(False)
        return cls(wrapped, model, before)

    def save(self, directory: Path) -> None:
        """In peft's own format."""
        with quiet_peft():
            self._wrapped.save_pretrained(str(directory), save_embedding_layers=False)
        open_as_new([directory / TENSORS_FILE])

    def changes(self) -> Iterator[Change]:
        """Of the layers that peft can merge, and of modules that train whole; others raise peft's own error."""
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import ModulesToSaveWrapper

        inside: list[str] = []
        for name, module in self._model.named_modules():
            if any(name.startswith(f"{outer}.") for outer in inside):
                continue
            if isinstance(module, BaseTunerLayer):
                inside.append(name)
                yield _of_layer(name, module, self._before.originals)
            elif isinstance(module, ModulesToSaveWrapper):
                inside.append(name)
                for key, part in module.original_module.named_parameters():
                    trained = module.modules_to_save[module.active_adapters[0]].get_parameter(key)
                    yield Change.between(f"{name}.{key}", part.detach(), trained.detach())

    def merge(self) -> None:
        refuse_merging(self._model)
        merged = self._wrapped.merge_and_unload(safe_merge=True)
        assert merged is self._model
        self._restore_flags()

    @torch.no_grad()
    def detach(self) -> None:
        # unload() would leave the trained copies of whole modules in their place.
        first = _modules_before(self._model)
        base = self._wrapped.unload()
        assert base is self._model
        for name, module in first.items():
            self._model.set_submodule(name, module)
        self._before.write_originals(self._model)
        self._before.frozen.release()
        self._restore_flags()


@torch.no_grad()
def _of_layer(name: str, layer: Any, originals: Mapping[str, Tensor]) -> Change:
    """What a layer of peft adds to the weight below it, found by merging it there for a moment if it can be written."""
    base_layer = layer.get_base_layer()
    if is_quantised(base_layer):
        return learnt_beside(name, layer)
    weight = base_layer.weight
    before, exact = weight.data, torch.promote_types(weight.dtype, torch.float32)
    weight.data = before.to(exact, copy=True)
    try:
        layer.merge()
        merged = weight.data
        layer.merged_adapters.clear()
    finally:
        weight.data = before
    found = Change.between(f"{name}.weight", originals.get(f"{name}.weight", before), merged)
    if not isinstance(base_layer, Conv1D):
        return found
    return Change(found.name, found.base.T, found.delta.T)  # its weight is (in_features, out_features)


def _modules_before(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that stood where copies train whole, by name."""
    from peft.utils.other import ModulesToSaveWrapper

    return {
        name: module.original_module
        for name, module in model.named_modules()
        if isinstance(module, ModulesToSaveWrapper)
    }


def rewritten(model: nn.Module, config: Any) -> dict[str, Tensor]:
    """Copies on the CPU of what peft writes into the base and ``unload`` leaves there, by parameter name."""
    weights = linear_weights(model) if rewrites_base(config) else {}
    if getattr(config, "bias", "none") in (None, "none"):
        return weights
    parts = model.named_parameters()
    return weights | {name: part.detach().to("cpu", copy=True) for name, part in parts if "bias" in name}


def rewrites_base(config: Any) -> bool:
    """Whether attaching changes weights of the base."""
    start = getattr(config, "init_lora_weights", None)
    return isinstance(start, str) and start.startswith(_REWRITING)


def linear_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies on the CPU of all weights of linear layers, by parameter name."""
    return {
        f"{name}.weight": module.weight.detach().to("cpu", copy=True)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }


def stored_weights(model: nn.Module, directory: Path) -> dict[str, Tensor]:
    """Copies on the CPU of the weights that an adapter's files would replace, such as embeddings saved beside it."""
    with safe_open(directory / TENSORS_FILE, framework="pt") as tensors:
        stored = set(tensors.keys())
    return {
        name: part.detach().to("cpu", copy=True)
        for name, part in model.named_parameters()
        if f"{_IN_FILES}{name}" in stored
    }


def refuse_other_layers(wrapped: Any, model: nn.Module, directory: Path) -> None:
    """Raises UserError unless the saved tensors are those of the adapter layers; peft itself ignores a misfit."""
    import peft

    with safe_open(directory / TENSORS_FILE, framework="pt") as tensors:
        stored = set(tensors.keys())
    expected = set(peft.get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    # Others may have stored weights of the base beside the adapter's.
    base = {f"{_IN_FILES}{name}" for name, _ in model.named_parameters()}
    missing, unknown = sorted(expected - stored), sorted(stored - expected - base)
    if missing or unknown:
        raise UserError(
            f"adapter={directory}: its layers are not those of this base: {len(missing)} tensors are missing and "
            f"{len(unknown)} unknown (first: {[*missing, *unknown][0]}); give the base it was trained on"
        )


@contextmanager
def undone_on_failure(model: nn.Module, originals: Mapping[str, Tensor]) -> Iterator[Before]:
    """What the model was; restored if peft fails halfway."""
    attributes = set(vars(model))
    children = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    before = Before.of(model, originals)
    try:
        yield before
    except Exception:
        for parent, name, child in children:
            setattr(parent, name, child)
        for name in vars(model).keys() - attributes:
            delattr(model, name)
        before.write_originals(model)
        before.frozen.release()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(before.requires_grad[name])
        raise


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Silence warnings about how peft itself uses other libraries."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        # Modules that train whole are copied, also where memory is planned with tensors that have no content.
        warnings.filterwarnings("ignore", message=".*data pointer of FakeTensor.*")
        warnings.filterwarnings("ignore", message=".*Sparse invariant checks.*")
        yield
