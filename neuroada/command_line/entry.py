"""The command ``neuroada``, and ``python run.py``.

Everything is Hydra's command line, except two flags: ``--version``, which says ours, and ``--explain <key>``.
"""

import argparse
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import hydra
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

import neuroada
from neuroada.command_line.commented import commented
from neuroada.command_line.composing import composed
from neuroada.command_line.explaining import lines_about
from neuroada.command_line.job import compose_and_run, run_job
from neuroada.command_line.overrides import refuse_unreadable, with_home
from neuroada.config.composition_errors import in_one_line
from neuroada.config.errors import UserError, reported_in_one_line
from neuroada.runs.stop_signals import interruptible

_RAISE = "HYDRA_FULL_ERROR"
"""With this set to 1 in the environment, Hydra raises what it would print."""


def main() -> None:
    """Run what is typed; mistakes end the program with one message and exit status 2, Ctrl-C with 130."""
    with interruptible():
        _main(with_home(sys.argv[1:]))


def _main(words: list[str]) -> None:
    if "--version" in words:
        _say([f"neuroada {neuroada.__version__} (Hydra {hydra.__version__})"])
        return
    typed = _parser().parse_args(words)
    asked = [*typed.explain, *(_keys(typed.overrides) if typed.help else [])]
    overrides = [word for word in typed.overrides if word not in asked]
    with reported_in_one_line():
        refuse_unreadable(overrides)
        if asked:
            with _as_raised_by_hydra():
                _say(lines_about(asked, composed(overrides, typed.config_dir)))
            return
        sys.argv[1:] = words
        with _as_raised_by_hydra(), _with_comments(typed.cfg):
            compose_and_run()


def _parser() -> argparse.ArgumentParser:
    parser = get_args_parser()
    parser.add_argument("--explain", metavar="KEY", action="append", default=[], help="Say what a group or key is")
    return parser


def _keys(overrides: Sequence[str]) -> list[str]:
    """``--help model`` asks about the group."""
    return [word for word in overrides if "=" not in word and not word.startswith("~")]


def _say(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


@contextmanager
def _as_raised_by_hydra() -> Iterator[None]:
    """Turn what Hydra refuses to compose into a UserError; what the job itself raises passes."""
    before = os.environ.get(_RAISE)
    os.environ[_RAISE] = "1"
    try:
        yield
    except (HydraException, OmegaConfBaseException, OverflowError) as error:
        if before == "1" or _is_raised_by_the_job(error):
            raise
        raise in_one_line(error, composed) from error
    except OSError as error:  # before the job, Hydra only makes folders
        if before == "1" or _is_raised_by_the_job(error):
            raise
        raise UserError(
            f"{error.filename}: cannot be written ({error.strerror}); use another hydra.run.dir or hydra.sweep.dir"
        ) from error
    finally:
        os.environ.pop(_RAISE)
        if before is not None:
            os.environ[_RAISE] = before


def _is_raised_by_the_job(error: Exception) -> bool:
    return any(frame.f_code is run_job.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


@contextmanager
def _with_comments(shown: str | None) -> Iterator[None]:
    """Add the schema's texts to what ``--cfg job`` prints."""
    if shown not in ("job", "all"):
        yield
        return
    with redirect_stdout(io.StringIO()) as printed:
        yield
    sys.stdout.write(commented(printed.getvalue()))
