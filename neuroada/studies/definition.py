"""What a study asks and runs: the file ``study.yaml`` in its folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from neuroada.config.errors import UserError
from neuroada.config.requirements import require, require_name
from neuroada.config.resolution import first_line

STUDY_FILE = "study.yaml"


@dataclass
class CellConfig:
    """One setting, which is compared with the others."""

    overrides: list[str] = field(default_factory=list)
    """What makes it this setting, as on the command line."""
    rates: list[float] | None = None
    """Learning rates to choose from; null takes the study's, an empty list leaves the rate alone."""
    seeds: list[int] | None = None
    """Of the runs at the chosen rate; null takes the study's."""
    against: str | None = None
    """The cell that this one is tested against; null takes the study's baseline."""


@dataclass
class StudyConfig:
    """A comparison in which every setting has a learning rate of its own, chosen on held-out rows."""

    question: str
    overrides: list[str] = field(default_factory=list)
    """Of every run, as on the command line."""
    rate_overrides: list[str] = field(default_factory=list)
    """Also of the runs that only choose a learning rate."""
    rates: list[float] = field(default_factory=list)
    rate_seed: int = 0
    """Seed of the runs that choose a rate; no result is of this seed."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    baseline: str | None = None
    """The cell that the others are tested against."""
    needs: list[str] = field(default_factory=list)
    """What a reader has to give or make first, one line each."""
    cells: dict[str, CellConfig] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(bool(self.cells), "cells: give at least one")
        for name, cell in self.cells.items():
            require_name("cells", name)
            require(bool(self.seeds_of(name)), f"cells.{name}.seeds: give at least one seed")
            require(
                self.rate_seed not in self.seeds_of(name) or len(self.rates_of(name)) < 2,
                f"cells.{name}.seeds: {self.rate_seed} chooses the rate (rate_seed); give other seeds",
            )
            require(all(rate > 0 for rate in self.rates_of(name)), f"cells.{name}.rates: must be above 0")
            for other in (cell.against, self.baseline):
                require(other is None or other in self.cells, f"cells.{name}: {other} is no cell of this study")

    def rates_of(self, cell: str) -> list[float]:
        """The rates to choose from; empty if the setting has none."""
        own = self.cells[cell].rates
        return sorted(self.rates if own is None else own)

    def seeds_of(self, cell: str) -> list[int]:
        """The seeds of the runs at the chosen rate."""
        own = self.cells[cell].seeds
        return self.seeds if own is None else own

    def baseline_of(self, cell: str) -> str | None:
        """The cell that one is tested against; None for the baseline itself."""
        found = self.cells[cell].against or self.baseline
        return None if found == cell else found


def read_study(folder: Path) -> StudyConfig:
    """The study in a folder.

    Raises:
        UserError: The file is missing, is no YAML, or has a wrong key or value.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        raise UserError(f"{path} is missing; a study is a folder with this file (see docs/studies.md)")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping with the keys of docs/studies.md")
    try:
        study: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(StudyConfig), _as_written(content)))
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {error.full_key or 'its keys'}: {first_line(error)}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    assert isinstance(study, StudyConfig)
    return study


def _as_written(value: Any) -> Any:
    """With interpolations escaped: they are for the runs, whose configuration has what they name."""
    if isinstance(value, dict):
        return {key: _as_written(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_written(inner) for inner in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value
