"""Compose, check or really run a documented command in a folder, with short settings."""

import os
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from neuroada.config.check import check
from neuroada.config.schema import RunConfig
from neuroada.runs.registration import register, without_hydra
from neuroada.runs.settling import settle

from ..kept_logging import keep_logging
from .documented import ROOT

CONF = ROOT / "conf"
RUN = ROOT / "run.py"
SECONDS = 570
OFFLINE = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
MULTIRUN = ("-m", "--multirun")
SHORT = ("trainer.max_steps=1", "evaluation.limit=2", "evaluation.max_new_tokens=4", "evaluation.forgetting=null")
"""Makes a run on the bundled model take a second."""
SHORT_BY_JOB = {
    "budget": ("data.batch_size=1", "data.micro_batch_size=1", "job.device_memory_gib=1000"),
    "benchmark": (
        *("benchmark.repeats=1", "benchmark.batch_size=1", "benchmark.length=8", "benchmark.num_steps=1"),
        *("benchmark.top_k=[1]", "evaluation.limit=2"),
    ),
    "merge": (*SHORT, "resume=never"),  # pages merge the same run more than once
    "generate": ("generate.prompt=Hello", "evaluation.max_new_tokens=4"),
    "gpu_check": ("gpu_check.parts=[machine,layer_timing]", "gpu_check.layer_methods=[]"),
}
_OTHER_NAMES = {
    "job.device_memory_gib": ("job.device",),
    "generate.prompt": ("generate.prompt", "generate.file"),
}
_OWN_LENGTH = ("resume=", "job=compare", "job=contamination", "job=rescore")
"""A command with one of these takes no short settings: it repeats or reads what an earlier run has set."""


def composed(arguments: Sequence[str], folder: Path) -> list[RunConfig]:
    """The checked runs of a command; of a sweep typed by hand, those of the first and the last values of its lists.

    Args:
        arguments: Its arguments, with real values for its placeholders.
        folder: The working folder.
    """
    overrides = _overrides(arguments)
    if "job=benchmark" in overrides and not any(word.startswith("benchmark.methods=") for word in overrides):
        overrides.append("benchmark.methods=[neuroada]")  # composing all of them takes seconds
    if "job=gpu_check" in overrides:
        overrides += ["gpu_check.model_methods=[]", "gpu_check.layer_methods=[]"]
    register()
    with chdir(folder), initialize_config_dir(str(CONF), version_base="1.3"):
        runs = []
        for point in _points(overrides) if is_sweep(arguments) else [overrides]:
            config = compose("config", point, return_hydra_config=True)
            runs.append(check(settle(without_hydra(config), [word for word in point if "hydra." not in word])))
        return runs


def failure_of(arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> str | None:
    """Run ``run.py`` in this process; returns what it ends with if it fails, a message or an exit code."""
    with chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(RUN), *arguments])
        for name, value in {**OFFLINE, **(environment or {})}.items():
            patch.setenv(name, value)
        for path in (environment or {}).get("PYTHONPATH", "").split(os.pathsep):
            patch.syspath_prepend(str(folder / path))
        keep_logging(patch)
        try:
            runpy.run_path(str(RUN), run_name="__main__")
        except SystemExit as end:
            return str(end.__cause__ or end.code) if end.code else None
    return None


def failure_apart(words: Sequence[str], folder: Path) -> str | None:
    """Run ``python -m`` in a process of its own; returns what it printed if it fails."""
    finished = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=folder,
        env={**os.environ, **OFFLINE, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return finished.stdout + finished.stderr if finished.returncode else None


def shortened(arguments: Sequence[str]) -> list[str]:
    """The arguments with settings that make the run short; of each list of a sweep, the first two values."""
    if any(word.startswith(_OWN_LENGTH) for word in arguments):
        return list(arguments)
    job = next((word.removeprefix("job=") for word in arguments if word.startswith("job=")), "finetune")
    words = [*map(_two_values, [*arguments, *_lists_of_files(arguments)])] if is_sweep(arguments) else arguments
    return [*words, *(short for short in SHORT_BY_JOB.get(job, SHORT) if not _is_given(short, arguments))]


def _is_given(short: str, arguments: Sequence[str]) -> bool:
    """Whether a command has a value of its own for what a short setting sets, under any of its names."""
    names = _OTHER_NAMES.get(short.partition("=")[0], ())
    return any(word.partition("=")[0] in names for word in arguments)


def _lists_of_files(arguments: Sequence[str]) -> list[str]:
    """The lists that a file of ``conf/sweep`` sets and the command line does not, as if they were typed."""
    files = [CONF / "sweep" / f"{word.removeprefix('sweep=')}.yaml" for word in arguments if word.startswith("sweep=")]
    lists = [yaml.safe_load(file.read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"] for file in files]
    given = {word.partition("=")[0] for word in arguments}
    return [f"{key}={value}" for params in lists for key, value in params.items() if key not in given]


def _two_values(word: str) -> str:
    key, equals, value = word.partition("=")
    return f"{key}={','.join(value.split(',')[:2])}" if equals and value[:1] not in "[{'\"" else word


def _overrides(arguments: Sequence[str]) -> list[str]:
    """What Hydra composes: the flags of the command line as overrides."""
    overrides, words = [], iter(arguments)
    for word in words:
        if word in MULTIRUN:
            continue
        if word in ("--config-dir", "-cd"):
            overrides.append(f"hydra.searchpath=[file://{next(words)}]")
        else:
            overrides.append(word)
    return overrides


def is_sweep(arguments: Sequence[str]) -> bool:
    """Whether the command starts many runs."""
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
