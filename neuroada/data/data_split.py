"""One split of a data set: where it is on disk or on the hub, its rows, and its hash."""

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroada.config.errors import UserError
from neuroada.data import tables
from neuroada.data.catalog import Dataset
from neuroada.data.glue import HUB
from neuroada.data.row_kinds import kind_of
from neuroada.data.rows import described_kinds, examples_of, questions_of, renamed_rows
from neuroada.tasks.label_protocol import LabelProtocol
from neuroada.tasks.protocol import Example, Protocol, ProtocolError
from neuroada.tasks.protocols import DEFINITIONS, made, merged


@dataclass(frozen=True)
class DataSplit:
    """One split of a data set.

    Attributes:
        dataset: The data set.
        split: train, validation or test, or a name of its own.
        data_dir: ``data.dir``.
    """

    dataset: Dataset
    split: str
    data_dir: Path

    @property
    def name(self) -> str:
        """``<data set>/<split>``, its name in records."""
        return f"{self.dataset.name}/{self.split}"

    @property
    def path(self) -> Path:
        """Its file, or where it will be fetched to; of an own data set, the file or folder that ``path`` names."""
        own = self._own_path
        if own is not None:
            return (tables.find_file(own, self.split) or own) if own.is_dir() else own
        if self.dataset.glue is not None:
            found = self.dataset.glue.file(self.dataset.name, self.data_dir, self.split)
            return found or self.data_dir / self.dataset.glue.folder / f"{self.split}.tsv"
        folder = (self.dataset.home or self.data_dir) / self.dataset.name
        return tables.find_file(folder, self.split) or folder / f"{self.split}.json"

    @property
    def is_on_hub(self) -> bool:
        """Whether ``path`` names a data set of the hub: nothing of that name is on disk."""
        origin = self.dataset.origin
        if self.dataset.glue is not None:
            return not self.path.is_file()
        return origin is not None and not self.path.exists() and tables.suffix_of(origin.path) not in tables.SUFFIXES

    @property
    def is_there(self) -> bool:
        """Whether it is on disk."""
        return self.path.is_file() or (self._own_path is not None and self._has_split_in_folder)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Its rows, with the columns that the data set renames.

        Raises:
            UserError: It is missing or malformed.
        """
        return list(self.numbered_rows.values())

    @functools.cached_property
    def numbered_rows(self) -> dict[int, dict[str, Any]]:
        """Its rows by their indices in the file, which are not all there if the data set picks rows.

        Raises:
            UserError: It is missing or malformed.
        """
        origin, glue = self.dataset.origin, self.dataset.glue
        if glue is not None:
            found: list[Any] = glue.rows(self.path if self.path.is_file() else None, self.split)
        else:
            found = tables.read_file(self.path) if self.path.is_file() else self._rows_of_library()
            if not found:
                raise UserError(f"{self.place}: contains no rows; add at least one")
        picked = {index: found[index] for index in self.dataset.picked.indices(self.place, found)}
        return renamed_rows(self.place, picked, origin.columns if origin else {})

    @functools.cached_property
    def protocol(self) -> Protocol:
        """The protocol of the data set, or that for its kind of rows.

        Raises:
            UserError: Its rows are of no known kind, and no protocol is named.
        """
        if self.dataset.protocol is not None:
            return self.dataset.protocol
        kind, settings = kind_of(self.rows[0]), self.dataset.settings
        if kind is None and (settings.get("prompt") is None or settings.get("completion") is None):
            raise UserError(
                f"{self.place}: its columns ({', '.join(self.rows[0])}) are of no known kind ({described_kinds()}); "
                "rename them with columns, or give protocol.prompt and protocol.completion"
            )
        name = kind.protocol if kind else "own"
        try:
            return made(name, merged(DEFINITIONS.get(name, {}), settings), self.dataset.own_judge)
        except ProtocolError as error:
            raise UserError(f"protocol.{error}") from error

    def examples(self, scored: bool = True) -> list[Example]:
        """Every row, checked; see ``examples_of``."""
        return examples_of(self.place, self.numbered_rows, self.protocol, scored)

    def questions(self) -> list[Example]:
        """Every row with its question alone, for which rows of a known kind need no prompt.

        Raises:
            UserError: It is missing or malformed, or rows of no known kind have no prompt.
        """
        kind = kind_of(self.rows[0])
        if kind is None or isinstance(self.dataset.protocol, LabelProtocol):
            return self.examples(scored=False)
        return questions_of(self.place, self.numbered_rows, kind)

    @property
    def place(self) -> str:
        """What messages call it."""
        if self.dataset.glue is not None and self.is_on_hub:
            return f"{HUB}/{self.dataset.glue.config}"
        if self.dataset.origin is None:
            return str(self.path)
        return self.dataset.origin.path if self.is_on_hub else str(self.path)

    @property
    def rows_sha256(self) -> str:
        """Hash of what decides its rows: the file, and the rows and columns that are taken of it."""
        picked, origin = self.dataset.picked, self.dataset.origin
        decisive = [self.sha256, picked.where, picked.rows, dict(origin.columns) if origin else {}]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the file, or of the rows of a folder or hub data set.

        Raises:
            UserError: There is no such file.
        """
        # Of a part of a file, the rows count: the other part comes from the same file.
        if self.is_on_hub or self.path.is_dir() or self.dataset.glue is not None:
            return tables.content_hash(self.rows)
        try:
            with self.path.open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        except FileNotFoundError:
            raise UserError(
                f"{self.path}: no such file; start a run to fetch it, or set data.dir to the folder that has it"
            ) from None
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be read ({error.strerror}); check data.dir and its permissions"
            ) from error

    def _rows_of_library(self) -> list[dict[str, Any]]:
        """Of a folder or a data set of the hub; for a missing file, raises the UserError that says so."""
        origin = self.dataset.origin
        if not (self.is_on_hub or self.path.is_dir()):
            return tables.read_file(self.path)
        from neuroada.data import library_rows  # imports datasets and pandas, which take seconds

        if origin is not None and self.is_on_hub:
            return library_rows.read_hub(origin.path, origin.config, self.split, origin.revision)
        return library_rows.read_folder(self.path, self.split)

    @property
    def _own_path(self) -> Path | None:
        """``path`` of an own data set: as it is, or below ``data.dir``."""
        if self.dataset.origin is None:
            return None
        path = Path(self.dataset.origin.path).expanduser()
        below = self.data_dir / path
        return below if not path.exists() and below.exists() else path

    @property
    def _has_split_in_folder(self) -> bool:
        if not self.path.is_dir():
            return False
        try:
            return bool(self.rows)
        except UserError:
            return False


def content_hashes(splits: Iterable[DataSplit]) -> dict[str, str]:
    """``<name>/<split>`` -> sha256."""
    return {split.name: split.sha256 for split in splits}
