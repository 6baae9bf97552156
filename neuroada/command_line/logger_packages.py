"""Whether the package of a logger is here: without it, a run would fail after the backbone is loaded."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from neuroada.config.errors import UserError

_PACKAGES = {
    "TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "TrackioLogger": ("trackio",),
    "MLFlowLogger": ("mlflow",),
}
"""Class -> the packages of which it needs one; the first is also the name of the extra."""


def require_packages(loggers: Mapping[str, Any] | None) -> None:
    """Check the loggers of a run; nothing is imported.

    Raises:
        UserError: One of them needs a package that is not installed.
    """
    for name, node in (loggers or {}).items():
        needed = _PACKAGES.get(str((node or {}).get("_target_")).rpartition(".")[2], ())
        if needed and all(importlib.util.find_spec(one) is None for one in needed):
            raise UserError(f"logger.{name}: needs {needed[0]}; pip install 'neuroada[{needed[0]}]', or leave it out")
