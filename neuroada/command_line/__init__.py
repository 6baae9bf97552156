"""The command ``neuroada``: from what is typed to a run, and answers to questions about the configuration."""

import importlib.util
import sys

if importlib.util.find_spec("hydra") is None:
    # The first thing that happens to somebody who has not activated the environment that make has filled.
    sys.stderr.write(
        f"neuroada: {sys.executable} lacks the packages a run needs (hydra, for one); activate the environment with "
        "`source .venv/bin/activate`, or install them with `pip install -e .`\n"
    )
    raise SystemExit(2)
