"""Adapter files: ``adapter_config.json`` and ``adapter_model.safetensors``. Nothing is pickled.

For each adapted layer the tensors file holds ``<name>.columns`` and ``<name>.values``, both (out_features, k). Where
not every neuron has k trained inputs, both are (rows, k), and ``<name>.rows`` (rows,) has the neuron of each row, see
``entries``. Of modules that train whole it holds ``modules_to_save.<name>`` for each parameter and buffer.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from neuroada.sparse.base_weights import SAMPLED, Base
from neuroada.sparse.biases import ALL
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.entries import are_columns, are_rows, entries_at
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.file_modes import open_as_new
from neuroada.sparse.finite import not_finite
from neuroada.sparse.hub_repository import fetched, is_hub_id
from neuroada.sparse.linear_layers import matrix, precisions, weight_of, widths
from neuroada.sparse.strategies import described
from neuroada.sparse.whole_modules import is_part_of

FORMAT_VERSIONS = (1, 2, 3, 4)
"""2 has modules that train whole, which a reader of 1 would leave out; 3 a sample of the base entries; 4 ``rows``."""
KIND = "NEUROADA"
"""``peft_type`` of these files: peft refuses them by this name instead of misreading them."""
CONFIG_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"
ADAPTER_FOLDER = "adapter"
"""Where a run keeps the adapter in its folder."""
VALUE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Of what trains: torch has no arithmetic for narrower numbers, and integers are no trained values."""
_COUNT_DTYPES = (torch.int64, torch.int32, torch.bool)
"""Of buffers in modules that train whole, such as the number of batches that BatchNorm has seen."""
_ENDINGS = (".columns", ".values", ".rows")
WHOLE = "modules_to_save."
"""Start of the names of tensors of modules that train whole."""
_SAMPLE = ".base_sample"
_AGAIN = "copy or save the adapter again"


@dataclasses.dataclass(frozen=True)
class StoredAdapter:
    """The content of adapter files.

    Attributes:
        config: The configuration it was attached with.
        base: What it was trained on.
        columns: (out_features, k) int32 columns by layer name.
        values: (out_features, k) values by layer name.
        whole: Parameters and buffers of the modules that train whole, by name.
        rows: (rows,) int32 neurons of the layers where not every one has a row, by layer name.
    """

    config: NeuroAdaConfig
    base: Base
    columns: dict[str, Tensor]
    values: dict[str, Tensor]
    whole: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    rows: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def check_base(self, layers: Mapping[str, nn.Module], directory: Path, allow_precision: bool = False) -> None:
        """Raise AdapterError unless the weights of these layers are those of this adapter's base.

        Args:
            allow_precision: As in ``Base.check``.
        """
        entries = {}
        for name, columns_OK in self.columns.items():
            self.check_shape(name, layers[name], directory)
            entries[name] = entries_at(matrix(layers[name]).detach(), columns_OK, self.rows.get(name))
        self.base.check(entries, directory, precisions(layers[name] for name in self.columns), allow_precision)

    def check_shape(self, name: str, layer: nn.Module, directory: Path) -> None:
        """Raise AdapterError unless the columns stored for a layer fit its weight, and are ``top_k`` per neuron."""
        if weight_of(layer).is_meta:
            raise AdapterError(f"{name}: its weight is on the meta device; load the model before its adapter")
        columns_OK, rows_R, shape = self.columns[name], self.rows.get(name), widths(layer)
        has_rows = len(columns_OK) == shape[0] if rows_R is None else int(rows_R.max()) < shape[0]
        if not has_rows or int(columns_OK.max()) >= shape[1]:
            raise AdapterError(
                f"{directory}: {name} has {shape} weights here, which the stored columns do not "
                f"fit; the adapter was trained on {self.base}"
            )
        if self.config.spread is not None:
            return
        if len(columns_OK) != self.config.neurons_of(shape[0]):
            raise AdapterError(
                f"{directory}: {name} has {len(columns_OK)} neurons with trained inputs, but {CONFIG_FILE} says "
                f"neuron_fraction={self.config.neuron_fraction or 1}; copy or save the adapter again"
            )
        if columns_OK.shape[1] != min(self.config.top_k_of(name), shape[1]):
            raise AdapterError(
                f"{directory}: {name} has {columns_OK.shape[1]} columns per neuron, but {CONFIG_FILE} says "
                f"top_k={self.config.top_k_of(name)}; copy or save the adapter again"
            )


def adapter_folder(directory: str | Path) -> Path:
    """The folder with the adapter's files: the one given, or ``adapter/`` in the folder of a run; ``~`` is expanded.

    What is no folder here and looks like a repository of the hub, ``<owner>/<name>``, is fetched.

    Raises:
        AdapterError: It cannot be fetched.
    """
    given = Path(directory).expanduser()
    if not given.exists() and is_hub_id(str(directory)):
        return fetched(str(directory))
    inner = given / ADAPTER_FOLDER
    return inner if (inner / CONFIG_FILE).is_file() else given


def write(directory: Path, stored: StoredAdapter) -> None:
    """Write both files atomically; the configuration last."""
    write_files(directory, tensors_of(stored), header_of(stored))


def tensors_of(stored: StoredAdapter) -> dict[str, Tensor]:
    """What the tensors file holds, on the CPU."""
    tensors: dict[str, Tensor] = {}
    for name in stored.columns:
        columns_OK = stored.columns[name]
        # int16 is enough for columns below 32,768; wider layers need the wider type.
        narrow = torch.int16 if int(columns_OK.max()) <= torch.iinfo(torch.int16).max else torch.int32
        tensors[f"{name}.columns"] = columns_OK.to(narrow).cpu().contiguous()
        if name in stored.rows:
            tensors[f"{name}.rows"] = stored.rows[name].int().cpu().contiguous()
        tensors[f"{name}.values"] = stored.values[name].cpu().contiguous()
    tensors.update({f"{name}{_SAMPLE}": sample.cpu().contiguous() for name, sample in stored.base.sample.items()})
    # Cloned: modules may share a tensor, and a file holds each name's content.
    tensors.update({f"{WHOLE}{name}": part.cpu().clone().contiguous() for name, part in stored.whole.items()})
    return tensors


def header_of(stored: StoredAdapter) -> dict[str, Any]:
    """What the configuration file holds."""
    return {
        "format_version": FORMAT_VERSIONS[3 if stored.rows else 2],
        "peft_type": KIND,
        "base_model_name_or_path": stored.base.name,
        "revision": stored.base.revision,
        "precision": stored.base.precision,
        "fingerprint": stored.base.fingerprint,
        "fingerprint_float16": stored.base.fingerprint_float16,
        **{key: value for key, value in vars(stored.config).items() if value is not None},
        "selection": described(stored.config.selection),
    }


def write_files(directory: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors on the CPU and the configuration, each whole or not at all; the configuration last."""
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f"{TENSORS_FILE}.partial"
    save_file(tensors, partial)
    open_as_new([partial])
    os.replace(partial, directory / TENSORS_FILE)
    partial = directory / f"{CONFIG_FILE}.partial"
    partial.write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, directory / CONFIG_FILE)


def read(directory: Path) -> StoredAdapter:
    """Read and check both files.

    Raises:
        AdapterError: A file is missing, damaged, or in a format that this version does not support.
    """
    header = read_header(directory)
    path = directory / TENSORS_FILE
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise AdapterError(f"{path} is missing; save the adapter again") from error
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path} is damaged or cut off ({error}); copy or save the adapter again") from error
    return parsed(header, tensors, directory)


def parsed(header: Mapping[str, Any], tensors: Mapping[str, Tensor], directory: Path) -> StoredAdapter:
    """Check the content of both files.

    Args:
        header: As ``header_of`` gives it.
        tensors: As ``tensors_of`` gives them.
        directory: Where they come from, for messages.

    Raises:
        AdapterError: Some of it is damaged.
    """
    path = directory / TENSORS_FILE
    whole = {key.removeprefix(WHOLE): tensor for key, tensor in tensors.items() if key.startswith(WHOLE)}
    samples = {key.removesuffix(_SAMPLE): tensors[key] for key in tensors if key.endswith(_SAMPLE)}
    others = {key: tensor for key, tensor in tensors.items() if not key.startswith(WHOLE) and not key.endswith(_SAMPLE)}
    columns, values, rows = _pair(others, path)
    _check_samples(samples, path)
    trained = {name: tensor for name, tensor in whole.items() if tensor.dtype not in _COUNT_DTYPES}
    refuse_unusable({**values, **trained}, path)
    base = Base(
        name=header["base_model_name_or_path"],
        revision=header["revision"],
        fingerprint=header["fingerprint"],
        fingerprint_float16=header.get("fingerprint_float16"),
        precision=header.get("precision"),
        sample=samples,
    )
    config = _naming_all(_config(header, directory / CONFIG_FILE), whole)
    return StoredAdapter(config, base, columns, values, whole, rows)


def refuse_unusable(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise AdapterError unless all tensors of a file are floating-point numbers, each of them finite.

    Args:
        tensors: What the file says of trained values, by name.
        path: The file, for the message.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in VALUE_DTYPES:
            raise AdapterError(f"{path}: {name} has {tensor.dtype} values, which nothing is trained in; {_AGAIN}")
    if odd := not_finite(tensors):
        raise AdapterError(
            f"{path}: NaN or infinite values in {odd[0]} ({len(odd)} of {len(tensors)} tensors have some); {_AGAIN}"
        )


def read_header(directory: Path) -> dict[str, Any]:
    """The content of ``adapter_config.json``: enough to know the base model and the budget, without any weights.

    Raises:
        AdapterError: The file is missing or damaged, from another library, or in an unsupported format.
    """
    path = directory / CONFIG_FILE
    try:
        header = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise AdapterError(
            f"{path} is missing; {directory} is not an adapter folder, nor a run folder with {ADAPTER_FOLDER}/"
        ) from error
    except (ValueError, OSError, RecursionError) as error:
        raise AdapterError(f"{path} is damaged ({error}); copy or save the adapter again") from error
    if not isinstance(header, dict) or header.get("peft_type") != KIND:
        raise AdapterError(f"{path} is not a NeuroAda adapter's; give a folder that Adapter.save wrote")
    refuse_unknown_format(header.get("format_version"), FORMAT_VERSIONS, path)
    absent = {"base_model_name_or_path", "revision", "fingerprint", "top_k", "target_modules"} - header.keys()
    if absent:
        raise AdapterError(f"{path} lacks {', '.join(sorted(absent))}; copy or save the adapter again")
    return header


def refuse_unknown_format(version: object, known: Sequence[int], path: Path) -> None:
    """Raise AdapterError unless files of this format version can be read; every earlier one can."""
    if isinstance(version, int) and version > max(known):
        raise AdapterError(
            f"{path} was written by a newer version of neuroada (format {version}, this one reads up to {max(known)}); "
            "update neuroada"
        )
    if version not in known:
        raise AdapterError(f"{path} has format version {version}, which does not exist; copy or save the adapter again")


def _config(header: Mapping[str, Any], path: Path) -> NeuroAdaConfig:
    fields = {field.name for field in dataclasses.fields(NeuroAdaConfig)}
    try:
        return NeuroAdaConfig(**{key: value for key, value in header.items() if key in fields})
    except (AdapterError, TypeError) as error:
        raise AdapterError(f"{path} is damaged ({error}); copy or save the adapter again") from error


def _naming_all(config: NeuroAdaConfig, whole: Mapping[str, Tensor]) -> NeuroAdaConfig:
    """With every module that the tensors hold whole: peft adds resized embeddings, which no entry names."""
    entries = list(config.modules_to_save or ())
    has_biases = config.bias == ALL
    modules = dict.fromkeys(key.rpartition(".")[0] for key in whole if not (has_biases and key.endswith("bias")))
    unnamed = [name for name in modules if name and not any(is_part_of(name, entry) for entry in entries)]
    return dataclasses.replace(config, modules_to_save=[*entries, *unnamed]) if unnamed else config


def _pair(tensors: dict[str, Tensor], path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Columns, values, and rows of the layers that have them."""
    rows = {key.removesuffix(".rows"): tensors[key] for key in tensors if key.endswith(".rows")}
    columns = {key.removesuffix(".columns"): tensors[key] for key in tensors if key.endswith(".columns")}
    values = {key.removesuffix(".values"): tensors[key] for key in tensors if key.endswith(".values")}
    if not columns or columns.keys() != values.keys():
        odd = sorted(columns.keys() ^ values.keys())
        one = f" ({odd[0]} has only one of them)" if odd else ""
        raise AdapterError(f"{path} does not hold columns and values of the same layers{one}; save the adapter again")
    if unknown := sorted(tensors.keys() - {f"{name}{end}" for name in columns for end in _ENDINGS}):
        raise AdapterError(f"{path} holds {unknown[0]}, which no adapter has; {_AGAIN}")
    for name, columns_OK in columns.items():
        if not are_columns(columns_OK, values[name]) or (name in rows and not are_rows(rows[name], columns_OK)):
            raise AdapterError(f"{path}: columns and values of {name} do not belong together; save the adapter again")
    columns, rows = ({name: part.int() for name, part in parts.items()} for parts in (columns, rows))
    return columns, values, rows


def _check_samples(samples: Mapping[str, Tensor], path: Path) -> None:
    for name, sample in samples.items():
        if sample.dtype != torch.bfloat16 or sample.dim() != 1 or len(sample) > SAMPLED:
            raise AdapterError(f"{path}: {name}{_SAMPLE} is not a sample of its base entries; {_AGAIN}")
