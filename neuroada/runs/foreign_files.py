"""Files that no run of this project wrote: a run neither replaces nor deletes them."""

import os
from collections.abc import Iterator
from pathlib import Path

from neuroada.config.errors import UserError
from neuroada.runs.files import CONFIG_FILE, FAILURE_FILE, PARTIAL_ENDING
from neuroada.runs.folder_lock import LOCK_FILE
from neuroada.runs.stored_config import read_config

_HYDRA_FOLDER = ".hydra"
_LOG_ENDING = ".log"


def refuse_foreign(folder: Path) -> None:
    """Check that a run may have a folder: it is new, or a run of this project has written it.

    Raises:
        UserError: It holds files of something else, or the configuration of a run in it is damaged.
    """
    if (folder / CONFIG_FILE).is_file():
        _refuse_other_config(folder)
        return
    for file in _files_before_a_run(folder):
        raise UserError(
            f"{folder} holds files that no run wrote, such as {file.relative_to(folder)}; use a hydra.run.dir that is "
            "new or empty"
        )


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
