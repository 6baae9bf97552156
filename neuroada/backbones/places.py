"""Where the files of a backbone are; imports nothing heavy."""

from pathlib import Path
from typing import Any

import neuroada.bundled
from neuroada.config.schema import ModelConfig

BUNDLED = "bundled"
ARCHITECTURES = Path(__file__).parent / "architectures"


def source_of(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """First argument and keywords for ``from_pretrained``. A GGUF file is named by its path, local or on the hub."""
    name = config.name_or_path
    if name == BUNDLED:
        return str(Path(neuroada.bundled.__file__).parent / "model"), {}
    if name.endswith(".gguf"):
        place, _, file = name.rpartition("/")
        return place or ".", {"revision": config.revision, "gguf_file": file}
    return name, {"revision": config.revision}


def known_architecture(place: str) -> Path | None:
    """The file with the architecture of a hub model that this package knows; None for all others."""
    file = ARCHITECTURES / f"{place.replace('/', '--')}.json"
    return file if not Path(place).is_dir() and file.is_file() else None


def cannot_be_loaded(config: ModelConfig, reason: str) -> str:
    """The message about a name that leads to no backbone."""
    return (
        f"model.name_or_path={config.name_or_path}: cannot be loaded ({reason}); check the name, the network and, "
        "for gated models, the HF_TOKEN environment variable, or give a local folder"
    )
