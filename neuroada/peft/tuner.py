"""The tuner that peft wraps around a model: peft's interface on top of ``Adapters``.

Nothing is replaced in the model. The values are in its weights, as everywhere in this project, so that a forward pass
costs what the base's costs, merging is to leave them there, and disabling restores the entries below them.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from neuroada.peft.adapters import Adapters
from neuroada.peft.config import NeuroAdaConfig
from neuroada.peft.layer_status import NeuroAdaLayer
from neuroada.sparse import adapter_files
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.finite import not_finite
from neuroada.sparse.strategies import names_a_function, strategy_of
from neuroada.sparse.whole_modules import is_named

_BASE = "base_model.model."
"""Where a ``PeftModel`` has its model."""


class NeuroAdaModel(BaseTuner):
    """NeuroAda adapters of one model for peft.

    Attributes:
        adapters: The adapters.
        merged: The active adapter, while ``merge_adapter`` is in effect.
    """

    prefix = "bypass"
    tuner_layer_cls = NeuroAdaLayer
    uses_shared_state = True
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012  # as in peft's own

    adapters: Adapters
    merged: list[str]

    def inject_adapter(
        self, model: nn.Module, adapter_name: str, *args: Any, low_cpu_mem_usage: bool = False, **kwargs: Any
    ) -> None:
        """Add an adapter by the configuration of its name; it is active if it is the first one.

        Raises:
            AdapterError: As ``neuroada.attach``.
        """
        is_first = "adapters" not in self._modules
        if is_first:
            self.adapters, self.layers, self.merged = Adapters(model), nn.ModuleDict(), []
        config = cast(NeuroAdaConfig, self.peft_config[adapter_name])
        _add_heads(config, model)
        if not (low_cpu_mem_usage or _makes_meta_tensors() or _is_to_be_loaded(config)):
            self.adapters.add(adapter_name, config.settings(), config.losses, config.gradient)
            config.describe(self.adapters.stored(adapter_name))
            self._update_layers()
        if is_first:
            self.adapters.activate(adapter_name, not config.inference_mode)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Let another adapter count; the entries of the base are restored first.

        Raises:
            AdapterError: Several are named: each has values of its own for the same weights.
        """
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        if len(names) > 1:
            raise AdapterError(
                f"set_adapter({names}): one NeuroAda adapter counts at a time, as its values are in the weights; "
                "neuroada.combine makes one of several"
            )
        self._refuse_merged("set_adapter")
        self.adapters.activate(names[0] if names else None, not inference_mode)
        self.active_adapter = names[0] if names else []

    def disable_adapter_layers(self) -> None:
        """Compute as the base, bit for bit, until ``enable_adapter_layers``."""
        self.adapters.disable()

    def enable_adapter_layers(self) -> None:
        """Undo ``disable_adapter_layers``."""
        self.adapters.enable()

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter; if it was active, the first of the others is, and a warning says so."""
        if adapter_name not in self.peft_config:
            raise AdapterError(f"delete_adapter({adapter_name!r}): there is {', '.join(self.peft_config)}")
        self._refuse_merged("delete_adapter")
        self.adapters.remove(adapter_name)
        del self.peft_config[adapter_name]
        self._update_layers()
        if adapter_name not in self.active_adapters:
            return
        self.active_adapter = []
        if self.peft_config:
            following = sorted(self.peft_config)[0]
            warnings.warn(f"{adapter_name} was active and is deleted; {following} is active now", stacklevel=3)
            self.set_adapter(following)

    def set_requires_grad(self, adapter_names: str | Sequence[str], requires_grad: bool = True) -> None:
        """Let the values of adapters train, or not."""
        for name in [adapter_names] if isinstance(adapter_names, str) else adapter_names:
            self.adapters.train_values(name, requires_grad)

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Nothing to do but to check: the values of the active adapter are in the weights.

        Raises:
            AdapterError: Other adapters are named, or with ``safe_merge`` a value is not finite.
        """
        self._check_merge(adapter_names, safe_merge)
        self.adapters.enable()
        self.merged = list(self.active_adapters)

    def unmerge_adapter(self) -> None:
        """Undo ``merge_adapter``; ``disable_adapter`` is what gives the base."""
        self.merged = []

    def merge_and_unload(
        self, progressbar: bool = False, safe_merge: bool = False, adapter_names: list[str] | None = None
    ) -> nn.Module:
        """The plain model with the values of the active adapter in its weights.

        Raises:
            AdapterError: As ``merge_adapter`` and ``Adapter.merge``; the model is then unchanged.
        """
        self._check_merge(adapter_names, safe_merge)
        return self._leave(merges=True)

    def unload(self) -> nn.Module:
        """The base model, bit for bit."""
        return self._leave(merges=False)

    def _leave(self, merges: bool) -> nn.Module:
        self.adapters.leave(merges)
        self.layers.clear()
        self.merged = []
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config
        model: nn.Module = self.model
        return model

    def _check_merge(self, names: list[str] | None, safe_merge: bool) -> None:
        if names is not None and list(names) != self.active_adapters:
            raise AdapterError(
                f"adapter_names={list(names)}: only the active adapter ({', '.join(self.active_adapters)}) can be "
                "merged; make another one active with set_adapter first"
            )
        for name in self.active_adapters:
            self._refuse_empty(name)
            if safe_merge and (odd := not_finite(self.adapters.stored(name).values)):
                raise AdapterError(f"safe_merge: NaN or infinite values in {odd[0]} of adapter {name}")

    def _refuse_merged(self, action: str) -> None:
        if self.merged:
            raise AdapterError(f"{action}(): adapter {self.merged[0]} is merged; call unmerge_adapter() first")

    def _refuse_empty(self, name: str) -> None:
        if not self.adapters.has_values(name):
            raise AdapterError(
                f"adapter {name!r} has no values: it was made by the configuration of a saved one, or with "
                "low_cpu_mem_usage=True; load it, or set inference_mode=False in its configuration to start anew"
            )

    def _update_layers(self) -> None:
        names = {layer.replace(".", "/"): layer for layer in self.adapters.layers()}
        for key in self.layers.keys() - names.keys():
            del self.layers[key]
        for key, layer in names.items():
            if key not in self.layers:
                self.layers[key] = NeuroAdaLayer(self, layer)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        if kwargs.get("adapter_names") is not None:
            raise AdapterError(
                "adapter_names: a batch cannot mix NeuroAda adapters, as their values are in the weights; call "
                "set_adapter for the rows of each"
            )
        for name in self.active_adapters:
            self._refuse_empty(name)
        yield

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Values are float32 in any case: small ones would be lost otherwise."""

    def _create_and_replace(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("no module is replaced, see inject_adapter")

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: Any,
        adapter_name: str,
        state_dict: Mapping[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        tuner = _tuner_of(model)
        tuner._refuse_empty(adapter_name)
        stored = tuner.adapters.stored(adapter_name)
        config.describe(stored)
        return adapter_files.tensors_of(stored)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        if key.startswith(_BASE):  # embeddings, which peft adds by itself when their size is not the checkpoint's
            return f"{adapter_files.WHOLE}{key.removeprefix(_BASE)}"
        return key

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: Any, adapter_name: str, state_dict: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        tuner, source = _tuner_of(model), Path(f"adapter {adapter_name!r}")
        adapter_files.refuse_unknown_format(config.format_version, adapter_files.FORMAT_VERSIONS, source)
        stored = adapter_files.parsed(config.to_dict(), state_dict, source)
        tuner.adapters.load(adapter_name, stored, source, config.allow_precision, config.gradient)
        tuner._update_layers()
        config.describe(tuner.adapters.stored(adapter_name))
        # peft loads what is returned, and reports what is missing: the values as they are now.
        parts = {id(part) for one in tuner.adapters.owned(adapter_name) for part in (*one.parameters(), *one.buffers())}
        return {key: part for key, part in model.state_dict(keep_vars=True).items() if id(part) in parts}


def _tuner_of(model: Any) -> NeuroAdaModel:
    tuner = getattr(model, "base_model", None)
    if not isinstance(tuner, NeuroAdaModel):
        raise AdapterError("NeuroAda adapters are saved and loaded through the PeftModel that get_peft_model returns")
    return tuner


def _add_heads(config: NeuroAdaConfig, model: nn.Module) -> None:
    """Let the new head of a task train, as peft does for its own methods."""
    named = list(config.whole_modules or ())
    heads = [head for head in config.heads() if head not in named and is_named(model, head)]
    config.whole_modules = [*named, *heads] or None


def _makes_meta_tensors() -> bool:
    """Whether peft is making a model with ``low_cpu_mem_usage``, which it tells the tuner in no other way."""
    return nn.Linear(1, 1, bias=False).weight.is_meta


def _is_to_be_loaded(config: NeuroAdaConfig) -> bool:
    """Whether a configuration is that of a saved adapter whose values are about to come."""
    if config.fingerprint is None:
        return False
    return config.inference_mode or names_a_function(config.selection) or bool(strategy_of(config.selection).measures)
