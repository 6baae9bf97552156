"""Files of methods that train weights of the backbone: ``adapter_config.json`` and ``adapter_model.safetensors``.

They contain what changed, under the names of the backbone's parameters, and a hash of the original tensors.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from typing_extensions import TypedDict

from neuroada.config.errors import UserError
from neuroada.config.json_files import read_json
from neuroada.sparse.adapter_files import (
    CONFIG_FILE,
    TENSORS_FILE,
    refuse_unknown_format,
    refuse_unusable,
    write_files,
)
from neuroada.sparse.base_weights import fingerprint, is_base, way_to_base
from neuroada.sparse.entries import are_columns
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.whole_modules import is_inside

FORMAT_VERSION = 1
KIND = "NEUROADA_WEIGHTS"
"""``peft_type`` of these files: peft refuses them by this name instead of misreading them."""
COLUMNS, ENTRIES = ".columns", ".entries"
"""Endings of the two tensors that ``masked`` stores for each layer, both (out_features, k)."""


@dataclass(frozen=True)
class StoredWeights:
    """What the files hold.

    Attributes:
        method: Name of the method that trained them.
        base_model_name_or_path: Hub id or folder of the backbone, if it had a name.
        fingerprint: Hash of the original tensors; None if everything is replaced.
        fingerprint_float16: The same of the tensors rounded to fp16; None also in files of earlier versions.
        tensors: By name; of full shape, or what ``masked`` stores for an entry.
    """

    method: str
    base_model_name_or_path: str | None
    fingerprint: str | None
    fingerprint_float16: str | None
    tensors: dict[str, Tensor]
    modules_to_save: tuple[str, ...] = ()
    """Modules that trained whole, and may have been new."""

    def check_base(self, originals: Mapping[str, Tensor], directory: Path) -> None:
        """Raises UserError unless these are the tensors that training started from."""
        originals = of_base(originals, self.modules_to_save)
        if self.fingerprint is not None and not is_base(originals, self.fingerprint, self.fingerprint_float16):
            raise UserError(
                f"{directory}: the weights of this model are not those that {self.method} was trained on "
                f"({self.base_model_name_or_path or 'an unnamed model'}); {way_to_base(originals)}"
            )


def of_base(originals: Mapping[str, Tensor], whole: Collection[str]) -> dict[str, Tensor]:
    """The tensors that tell one base from another: those outside modules that may be new."""
    return {name: tensor for name, tensor in originals.items() if not is_inside(name, whole)}


def write(
    directory: Path,
    method: str,
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    originals: Mapping[str, Tensor],
    whole: Sequence[str] = (),
) -> None:
    """Write both files, each whole or not at all; the configuration last.

    Args:
        tensors: What training left.
        originals: The original tensors, to recognise the base; empty to accept any base of these shapes.
        whole: Modules that trained whole.
    """
    header = {
        "format_version": FORMAT_VERSION,
        "peft_type": KIND,
        "method": method,
        "base_model_name_or_path": getattr(model, "name_or_path", None) or None,
        "revision": getattr(getattr(model, "config", None), "_commit_hash", None),
        "fingerprint": fingerprint(originals) if originals else None,
        "fingerprint_float16": fingerprint(originals, torch.float16) if originals else None,
        **({"modules_to_save": list(whole)} if whole else {}),
    }
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_files(directory, copies, header)


def read(directory: Path) -> StoredWeights:
    """Read and check both files.

    Raises:
        UserError: A file is missing, damaged, or of a format that this version does not know.
    """
    header = _read_header(directory / CONFIG_FILE)
    path = directory / TENSORS_FILE
    try:
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; save the adapter again") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut off ({error}); copy or save the adapter again") from error
    whole = tuple(header.get("modules_to_save") or ())
    _refuse_unusable(tensors, whole, path)
    prints = header["fingerprint"], header.get("fingerprint_float16")
    return StoredWeights(header["method"], header["base_model_name_or_path"], *prints, tensors, whole)


def _refuse_unusable(tensors: dict[str, Tensor], whole: Collection[str], path: Path) -> None:
    if not tensors:
        raise UserError(f"{path} holds no tensors; copy or save the adapter again")
    columns = {name.removesuffix(COLUMNS): part for name, part in tensors.items() if name.endswith(COLUMNS)}
    entries = {name: part for name, part in tensors.items() if not name.endswith(COLUMNS)}
    for name, columns_OK in columns.items():
        entries_OK = entries.get(f"{name}{ENTRIES}")
        if entries_OK is None or not are_columns(columns_OK, entries_OK):
            raise UserError(f"{path}: columns and entries of {name} do not belong together; save the adapter again")
    alone = entries.keys() - {f"{name}{ENTRIES}" for name in columns}
    if columns and (lone := sorted(name for name in alone if not is_inside(name, whole))):
        raise UserError(f"{path} holds {lone[0]} without its columns; copy or save the adapter again")
    try:
        refuse_unusable(entries, path)
    except AdapterError as error:
        raise UserError(str(error)) from error


class _Header(TypedDict):
    format_version: int
    method: str
    base_model_name_or_path: str | None
    fingerprint: str | None
    fingerprint_float16: NotRequired[str | None]
    modules_to_save: NotRequired[list[str]]


def _read_header(path: Path) -> dict[str, Any]:
    header: dict[str, Any] = read_json(path, _Header, "copy or save the adapter again")
    try:
        refuse_unknown_format(header["format_version"], (FORMAT_VERSION,), path)
    except AdapterError as error:
        raise UserError(str(error)) from None
    return header
