"""Read from what is given as ``adapter=`` its method, its base model, and the task it was trained on.

The folder is untrusted. Only plain values are read from it: nothing is instantiated or interpolated, and whatever
becomes part of a path is checked first.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from neuroada.config.errors import UserError
from neuroada.config.json_files import read_json
from neuroada.config.requirements import require_name
from neuroada.config.schema import DTYPES, ModelConfig, ProtocolConfig, TaskConfig
from neuroada.runs.files import ADAPTER_FOLDER, CONFIG_FILE
from neuroada.runs.recorded_files import refuse_changed_adapter
from neuroada.runs.stored_config import named_code, plain, read_config
from neuroada.runs.stored_files import Count, read_outcome
from neuroada.sparse.hub_repository import fetched, is_hub_id

HEADER_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"
NEUROADA, WEIGHTS = "NEUROADA", "NEUROADA_WEIGHTS"
"""``peft_type`` of adapter files that are this project's own; all others are the peft library's."""


class Header(TypedDict):
    """What is read from that file, whichever library wrote it."""

    peft_type: str
    base_model_name_or_path: NotRequired[str | None]
    revision: NotRequired[str | None]
    top_k: NotRequired[Count | None]
    target_modules: NotRequired[list[str] | str | None]
    modules_to_save: NotRequired[list[str] | None]
    selection: NotRequired[str | dict[str, Any] | None]
    seed: NotRequired[int | None]
    neuron_fraction: NotRequired[float | None]
    spread: NotRequired[str | None]
    method: NotRequired[str | None]


_FACTS = {
    "budget.top_k": "top_k",
    "model.target_modules": "target_modules",
    "method.selection": "selection",
    "method.selection_seed": "seed",
    "method.modules_to_save": "modules_to_save",
    "method.neuron_fraction": "neuron_fraction",
    "budget.spread": "spread",
}
"""Configuration key -> header key that sets it: an adapter is loaded as it was saved."""


def adapter_directory(path: Path) -> Path:
    """The adapter folder that ``adapter=`` names: itself, the one inside a run folder, or one fetched from the hub.

    Raises:
        UserError, AdapterError: It is none of them, or cannot be fetched.
    """
    for candidate in (path / ADAPTER_FOLDER, path):
        if (candidate / HEADER_FILE).is_file():
            return candidate
    if not path.exists() and is_hub_id(str(path)):
        return _fetched(str(path))
    raise UserError(
        f"adapter={path}: neither a run folder with {ADAPTER_FOLDER}/ nor a folder with {HEADER_FILE}; "
        "give a folder that a finished fine-tune wrote"
    )


def unchanged_adapter(path: Path) -> Path:
    """The adapter folder that ``adapter=`` names; inside the folder of a finished run, it is still the one it saved.

    Raises:
        UserError, AdapterError: There is none, it cannot be fetched, or a file of it was changed.
    """
    directory = adapter_directory(path)
    refuse_changed_adapter(directory)
    return directory


@functools.cache
def _fetched(hub_id: str) -> Path:
    """The same commit for as long as a run lasts."""
    return fetched(hub_id)


@dataclass(frozen=True)
class AdapterOrigin:
    """An adapter folder and, if it is inside one, its run folder.

    Attributes:
        directory: The adapter folder.
        header: Content of its ``adapter_config.json``.
    """

    directory: Path
    header: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "AdapterOrigin":
        """Raises UserError if there is no adapter, or its header is damaged."""
        directory = adapter_directory(path)
        file = directory / HEADER_FILE
        return cls(directory, plain(read_json(file, Header, "give another adapter"), file))

    @cached_property
    def method(self) -> dict[str, Any]:
        """The ``method`` section of a run that loads the adapter: its name, label and facts, but no class."""
        stored = _mapping(self._config.get("method"))
        name = str(stored.get("name") or self.header.get("method") or self.header["peft_type"].lower())
        label = str(stored.get("label") or self._label_of(name))
        require_name("method.name", name)
        require_name("method.label", label)
        facts = {key.removeprefix("method."): value for key, value in self.facts.items() if key.startswith("method.")}
        return {"name": name, "label": label, **facts}

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Dotted configuration keys that the adapter sets, with their values."""
        return {key: self.header[name] for key, name in _FACTS.items() if self.header.get(name) is not None}

    @cached_property
    def sections(self) -> dict[str, dict[str, Any]]:
        """Configuration groups, as far as the adapter or its run records them."""
        budget = {"top_k": self.header.get("top_k"), "trainable": None, "percent": None, "match": None}
        if not self._config:
            return {"model": self._base, "budget": budget}
        return {
            "model": {**self._base, **self._model},
            "budget": budget,
            "task": _fields_of(TaskConfig, self._config.get("task")),
            "data": self._data,
            "protocol": _fields_of(ProtocolConfig, self._config.get("protocol")),
        }

    @cached_property
    def _data(self) -> dict[str, Any]:
        """The run's data sets and protocols by name, and its data folder if that is one here: a received run's is
        elsewhere.

        Its ``data.url`` is left out: a received folder must not decide what this machine fetches.
        """
        stored, task = (_mapping(self._config.get(group)) for group in ("data", "task"))
        protocols = {name: node for name, node in _mapping(stored.get("protocols")).items() if not named_code(node)}
        template = stored.get("chat_template")
        named = {
            "sets": _mapping(stored.get("sets")),
            "protocols": protocols,
            # A run stores the template itself; without a brace it would be the name of a file here.
            "chat_template": template if isinstance(template, str) and "{" in template else None,
        }
        folder = stored.get("dir")
        names = [name for key in ("train", "benchmarks") for name in task.get(key) or [] if isinstance(name, str)]
        is_here = isinstance(folder, str) and any(Path(folder, name).is_dir() for name in names)
        return {**named, "dir": folder} if is_here else named

    def named_code(self, group: str) -> list[str]:
        """Functions and classes that a group of its run names; none of them is ever created from here."""
        return named_code(self._config.get(group))

    @cached_property
    def _config(self) -> dict[str, Any]:
        """The configuration of the adapter's run; empty outside a run folder."""
        if self.directory.name != ADAPTER_FOLDER or not (self.directory.parent / CONFIG_FILE).is_file():
            return {}
        return read_config(self.directory.parent)

    @cached_property
    def _base(self) -> dict[str, Any]:
        name = self.header.get("base_model_name_or_path")
        model = {"revision": self.header.get("revision"), "target_modules": self.header.get("target_modules")}
        return {**model, "name_or_path": name, "name": short_name(name)} if name else model

    @cached_property
    def _model(self) -> dict[str, Any]:
        """The backbone of the run; ``auto`` becomes the precision that the run used."""
        model = _fields_of(ModelConfig, self._config.get("model"))
        content = _mapping((read_outcome(self.directory.parent) or {}).get("content"))
        if model.get("dtype") == "auto" and content.get("dtype") in DTYPES:
            model["dtype"] = content["dtype"]
        if self.header.get("target_modules") is not None:
            model["target_modules"] = self.header["target_modules"]
        return model

    def _label_of(self, name: str) -> str:
        sizes = [f"-{letter}{self.header[key]}" for key, letter in (("top_k", "k"), ("r", "r")) if self.header.get(key)]
        return "".join([name, *sizes[:1]])


def short_name(name_or_path: str) -> str:
    """A model's name for run folders, from its hub id or path."""
    last = Path(name_or_path).name or name_or_path
    return "".join(character if character.isalnum() else "_" for character in last.lower()).strip("_") or "model"


def _fields_of(schema: type, section: Any) -> dict[str, Any]:
    """The keys of a section that the schema knows; keys added by newer versions are dropped."""
    known = {field.name for field in fields(schema)}
    return {key: value for key, value in _mapping(section).items() if key in known}


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
