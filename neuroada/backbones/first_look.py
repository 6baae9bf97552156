"""Look at a backbone before anything slow is imported: is it there, and does it have the layers that are named?"""

import difflib
import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HFValidationError

from neuroada.backbones.places import cannot_be_loaded, known_architecture, source_of
from neuroada.config.errors import UserError
from neuroada.config.resolution import first_line
from neuroada.config.schema import ModelConfig

_CONFIG = "config.json"
_OF_OTHERS = re.compile(r"from \.\.\w+\.modeling|AutoModel\w*\.from_config")
"""In the source of a model that is built from those of others."""


def look_at_backbone(config: ModelConfig) -> None:
    """Find the backbone's ``config.json``; one on the hub is fetched into its cache, as loading would do.

    Raises:
        UserError: There is no such folder, or no such model on the hub.
    """
    place, options = source_of(config)
    if "gguf_file" in options:
        return
    folder = Path(place)
    if folder.is_dir():
        if not (folder / _CONFIG).is_file():
            raise UserError(cannot_be_loaded(config, f"{folder} has no {_CONFIG}"))
        return
    if place.startswith(("/", "./", "../")):
        raise UserError(cannot_be_loaded(config, "no such folder"))
    try:
        hf_hub_download(place, _CONFIG, revision=config.revision)
    except (OSError, ValueError, HFValidationError) as error:
        raise UserError(cannot_be_loaded(config, first_line(error))) from error


def look_at_layers(config: ModelConfig) -> None:
    """Look up the names of ``model.target_modules`` in the source of the model's class.

    Raises:
        UserError: The class has no module of that name.
    """
    names, values = config.target_modules, _values(config)
    if not isinstance(names, list) or values is None:
        return
    text = _text_of(str(values.get("model_type")))
    if text is None or _OF_OTHERS.search(text):
        return
    modules = set(re.findall(r"self\.(\w+)(?:\s*:[^=\n]+)?\s*=", text))
    linear = list(dict.fromkeys(re.findall(r"self\.(\w+)(?:\s*:[^=\n]+)?\s*=\s*nn\.Linear\(", text)))
    _refuse_absent(names, modules, linear)


def _refuse_absent(names: Sequence[str], modules: set[str], linear: Sequence[str]) -> None:
    for name in names:
        last = name.rpartition(".")[2]
        if last in modules or last.isdecimal() or not linear:
            continue
        near = difflib.get_close_matches(last, linear, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(
            f"model.target_modules: no module is named {name!r}; {hint}linear layers here: {', '.join(linear)}"
        )


def _values(config: ModelConfig) -> dict[str, Any] | None:
    """The model's ``config.json``, if it is on this machine."""
    place, _ = source_of(config)
    file = known_architecture(place) or Path(place) / _CONFIG
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _text_of(model_type: str) -> str | None:
    """The source of transformers' model of that type; None if it has none."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or not spec.submodule_search_locations:
        return None
    name = model_type.replace("-", "_")
    file = Path(spec.submodule_search_locations[0]) / "models" / name / f"modeling_{name}.py"
    return file.read_text(encoding="utf-8") if file.is_file() else None
