"""Run folders that another process holds: the one that started the tests."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from neuroada.runs.folder_lock import HOLDER_FILE, FolderLock, Holder
from neuroada.runs.process_lifetime import start_of_process


def store_holder(folder: Path, **changes: Any) -> None:
    """Write who holds a folder: the parent of this process; keywords replace what the file says."""
    lock = FolderLock(folder, "other")
    lock.acquire()
    told = Holder.read(folder)
    lock.release()
    assert told is not None
    parent = os.getppid()
    values = {**dataclasses.asdict(told), "pid": parent, "process_started": start_of_process(parent), **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HOLDER_FILE).write_text(json.dumps(values), encoding="utf-8")
