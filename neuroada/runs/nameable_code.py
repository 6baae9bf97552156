"""What a resumed run may build: only what the user's own configuration names at the same place.

The ``config.yaml`` of a run folder names classes, and paths that those write to. It is believed where the shipped
configuration, the user's ``--config-dir`` or the present command says the same. All else could be a stranger's.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra

from neuroada.config.errors import UserError
from neuroada.config.location import conf_folder
from neuroada.runs.files import CONFIG_FILE

_BUILT = ("method", "optimizer", "trainer", "callbacks", "logger", "benchmark", "gpu_check")
"""Groups of classes and their arguments; the last two also name the files that they write."""
# Keys that say what Hydra builds, and how.
_STEERING = re.compile(r"_[a-z]+_")
# Definitions of one kind: what is named at one of their places is the user's at all of them.
_SAME_PLACES = (
    (re.compile(r"^(benchmark\.methods|gpu_check\.(model|layer)_methods)\[\]\."), "method."),
    (
        re.compile(r"^(data\.protocols\.[^.]+|(task|evaluation)\.\w+\[\]\.protocol|generate\.file\.protocol)\."),
        "protocol.",
    ),
)
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)\s*$", flags=re.MULTILINE)


def refuse_foreign_code(folder: Path, stored: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Check everything that a stored configuration wants to be built, called, or written outside its folder.

    Args:
        folder: The run folder.
        stored: Its configuration.
        present: That of the present command.

    Raises:
        UserError: The user names something of it nowhere at the same place.
    """
    own = {(_place(path), repr(value)) for path, value in (*_named(present), ("runs", present.get("runs")))}
    foreign = [(path, value) for path, value in _named(stored) if (_place(path), repr(value)) not in own]
    if not foreign:
        return
    own = {(_place(path), repr(value)) for path, value in _configured()}
    for path, value in foreign:
        if (_place(path), repr(value)) not in own:
            raise UserError(
                f"resume={folder}: its {CONFIG_FILE} has {path}={value}, which neither this installation nor your "
                f"--config-dir nor this command names there; name it again, or add trust={folder} if that file is yours"
            )


def _named(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is built or called, and what leads out of the run folder, with its path in the configuration."""
    is_rescored = isinstance(values.get("job"), Mapping) and values["job"].get("name") == "rescore"
    for path, value in _entries(values):
        is_argument = path.partition(".")[0] in _BUILT
        if (
            _STEERING.fullmatch(path.rpartition(".")[2])
            or path == "job.function"
            or (path == "runs" and is_rescored)  # it writes into the runs that it finds there
            or (is_argument and _leads_out(value))
        ):
            yield path, value


def _entries(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its path, those that are mappings or lists too."""
    if path:
        yield path, value
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _entries(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _entries(part, f"{path}[]")


def _place(path: str) -> str:
    for pattern, place in _SAME_PLACES:
        path = pattern.sub(place, path)
    return path


def _leads_out(value: Any) -> bool:
    """Whether a value can be a path outside the run folder, or an address."""
    if not isinstance(value, str):
        return False
    return value.startswith(("/", "~")) or "://" in value or ".." in Path(value).parts


def _configured() -> Iterator[tuple[str, Any]]:
    """The same of every file of the shipped configuration, and of those that Hydra finds for the present command."""
    folders = [conf_folder()]
    if GlobalHydra.instance().is_initialized():
        searched = GlobalHydra.instance().config_loader().get_search_path().get_path()
        folders += [Path(one.path.removeprefix("file://")) for one in searched if one.path.startswith("file://")]
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        for file in sorted(folder.rglob("*.yaml")):
            yield from _named(_content(file, file.relative_to(folder).parent.parts))


def _content(file: Path, group: tuple[str, ...]) -> dict[str, Any]:
    """The values of a configuration file at the place where Hydra puts them; empty if it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    package = _PACKAGE.search(text)
    if package is not None and package[1] != "_group_":
        group = () if package[1] == "_global_" else tuple(package[1].split("."))
    for name in reversed(group):
        values = {name: values}
    return values if isinstance(values, dict) else {}
