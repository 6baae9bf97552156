"""Files that no run of this project wrote: a run neither replaces nor deletes them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from neuroada.config.errors import UserError
from neuroada.runs.files import CONFIG_FILE, FAILURE_FILE
from neuroada.runs.folder_lock import LOCK_FILE
from neuroada.runs.stored_config import read_config
from neuroada.storage.whole_files import PARTIAL_ENDING

_HYDRA_FOLDER = ".hydra"
_LOG_ENDING = ".log"


def refuse_foreign(folder: Path) -> None:
    """Check that a run may have a folder: it is new, or a run of this project has written it.

    Raises:
        UserError: It holds files of something else, or the configuration of a run in it is damaged.
    """
    refuse_other_files(folder, own=lambda file: False)


def refuse_other_files(folder: Path, own: Callable[[Path], bool]) -> None:
    """Check that a job without a configuration of its own may write into a folder.

    Args:
        folder: It is new, a run of this project has written it, or it holds only files of the job.
        own: Whether the job has written a file, given with its folder.

    Raises:
        UserError: It holds files of something else.
    """
    if (folder / CONFIG_FILE).is_file():
        _refuse_other_config(folder)
        return
    for file in _files_before_a_run(folder):
        if not own(file):
            raise UserError(
                f"{folder} holds files that no run wrote, such as {file.relative_to(folder)}; use a hydra.run.dir that "
                "is new or empty"
            )


def begins_with(*beginnings: str) -> Callable[[Path], bool]:
    """Whether the text of a file begins like one of these."""
    longest = max(map(len, beginnings))

    def begins(path: Path) -> bool:
        try:
            with path.open(encoding="utf-8") as file:
                return file.read(longest).startswith(beginnings)
        except (OSError, UnicodeDecodeError):
            return False

    return begins


def _refuse_other_config(folder: Path) -> None:
    try:
        read_config(folder)
    except UserError as error:
        raise UserError(f"{error}, use another hydra.run.dir, or delete {folder} if a run wrote it") from error


def _files_before_a_run(folder: Path) -> Iterator[Path]:
    """The files of a folder, except those that are written before a run begins: by Hydra, the lock and a sweep."""
    for directory, subdirectories, files in os.walk(folder):
        is_top = Path(directory) == folder
        if is_top and _HYDRA_FOLDER in subdirectories:
            subdirectories.remove(_HYDRA_FOLDER)
        for name in sorted(files):
            is_log = name.endswith(_LOG_ENDING) or name.startswith(LOCK_FILE) or name == FAILURE_FILE
            if not (is_top and (is_log or name.endswith(PARTIAL_ENDING))):
                yield Path(directory) / name
