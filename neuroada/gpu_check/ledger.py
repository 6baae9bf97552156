"""The file of ``job=gpu_check``: what each part found, written as it ends, so that a later run does what is missing."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from neuroada.config.json_files import read_json
from neuroada.gpu_check.setting import Row
from neuroada.storage.whole_files import write_whole

BEGINNING = '{\n "gpu_check": '
"""Of the file."""
_WAY_OUT = "move it away, or start over with resume=never"


@dataclass(frozen=True)
class PartRecord:
    """What is known of a part.

    Attributes:
        device: The card that it ran on.
        seconds: From its start to its end.
        ended: Why it ended before it had given all of its rows; None if it did not.
    """

    device: str
    seconds: float
    ended: str | None
    rows: list[Row]

    @property
    def wrong(self) -> list[Row]:
        """The rows of what does not work here, or not as it should."""
        return [row for row in self.rows if row["right"] is False]

    @property
    def is_good(self) -> bool:
        """Whether nothing of it has to be looked at again. What cannot be timed, for lack of memory, is an outcome."""
        return self.ended is None and not self.wrong


class _StoredPart(TypedDict):
    device: str
    seconds: float
    ended: str | None
    rows: list[dict[str, Any]]


class _Stored(TypedDict):
    gpu_check: str
    parts: dict[str, _StoredPart]


class Ledger:
    """The records of all parts so far, by name, and their file."""

    def __init__(self, path: Path, version: str, records: Mapping[str, PartRecord] | None = None) -> None:
        self.path = path
        self.records = dict(records or {})
        self._version = version

    @classmethod
    def opened(cls, path: Path, version: str) -> "Ledger":
        """With what the file has, if it is there.

        Args:
            version: Of the program, for the file.

        Raises:
            UserError: The file is damaged or something else.
        """
        if not path.is_file():
            return cls(path, version)
        stored = read_json(path, _Stored, _WAY_OUT)
        return cls(path, version, {name: PartRecord(**part) for name, part in stored["parts"].items()})

    def missing(self, names: list[str], device: str) -> list[str]:
        """Those parts that did not run to their end on a device, or found something wrong."""
        return [name for name in names if not self._has(name, device)]

    def _has(self, name: str, device: str) -> bool:
        record = self.records.get(name)
        return record is not None and record.device == device and record.is_good

    def add(self, name: str, record: PartRecord) -> None:
        """Write the file with a record, which replaces an earlier one of its part."""
        self.records[name] = record
        parts = {part: asdict(one) for part, one in self.records.items()}
        write_whole(self.path, json.dumps({"gpu_check": self._version, "parts": parts}, indent=1) + "\n")
