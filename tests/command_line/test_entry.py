"""The command as it is typed: in this process, up to where a run would begin."""

import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import neuroada

from ..kept_logging import keep_logging
from ..quick_compose import CONF
from ..tiny_runs import ROOT

Say = Callable[..., str]
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")


def console_script() -> None:
    """What an installed ``neuroada`` runs."""
    target = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]["neuroada"]
    module, _, name = target.partition(":")
    getattr(import_module(module), name)()


def run_py() -> None:
    runpy.run_path(str(ROOT / "run.py"), run_name="__main__")


def package() -> None:
    runpy.run_module("neuroada", run_name="__main__")


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """What the command prints, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    keep_logging(monkeypatch)

    def said(words: str, start: Callable[[], None] = console_script) -> str:
        monkeypatch.setattr(sys, "argv", ["neuroada", *shlex.split(words)])
        try:
            start()
        except SystemExit as ending:
            if ending.code not in (0, None):
                raise
        return capsys.readouterr().out

    return said


def an_option(group: str) -> str:
    """An option of a group that is not the default."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())["defaults"]
    chosen = {key: value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()}
    options = sorted(
        path.relative_to(CONF / group).with_suffix("").as_posix() for path in (CONF / group).rglob("*.yaml")
    )
    return next((option for option in options if option != chosen.get(group)), options[0])


@pytest.mark.parametrize(
    "group",
    [group if group in ("job", "method", "task") else pytest.param(group, marks=pytest.mark.slow) for group in GROUPS],
)
def test_run_py_and_the_command_compose_the_same(say: Say, group: str) -> None:
    words = f"--cfg job {group}={an_option(group)}"
    shown = say(words)
    assert yaml.safe_load(shown)["seed"] == 42
    assert say(words, run_py) == shown


def test_the_package_can_be_run(say: Say) -> None:
    assert say("--version", package) == say("--version", run_py) == say("--version")


def test_the_version_is_ours(say: Say) -> None:
    assert say("--version").startswith(f"neuroada {neuroada.__version__} (Hydra ")


@pytest.mark.slow_after(6)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("epochs=3", "epochs: no such key; did you mean trainer.max_epochs?"),
        ("lr=1", "lr: no such key; did you mean optimizer.lr or method.learning_rate"),
        ("k=5", "k: no such key; did you mean budget.top_k"),
        ("batch_size=8", "batch_size: no such key; did you mean data.batch_size"),
        ("data.batchsize=8", "data.batchsize: no such key; did you mean data.batch_size?"),
        ("zzz=1", "zzz: no such key; --help lists the groups"),
        ("~seeed", "~seeed: no such key; did you mean seed?"),
        ("+seed=3", "+seed=3: seed is set already; leave out the plus: seed=3"),
        ("seed=abc", "seed=abc: Value 'abc' of type 'str' could not be converted to Integer; neuroada --explain seed"),
        ("budget=7", "budget=7: there is no such option; valid: top1"),
        ("job=finetun", "job=finetun: there is no such option; did you mean finetune?"),
        ("model=meta-llama/x", "model=meta-llama/x: there is no such option; valid: bundled"),
        (
            "optimizer=sgd",
            "optimizer=sgd: there is no such option; valid: adamw (or optimizer._target_=torch.optim.SGD)",
        ),
        ("logger.wandb.project=x", "logger.wandb.project: no such key here; logger=wandb has it"),
        (
            "trainer.max_epoch=3",
            "trainer.max_epoch: lightning.Trainer has no such argument; did you mean trainer.max_ep",
        ),
        (
            "trainer.limit_train_batches=3",
            "trainer.limit_train_batches: lightning.Trainer takes it, but it is not set yet; "
            "+trainer.limit_train_batches=3 adds it",
        ),
        (
            "evaluation.generation.top_p=0.9",
            "evaluation.generation.top_p: is not set yet; +evaluation.generation.top_p",
        ),
        ("hydra.run.dir='${nowhere}'", "hydra.run.dir: Interpolation key 'nowhere' not found"),
        ("adapter='a (1)'", "adapter=a (1): Hydra's grammar does not take this value"),
        ("model", "model: give key=value"),
        (
            f"adapter={'[' * 500}{']' * 500}",
            "adapter=[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[...: is nested more than 20 times",
        ),
        (f"task.learning_rates.lora={'9' * 400}", "task.learning_rates.lora: int too large to convert to float"),
        ("--explain evaluation.decodin", "evaluation.decodin: no such key; did you mean evaluation.decoding?"),
        ("--cfg job epochs=3", "epochs: no such key; did you mean trainer.max_epochs?"),
    ],
)
def test_a_mistake_is_one_line(say: Say, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        say(words)
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.startswith(f"neuroada: {message}")
    assert len(said.splitlines()) == 1


def test_hydra_s_own_traces_can_be_asked_for(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.errors import ConfigCompositionException

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigCompositionException):
        say("epochs=3")


def test_printed_configurations_have_comments_and_the_same_values(say: Say) -> None:
    shown = say("--cfg job budget=top5")
    assert "  # Trained inputs per neuron, for methods with such a size; more than a layer has means all of" in shown
    assert "  # Stop training once this number of epochs is reached" in shown
    assert yaml.safe_load(shown)["budget"]["top_k"] == 5
    part = say("--cfg job --package evaluation")
    assert part.startswith("# @package evaluation\n")
    assert "# Items per benchmark, a fixed seeded sample; null means all.\nlimit: null\n" in part


@pytest.mark.slow
def test_help_names_the_flags_that_are_ours(say: Say) -> None:
    shown = say("--help")
    assert "python run.py --explain budget.top_k" in shown
    assert 'eval "$(python run.py -sc install=bash)"' in shown
    assert "experiment/llama_7b: commonsense_top1" in shown


def test_help_about_a_group_lists_its_options(say: Say) -> None:
    shown = say("--help model")
    assert shown == say("--explain model")
    assert "  llama_7b      LLaMA 7B.\n" in shown
    assert "  model.dtype=auto  # Precision of the backbone" in shown


def test_overrides_are_seen_by_explanations(say: Say) -> None:
    assert "  now: 5\n" in say("--explain budget.top_k budget=top5")


def test_an_interrupt_before_the_job_starts_leaves_no_trace(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("neuroada.command_line.entry.compose_and_run", interrupted)
    with pytest.raises(SystemExit) as ending:
        say("seed=1")
    assert ending.value.code == 130
    assert ending.value.__suppress_context__


def test_a_run_folder_that_cannot_be_made_is_one_line(
    say: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit) as ending:
        say(f"hydra.run.dir={tmp_path}/file/run")
    assert ending.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith(f"neuroada: {tmp_path}/file")
    assert "cannot be written (Not a directory); use another hydra.run.dir" in message
