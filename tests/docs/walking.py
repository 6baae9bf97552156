"""Compose, check or really run a documented command in a folder, with short settings."""

import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from neuroada.config.check import check
from neuroada.config.schema import RunConfig
from neuroada.runs.registration import register, without_hydra
from neuroada.runs.settling import settle

from .documented import ROOT, Command

CONF = ROOT / "conf"
RUN = ROOT / "run.py"
SECONDS = 570
MULTIRUN = ("-m", "--multirun")
SHORT = ("trainer.max_steps=1", "evaluation.limit=2", "evaluation.max_new_tokens=4", "evaluation.forgetting=null")
"""Makes a run on the bundled model take a second."""
SHORT_BY_JOB = {
    "budget": ("data.batch_size=1", "data.micro_batch_size=1", "job.device_memory_gib=1000"),
    "benchmark": (
        *("benchmark.repeats=1", "benchmark.batch_size=1", "benchmark.length=8", "benchmark.num_steps=1"),
        *("benchmark.top_k=[1]", "evaluation.limit=2"),
    ),
}
_OWN_LENGTH = ("resume=", "job=compare", "job=contamination", "job=rescore")
"""A command with one of these takes no short settings: it repeats or reads what an earlier run has set."""


def composed(arguments: Sequence[str], folder: Path) -> list[RunConfig]:
    """The checked runs of a command; of a sweep typed by hand, those of the first and the last values of its lists.

    Args:
        arguments: Its arguments, with real values for its placeholders.
        folder: The working folder.
    """
    overrides, is_sweep = _overrides(arguments)
    if "job=benchmark" in overrides and not any(word.startswith("benchmark.methods=") for word in overrides):
        overrides.append("benchmark.methods=[neuroada]")  # composing all of them takes seconds
    register()
    with chdir(folder), initialize_config_dir(str(CONF), version_base="1.3"):
        runs = []
        for point in _points(overrides) if is_sweep else [overrides]:
            config = compose("config", point, return_hydra_config=True)
            runs.append(check(settle(without_hydra(config), [word for word in point if "hydra." not in word])))
        return runs


def failure_of(arguments: Sequence[str], folder: Path) -> str | int | None:
    """Run ``run.py`` in this process; returns what it ends with if it fails, a message or an exit code."""
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(RUN), *arguments])
        patch.setenv("HF_HUB_OFFLINE", "1")
        try:
            runpy.run_path(str(RUN), run_name="__main__")
        except SystemExit as end:
            return end.code or None
    return None


def run_apart(command: Command, arguments: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process of its own, with this interpreter and this checkout."""
    program = [str(RUN)] if command.words[0] != "python" or command.words[1] == "run.py" else command.words[1:3]
    variables: Mapping[str, str] = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "120",
        "WANDB_MODE": "offline",
        **command.environment,
    }
    paths = [variables.get("PYTHONPATH", ""), str(ROOT)]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env={**variables, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def shortened(arguments: Sequence[str]) -> list[str]:
    """The arguments with settings that make the run short; of each list of a sweep, the first two values."""
    if any(word.startswith(_OWN_LENGTH) for word in arguments):
        return list(arguments)
    job = next((word.removeprefix("job=") for word in arguments if word.startswith("job=")), "finetune")
    is_sweep = _is_sweep(arguments)
    return [*(_two_values(word) if is_sweep else word for word in arguments), *SHORT_BY_JOB.get(job, SHORT)]


def _two_values(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key}={','.join(value.split(',')[:2])}" if equals and value[:1] not in "[{'\"" else word


def _overrides(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """What Hydra composes: the flags of the command line as overrides, and whether it is a sweep."""
    overrides, words = [], iter(arguments)
    for word in words:
        if word in MULTIRUN:
            continue
        if word in ("--config-dir", "-cd"):
            overrides.append(f"hydra.searchpath=[file://{next(words)}]")
        else:
            overrides.append(word)
    return overrides, _is_sweep(arguments)


def _is_sweep(arguments: Sequence[str]) -> bool:
    return any(word in MULTIRUN or word.startswith("sweep=") for word in arguments)


def _points(overrides: Sequence[str]) -> list[list[str]]:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_choice_sweep()
        else [one.input_line or ""]
        for one in parsed
    ]
    return [[values[place] for values in choices] for place in (0, -1)]
