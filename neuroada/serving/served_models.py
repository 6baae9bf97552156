"""The names by which clients ask for the base and for adapters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuroada.config.errors import UserError
from neuroada.runs.files import ADAPTER_FOLDER


@dataclass(frozen=True)
class ServedModels:
    """What a server has.

    Attributes:
        base: The base's name.
        base_place: Its folder or hub id.
        adapters: Folder of each adapter, by name.
    """

    base: str
    base_place: str
    adapters: Mapping[str, Path]

    @property
    def names(self) -> list[str]:
        """All names, the base's first."""
        return [self.base, *self.adapters]

    def folder(self, name: str) -> str:
        """The folder of a name; empty for the base."""
        return "" if name == self.base else str(self.adapters[name])

    @classmethod
    def of(
        cls, base: str, base_place: str, folders: Sequence[Path], given: Sequence[str] | None = None
    ) -> "ServedModels":
        """The models of some adapters.

        Args:
            base: The base's name.
            base_place: Its folder or hub id.
            folders: The adapters'.
            given: Their names; without it, each is called like its run or its folder.

        Raises:
            UserError: Two models have one name.
        """
        names = list(given) if given else [name_of(folder) for folder in folders]
        taken = [base]
        for name, folder in zip(names, folders, strict=True):
            if name in taken:
                raise UserError(
                    f"adapter={folder}: another model here is called {name}, too; give each adapter a name of its own "
                    "with serve.names=[<name>,<name>]"
                )
            taken.append(name)
        return cls(base, base_place, dict(zip(names, folders, strict=True)))


def name_of(folder: Path) -> str:
    """What an adapter is called by its run, or by its own folder."""
    whole = folder.absolute()
    return whole.parent.name if whole.name == ADAPTER_FOLDER else whole.name
