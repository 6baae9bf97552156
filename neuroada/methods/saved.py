"""Saved adapters, opened by what their files are: nothing of a received folder is run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from typing_extensions import TypedDict

import neuroada
from neuroada.config.errors import UserError
from neuroada.config.json_files import read_json
from neuroada.config.resolution import first_line
from neuroada.methods import weight_files
from neuroada.methods.contract import Trained, count_parameters
from neuroada.methods.masked import MaskedWeights, stored_columns
from neuroada.methods.neuroada import AttachedNeuroAda, size_of
from neuroada.methods.output_head import tie_again, untie
from neuroada.methods.peft_attached import AttachedPeft
from neuroada.methods.peft_rivals import REFUSALS, library
from neuroada.methods.peft_shapes import trained_counts
from neuroada.methods.trained_weights import TrainedWeights
from neuroada.methods.weight_files import of_base
from neuroada.sparse import adapter_files
from neuroada.sparse.adapter_files import CONFIG_FILE, TENSORS_FILE
from neuroada.sparse.biases import match_biases
from neuroada.sparse.budget import Budget
from neuroada.sparse.finite import not_finite
from neuroada.sparse.whole_modules import match_whole, whole_sizes

_PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE")
"""Kinds of peft adapters that add tokens to the input, which a backbone called by itself would not see."""


class _Kind(TypedDict):
    peft_type: str


class Saved(Protocol):
    """An adapter's files, checked and ready to be put on their base.

    Attributes:
        can_shard: Whether it can be put on a backbone that is sharded afterwards.
        size: The settings that decided its size, as far as its files say.
    """

    @property
    def can_shard(self) -> bool: ...

    @property
    def size(self) -> Mapping[str, Any]: ...

    def budget(self, skeleton: nn.Module) -> Budget:
        """What was trained."""
        ...

    def attach(self, model: nn.Module, *, to_shard: bool = False) -> Trained:
        """Put it on the backbone it was trained on, in place.

        Args:
            model: The backbone.
            to_shard: ``Trained.shard`` comes next; until then the backbone's weights are not written to.

        Raises:
            UserError, AdapterError: It belongs to another backbone.
        """
        ...


def open_saved(directory: Path, allow_precision: bool = False) -> Saved:
    """The adapter in a folder, whichever method saved it.

    Args:
        directory: The folder.
        allow_precision: Whether its base may be in another precision than it was trained on, as ``neuroada.load`` says.
            Other libraries' adapters do not know theirs.

    Raises:
        UserError, AdapterError: A file is missing or damaged, or of an unknown kind.
    """
    kind = _kind(directory / CONFIG_FILE)
    if kind in _PROMPTS:
        raise UserError(f"adapter={directory}: {kind} adds tokens to the input and no layers; give another adapter")
    if kind == adapter_files.KIND:
        return SavedNeuroAda(adapter_files.read(directory), directory, allow_precision)
    if kind == weight_files.KIND:
        return SavedWeights(weight_files.read(directory), directory)
    _check_tensors(directory / TENSORS_FILE)
    _refuse_module(directory / CONFIG_FILE)
    return SavedPeft(kind, directory)


@dataclass(frozen=True)
class SavedNeuroAda:
    """A NeuroAda adapter."""

    stored: adapter_files.StoredAdapter
    directory: Path
    allow_precision: bool = False

    @property
    def can_shard(self) -> bool:
        return not (self.stored.whole or self.stored.rows)

    @property
    def size(self) -> Mapping[str, Any]:
        return size_of(self.stored.config)

    def budget(self, skeleton: nn.Module) -> Budget:
        layers = {name: values_OK.numel() for name, values_OK in self.stored.values.items()}
        whole = match_whole(skeleton, self.stored.config.modules_to_save)
        layers.update(whole_sizes({**whole, **match_biases(skeleton, self.stored.config.bias, whole)}))
        return Budget(trainable=sum(layers.values()), total=count_parameters(skeleton), layers=layers)

    def attach(self, model: nn.Module, *, to_shard: bool = False) -> Trained:
        adapter = neuroada.load(model, self.directory, to_shard=to_shard, allow_precision=self.allow_precision)
        return AttachedNeuroAda(adapter)


@dataclass(frozen=True)
class SavedWeights:
    """Weights of the backbone that a method trained, or entries of them."""

    stored: weight_files.StoredWeights
    directory: Path

    can_shard = False
    size = MappingProxyType[str, Any]({})

    def budget(self, skeleton: nn.Module) -> Budget:
        columns = stored_columns(self.stored.tensors)
        layers = {name: part.numel() for name, part in (columns or self.stored.tensors).items()}
        if columns:
            layers.update(whole_sizes(match_whole(skeleton, self.stored.modules_to_save)))
        return Budget(trainable=sum(layers.values()), total=count_parameters(skeleton), layers=layers)

    def attach(self, model: nn.Module, *, to_shard: bool = False) -> Trained:
        columns = stored_columns(self.stored.tensors)
        trained = self._masked(model, columns) if columns else self._whole(model)
        trained.load_state(self.stored.tensors)
        return trained

    def _masked(self, model: nn.Module, columns: Mapping[str, Tensor]) -> MaskedWeights:
        weights = _parameters(model)
        self._refuse_missing({f"{name}.weight" for name in columns} - weights.keys())
        for name, columns_OK in columns.items():
            weight = weights[f"{name}.weight"]
            fits = weight.dim() == 2 and len(weight) == len(columns_OK) and int(columns_OK.max()) < weight.shape[1]
            self._refuse_unless(fits, f"{name}.weight", weight)
        self.stored.check_base(
            {name: weights[f"{name}.weight"].detach().cpu().gather(1, part.long()) for name, part in columns.items()},
            self.directory,
        )
        return MaskedWeights(self.stored.method, model, columns, whole=self.stored.modules_to_save)

    def _whole(self, model: nn.Module) -> TrainedWeights:
        names = self.stored.tensors.keys()
        weights = _parameters(model)
        self._refuse_missing(names - weights.keys())
        for name, tensor in self.stored.tensors.items():
            self._refuse_unless(weights[name].shape == tensor.shape, name, weights[name])
        self._refuse_part_of_all(model, weights)
        self.stored.check_base({name: weights[name].detach().cpu() for name in names}, self.directory)
        # A head trained on its own copy; in a freshly loaded, tied backbone it shares the weight of the embeddings.
        is_untied = not names <= dict(model.named_parameters()).keys() and untie(model)
        trained = TrainedWeights(self.stored.method, model, list(names), self.stored.modules_to_save)
        if is_untied:
            trained.on_detach = lambda: tie_again(model)
        return trained

    def _refuse_part_of_all(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Without a fingerprint, the file replaces every weight but for a head alone, so that none may be missing."""
        if self.stored.fingerprint is not None or not of_base(self.stored.tensors, self.stored.modules_to_save):
            return
        replaced = {id(weights[name]) for name in self.stored.tensors}
        if lost := [name for name, part in model.named_parameters() if id(part) not in replaced]:
            raise UserError(
                f"{self.directory / TENSORS_FILE}: lacks {lost[0]} ({len(lost)} tensors of the model); copy or save "
                "the adapter again"
            )

    def _refuse_missing(self, missing: set[str]) -> None:
        if missing:
            raise UserError(
                f"{self.directory}: this model has no {min(missing)} ({len(missing)} of {len(self.stored.tensors)} are "
                f"missing); the weights were trained on {self._base()}"
            )

    def _refuse_unless(self, fits: bool, name: str, weight: Tensor) -> None:
        if not fits:
            raise UserError(
                f"{self.directory}: {name} has another shape than this model's {tuple(weight.shape)}; the weights were "
                f"trained on {self._base()}"
            )

    def _base(self) -> str:
        return self.stored.base_model_name_or_path or "another model"


@dataclass(frozen=True)
class SavedPeft:
    """An adapter of the peft library, whoever trained it."""

    kind: str
    directory: Path

    can_shard = False
    size = MappingProxyType[str, Any]({})

    def budget(self, skeleton: nn.Module) -> Budget:
        with self._refusing():
            layers = trained_counts(skeleton, self.directory)
        return Budget(trainable=sum(layers.values()), total=count_parameters(skeleton), layers=layers)

    def attach(self, model: nn.Module, *, to_shard: bool = False) -> Trained:
        with self._refusing():
            return AttachedPeft.loaded(model, self.directory)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn what peft raises over files that do not fit into one line."""
        library(f"adapter={self.directory}")
        try:
            yield
        except REFUSALS as error:
            raise UserError(
                f"adapter={self.directory}: the {self.kind} adapter cannot be put on this base ({first_line(error)}); "
                "give the base it was trained on"
            ) from error


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name; a shared one under each of its names."""
    return dict(model.named_parameters(remove_duplicate=False))


def _kind(path: Path) -> str:
    kind: str = read_json(path, _Kind, "give another adapter")["peft_type"]
    return kind


def _refuse_module(path: Path) -> None:
    """peft imports the module that ``megatron_core`` names, if there is a ``megatron_config``."""
    if read_json(path, _Kind, "give another adapter").get("megatron_config") is not None:
        raise UserError(f"{path}: its megatron_config names a module to import; save the adapter without Megatron")


def _check_tensors(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing; save the adapter with safe_serialization=True")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); give another adapter") from error
    if odd := not_finite(tensors):
        raise UserError(
            f"{path}: NaN or infinite values in {odd[0]} ({len(odd)} of {len(tensors)} tensors have some); give "
            "another adapter"
        )
