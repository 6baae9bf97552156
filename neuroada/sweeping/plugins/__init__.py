"""Make the sweeper and the launcher visible to Hydra, which finds plugins only in ``hydra_plugins`` packages."""

import sys
from pathlib import Path


def make_findable() -> None:
    """Let Hydra see this ``hydra_plugins`` folder in addition to installed ones; safe to call again."""
    folder = str(Path(__file__).parent)
    if folder not in sys.path:
        sys.path.append(folder)
