"""The files that ``result.json`` speaks of, with their sizes and SHA-256: what was changed since is noticed.

Results of earlier versions list no files, and nothing is checked then.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroada.config.errors import UserError
from neuroada.runs.files import ADAPTER_FOLDER, METRICS_FILE, PREDICTIONS_FOLDER, RESULT_FILE
from neuroada.runs.stored_files import read_outcome
from neuroada.storage.whole_files import PARTIAL_ENDING

FILES = "files"
"""In ``result.json``: path in the run folder -> ``bytes`` and ``sha256``."""
FILES_TO_COME = "files_to_come"
"""The same while ``job=rescore`` replaces files: each is whole as it was and as it will be."""
_NOT_READ = ("README.md",)
"""In an adapter folder: people edit it, and nothing depends on it."""

Described = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Changed:
    """A recorded file that is not as it was recorded.

    Attributes:
        path: In the run folder, as recorded.
        how: ``is missing`` or ``has changed``.
    """

    path: str
    how: str

    @property
    def is_adapter(self) -> bool:
        return self.path.startswith(f"{ADAPTER_FOLDER}/")

    @property
    def benchmark(self) -> str | None:
        """Whose predictions it holds."""
        return Path(self.path).stem if self.path.startswith(f"{PREDICTIONS_FOLDER}/") else None


def describe(folder: Path, paths: Iterable[Path]) -> Described:
    """Size and SHA-256 of files, for ``result.json``; keys are their paths in the run folder."""
    return {path.relative_to(folder).as_posix(): _described(path) for path in paths if path.is_file()}


def describe_adapter(folder: Path) -> tuple[str, Described]:
    """The same of a run's adapter, and the ``directory_hash`` of its folder, from one reading of the files."""
    directory = folder / ADAPTER_FOLDER
    described = {path.name: _described(path) for path in _files_of(directory)}
    read = {f"{ADAPTER_FOLDER}/{name}": entry for name, entry in described.items() if name not in _NOT_READ}
    return _joined({name: entry["sha256"] for name, entry in described.items()}), read


def describe_text(text: str) -> dict[str, Any]:
    """The same of a file that is about to be written with this text."""
    content = text.encode()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def directory_hash(directory: Path) -> str:
    """SHA-256 of the names and contents of a folder's files."""
    return _joined({path.name: _sha256(path) for path in _files_of(directory)})


def changed_files(folder: Path, result: Mapping[str, Any], read_adapter: bool = True) -> list[Changed]:
    """The recorded files that are missing or changed.

    Args:
        folder: The run folder.
        result: Its ``result.json``.
        read_adapter: Whether the adapter, which may be many gigabytes, is read; else only its files' sizes count.
    """
    return list(_changed(folder, result, read_adapter))


def refuse_changed_adapter(directory: Path) -> None:
    """An adapter inside the folder of a finished run must be the one that the run has saved and scored.

    Args:
        directory: The adapter folder.

    Raises:
        UserError: A file of it was changed.
    """
    folder = directory.parent
    result = read_outcome(folder) if directory.name == ADAPTER_FOLDER else None
    for changed in changed_files(folder, result or {}):
        if changed.is_adapter:
            raise UserError(changed_adapter(folder, changed))


def changed_adapter(folder: Path, changed: Changed) -> str:
    """The message about an adapter's file that is not what the run saved."""
    return (
        f"{folder / changed.path} {changed.how} since {RESULT_FILE} was written; put the file of the run back, or copy "
        f"{ADAPTER_FOLDER}/ to a folder of its own and use adapter=<that folder>, or train again with resume=never"
    )


def _changed(folder: Path, result: Mapping[str, Any], read_adapter: bool) -> Iterator[Changed]:
    recorded, to_come = (_mapping(result.get(key)) for key in (FILES, FILES_TO_COME))
    for path, entry in recorded.items():
        file = folder / path
        allowed = [_mapping(entry), *([_mapping(to_come[path])] if path in to_come else [])]
        if not _is_of_a_run(path):
            yield Changed(path, "is no file of a run")
        elif not file.is_file():
            yield Changed(path, "is missing")
        elif not _is_one_of(file, allowed, read_adapter or not Changed(path, "").is_adapter):
            yield Changed(path, "has changed")


def _is_one_of(file: Path, allowed: list[dict[str, Any]], is_read: bool) -> bool:
    of_this_size = [entry for entry in allowed if entry.get("bytes") == file.stat().st_size]
    if not of_this_size or not is_read:
        return bool(of_this_size)
    sha256 = _sha256(file)
    return any(entry.get("sha256") == sha256 for entry in of_this_size)


def _is_of_a_run(path: str) -> bool:
    """A received ``result.json`` must not decide which files of this machine are read."""
    parts = path.split("/")
    is_inside = len(parts) == 2 and parts[0] in (ADAPTER_FOLDER, PREDICTIONS_FOLDER) and parts[1] not in ("", ".", "..")
    return path == METRICS_FILE or is_inside


def _files_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file() and not path.name.endswith(PARTIAL_ENDING))


def _described(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _sha256(path)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _joined(hashes: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, sha256 in hashes.items():
        digest.update(name.encode())
        digest.update(bytes.fromhex(sha256))
    return f"sha256:{digest.hexdigest()}"


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
