"""Where Hydra finds the sweeper and the launcher of sweeps: it takes plugins from ``hydra_plugins`` packages alone."""

import sys
from pathlib import Path


def make_findable() -> None:
    """Let Hydra see the ``hydra_plugins`` folder here, beside those that are installed; safe to call again."""
    folder = str(Path(__file__).parent)
    if folder not in sys.path:
        sys.path.append(folder)
