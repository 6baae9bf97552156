"""Compose a run from ``conf/`` and run its job, like the command ``neuroada``: ``python run.py --help``."""

from neuroada.command_line.entry import main

if __name__ == "__main__":
    main()
