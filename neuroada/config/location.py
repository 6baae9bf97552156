"""Where the shipped configuration is: at the top of a checkout, or inside the installed package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def conf_folder() -> Path:
    """The folder with ``config.yaml`` and the groups."""
    installed = _PACKAGE / "conf"
    return installed if installed.is_dir() else _PACKAGE.parent / "conf"
