"""All mistakes in a configuration are reported at once, each with its key, its value, the rule and the fix."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from neuroada.config.check import check, typed
from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig

Checked = Callable[..., RunConfig]
Composed = Callable[..., DictConfig]


def mistakes_of(checked: Checked, *overrides: str) -> list[str]:
    """The lines of a rejection, without its heading."""
    with pytest.raises(UserError) as caught:
        checked(*overrides)
    heading, *lines = str(caught.value).splitlines()
    assert heading == "config rejected:"
    assert all(line.startswith("  - ") for line in lines)
    return [line.removeprefix("  - ") for line in lines]


@pytest.mark.slow_after(20)
@pytest.mark.parametrize(
    ("override", "message"),
    [
        # Keys that Hydra accepts with a plus although they are not in the schema.
        ("+typo=1", "typo: no such key; valid: adapter, "),
        ("+optimiser=1", "optimiser: no such key; did you mean optimizer?"),
        ("+budget.kk=3", "budget.kk: no such key; valid: by_depth, match, percent"),
        ("+data.batchsize=3", "data.batchsize: no such key; did you mean batch_size?"),
        # Keywords that a class does not accept, or that are missing.
        ("+optimizer.lrr=1", "optimizer.lrr: torch.optim.AdamW has no such argument; did you mean lr?"),
        ("+trainer.max_epoch=3", "trainer.max_epoch: lightning.Trainer has no such argument; did you mean max_epochs?"),
        ("+method.selektion=x", "method.selektion: neuroada.methods.neuroada.NeuroAda has no such argument"),
        (
            "~trainer._target_",
            "trainer._target_: has no value; choose with trainer=..., or give a class by its full name",
        ),
        (
            "+callbacks.progress_bar.rate=1",
            "callbacks.progress_bar.rate: neuroada.training.callbacks.progress.progress has no such argument; "
            "valid: refresh_rate",
        ),
        (
            "+data.protocols.mine=math",
            "data.protocols.mine=math: give the keys of a protocol, or a _target_",
        ),
        (
            "+data.protocols.mine={_target_: neuroada.tasks.judges.Leter}",
            "data.protocols.mine._target_=neuroada.tasks.judges.Leter: module 'neuroada.tasks.judges' has no attribute "
            "'Leter'; did you mean Letter?",
        ),
        (
            "+data.protocols.mine={_target_: neuroada.tasks.judges.Letter, shots: 3}",
            "data.protocols.mine.shots: neuroada.tasks.judges.Letter has no such argument; valid: none",
        ),
        (
            "protocol.judge={_target_: neuroada.tasks.text_overlap.token_f2}",
            "protocol.judge._target_=neuroada.tasks.text_overlap.token_f2: module 'neuroada.tasks.text_overlap' has no",
        ),
        (
            "protocol.judge={_target_: neuroada.tasks.text_overlap.token_f1, beta: 2}",
            "protocol.judge.beta: neuroada.tasks.text_overlap.token_f1 has no such argument",
        ),
        # Names that do not exist.
        (
            "optimizer._target_=torch.optim.AdamWW",
            "optimizer._target_=torch.optim.AdamWW: module 'torch.optim' has no attribute 'AdamWW'; "
            "did you mean AdamW?",
        ),
        (
            "optimizer._target_=nowhere.AdamW",
            "optimizer._target_=nowhere.AdamW: No module named 'nowhere'; install it, or give another class",
        ),
        ("optimizer._target_=torch.optim", "optimizer._target_=torch.optim: "),
        ("optimizer._target_=''", "optimizer._target_=: Empty module name; give a class or function by its full name"),
        ("job.function=neuroada.jobs.budget.budgt", "job.function=neuroada.jobs.budget.budgt: "),
        # Values of optimizers.
        ("optimizer.lr=fast", "optimizer.lr=fast: must be a number above 0"),
        ("optimizer.lr=-1", "optimizer.lr=-1: must be a number above 0"),
        ("optimizer.lr=0", "optimizer.lr=0: must be a number above 0"),
        ("optimizer.lr=nan", "optimizer.lr=nan: must be a number"),
        ("optimizer.lr=1e39", "optimizer.lr=1e+39: must be at most 1e+38"),
        ("optimizer.betas=[0.9]", "optimizer: "),
        ("+callbacks.x=5", "callbacks.x=5: give a class"),
        ("job.function=os.getcwd", "job.function=os.getcwd: is no job"),
        ("trainer.gradient_clip_val=nan", "trainer.gradient_clip_val=nan: must be a number"),
        ("optimizer.lr=true", "optimizer.lr=True: must be a number above 0"),
        ("optimizer.lr=null", "optimizer.lr=null: must be a number above 0"),
        ("optimizer.weight_decay=null", "optimizer.weight_decay=null: must be a number of at least 0"),
        ("optimizer.weight_decay=-0.1", "optimizer.weight_decay=-0.1: must be a number of at least 0"),
        ("optimizer.betas=[2,3]", "optimizer: Invalid beta parameter at index 0: 2"),
        # Trainer keywords that are set elsewhere.
        (
            "trainer.precision=bf16-true",
            "trainer.precision=bf16-true: the precision of the backbone is set by model.dtype alone (the values stay "
            "in float32); use model.dtype=bfloat16 and leave trainer.precision at 32-true",
        ),
        (
            "+trainer.accumulate_grad_batches=2",
            "trainer.accumulate_grad_batches=2: cannot be set here; it follows from data.batch_size, "
            "data.micro_batch_size and trainer.devices",
        ),
        ("+trainer.limit_test_batches=2", "trainer.limit_test_batches=2: cannot be set here; use evaluation.limit"),
        (
            "+trainer.overfit_batches=4",
            "trainer.overfit_batches=4: cannot be set here; train on few rows with rows in an entry of task.train",
        ),
        ("trainer.use_distributed_sampler=true", "trainer.use_distributed_sampler: must be false"),
        ("trainer.max_epochs=-1", "trainer.max_epochs=-1: training would never end; set it or trainer.max_steps"),
        ("trainer.max_epochs=null", "trainer.max_epochs=null: training would never end"),
        ("trainer.max_epochs=many", "trainer.max_epochs=many: must be a whole number, or -1 for no limit"),
        ("trainer.max_steps=1.5", "trainer.max_steps=1.5: must be a whole number"),
        ("trainer.max_steps=-2", "trainer.max_steps=-2: must be a whole number"),
        # Rules of single values.
        ("budget.top_k=0", "budget.top_k=0: must be at least 1"),
        ("data.micro_batch_size=5", "data.batch_size=16: must be a multiple of data.micro_batch_size=5"),
        ("data.micro_batch_size=0", "data.micro_batch_size=0: must be at least 1"),
        ("data.split=train", "data.split=train: choose one of test, validation"),
        ("model.dtype=float16", "model.dtype=float16: choose one of auto, float32, bfloat16"),
        ("model.target_modules=[]", "model.target_modules=[]: give a list of module names, one regular expression"),
        ("model.target_modules=5", "model.target_modules=5: give a list of module names"),
        ("model.name=a/b", "model.name=a/b: use letters, digits"),
        ("task.name=..", "task.name=..: use letters, digits"),
        ("task.loss_on=prompt", "task.loss_on=prompt: choose one of completion, all"),
        ("task.loss_reduction=mean", "task.loss_reduction=mean: choose one of step, micro_batch"),
        ("scheduler.name=step", "scheduler.name=step: choose one of linear, cosine, constant_with_warmup"),
        ("scheduler.warmup_ratio=1.5", "scheduler.warmup_ratio=1.5: must lie in [0, 1]"),
        ("task.benchmarks=[]", "task.benchmarks=[]: give at least one"),
        ("evaluation.benchmarks=[]", "evaluation.benchmarks=[]: give at least one, or null for those of the task"),
        ("task.train=[]", "task.train=[]: give at least one training set, or use job=evaluate"),
        ("evaluation.limit=0", "evaluation.limit=0: must be at least 1"),
        ("seed=-1", "seed=-1: must lie in [0, 2**32)"),
        # What belongs to one job.
        ("job=merge", "adapter: job=merge needs one; give adapter=<run folder or adapter folder>"),
        # Values left out, and references to nothing.
        ("~optimizer", "optimizer: has no value; give one with optimizer=..."),
        ("~budget", "budget: has no value; give one with budget=..."),
        ("budget.top_k=???", "budget.top_k: has no value; give one with budget.top_k=..."),
        ("model.name_or_path=${nowhere}", "model.name_or_path: Interpolation key 'nowhere' not found"),
        ("data.dir=${oc.env:NO_SUCH_VARIABLE}", "data.dir: KeyError raised while resolving"),
    ],
)
def test_a_mistake_is_one_line(checked: Checked, override: str, message: str) -> None:
    lines = mistakes_of(checked, override)
    assert len(lines) == 1
    assert lines[0].startswith(message)


STOP = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: %s}"
MEASURES = ("validation=held_out", "validation.accuracy_rows=4")


@pytest.mark.slow_after(5)
@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            [STOP % "val/loss"],
            "callbacks.stop.monitor=val/loss: is never measured, because validation.every_n_steps is null; set it, "
            "or use one of: train/loss",
        ),
        (
            ["validation=held_out", "+callbacks.checkpoint.monitor=val/accuracy"],
            "callbacks.checkpoint.monitor=val/accuracy: is never measured, because validation.accuracy_rows is null; "
            "set it, or use one of: train/loss, val/loss",
        ),
        (
            ["validation=held_out", STOP % "val_loss"],
            "callbacks.stop.monitor=val_loss: training logs no such metric; did you mean val/loss? use one of: "
            "train/loss, val/loss",
        ),
        (
            [*MEASURES, STOP % "f1"],
            "callbacks.stop.monitor=f1: training logs no such metric; use one of: train/loss, val/loss, val/accuracy",
        ),
        (
            ["callbacks.checkpoint.filename='{step}-{val_loss:.2f}'"],
            "callbacks.checkpoint.filename=val_loss: training logs no such metric; did you mean val/loss? use one "
            "of: train/loss",
        ),
        (
            ["logger=none", STOP % "lr-AdamW"],
            "callbacks.stop.monitor=lr-AdamW: training logs no such metric; use one of: train/loss",
        ),
        (
            ["validation=held_out", STOP % "'val/loss', check_on_train_epoch_end: true"],
            "callbacks.stop.check_on_train_epoch_end=true: val/loss is measured every validation.every_n_steps steps, "
            "not at the end of an epoch; leave it out",
        ),
        (
            [STOP % "train/loss, check_on_train_epoch_end: false"],
            "callbacks.stop.check_on_train_epoch_end=false: it would wait for a measurement on held-out rows, and "
            "there is none; leave it out, or set validation.every_n_steps",
        ),
        (
            ["callbacks.checkpoint.every_n_train_steps=null", "+callbacks.checkpoint.every_n_epochs=1"],
            "callbacks.checkpoint.save_on_train_epoch_end=false: it would wait for a measurement on held-out rows, "
            "and there is none; set it to true, or set callbacks.checkpoint.every_n_train_steps or "
            "validation.every_n_steps",
        ),
    ],
)
def test_a_callback_that_would_wait_in_vain(checked: Checked, overrides: list[str], line: str) -> None:
    assert mistakes_of(checked, *overrides) == [line]


@pytest.mark.parametrize(
    "overrides",
    [
        [STOP % "train/loss"],
        [STOP % "lr-AdamW"],
        ["validation=held_out", STOP % "val/loss"],
        [*MEASURES, STOP % "val/accuracy, mode: max, check_on_train_epoch_end: true"],
        ["+callbacks.checkpoint.monitor=step", "+callbacks.checkpoint.mode=max"],
        ["validation=held_out", "callbacks.checkpoint.filename='{epoch}-{step}-{val/loss:.3f}'"],
        # A callback of one's own may log what it likes.
        ["+callbacks.own._target_=tests.tiny_runs.StopAt", "+callbacks.own.step=1", STOP % "mine"],
        ["job=evaluate", STOP % "val/loss"],
    ],
)
def test_a_callback_that_gets_what_it_monitors(checked: Checked, overrides: list[str]) -> None:
    checked(*overrides)


@pytest.mark.parametrize(
    ("overrides", "absent"),
    [
        (
            ("optimizer._target_=torch.optim.Rprop", "~optimizer.weight_decay", "~optimizer.betas", "~optimizer.eps"),
            "weight_decay",
        ),
        (
            ("optimizer._target_=transformers.Adafactor", "optimizer.lr=null", "~optimizer.betas", "~optimizer.eps"),
            "lr",
        ),
        (("~optimizer.lr",), "lr"),
    ],
)
def test_rates_are_judged_where_the_optimizer_takes_them(
    checked: Checked, overrides: tuple[str, ...], absent: str
) -> None:
    assert checked(*overrides).optimizer.get(absent) is None


OWN_CALLBACK = "+callbacks.own={_target_: lightning.pytorch.callbacks.%s}"


@pytest.mark.slow_after(4)
@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            OWN_CALLBACK % "EMAWeightAveraging",
            "callbacks.own._target_=lightning.pytorch.callbacks.EMAWeightAveraging: its averages are in no checkpoint; "
            "add callbacks.checkpoint=null",
        ),
        (
            "callbacks.checkpoint.dirpath=elsewhere",
            "callbacks.checkpoint.dirpath=elsewhere: a run goes on only from its own folder; use checkpoints",
        ),
        (
            "+callbacks.checkpoint.save_weights_only=true",
            "callbacks.checkpoint.save_weights_only=True: a run cannot go on from weights alone; leave it out",
        ),
        (
            OWN_CALLBACK % "LearningRateFinder",
            "callbacks.own._target_=lightning.pytorch.callbacks.LearningRateFinder: cannot be used here; set "
            "optimizer.lr, or compare several with a sweep",
        ),
        (
            OWN_CALLBACK % "BatchSizeFinder",
            "callbacks.own._target_=lightning.pytorch.callbacks.BatchSizeFinder: cannot be used here; leave "
            "data.micro_batch_size=null, which finds one",
        ),
        (
            OWN_CALLBACK % "GradientAccumulationScheduler, scheduling: {0: 2}",
            "callbacks.own._target_=lightning.pytorch.callbacks.GradientAccumulationScheduler: cannot be used here; a "
            "step has data.batch_size examples throughout; set that",
        ),
        (
            "callbacks.checkpoint.dirpath=null",
            "callbacks.checkpoint.dirpath=null: a run goes on only from its own folder; use checkpoints",
        ),
    ],
)
def test_a_callback_that_cannot_work_here(checked: Checked, override: str, line: str) -> None:
    assert mistakes_of(checked, override) == [line]


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (("callbacks.checkpoint.dirpath=./checkpoints/",), "checkpoint"),
        ((OWN_CALLBACK % "EMAWeightAveraging", "callbacks.checkpoint=null"), "own"),
        (("job=evaluate", "callbacks.checkpoint.dirpath=elsewhere"), "checkpoint"),
    ],
)
def test_a_callback_that_does_no_harm(checked: Checked, overrides: tuple[str, ...], name: str) -> None:
    assert name in checked(*overrides).callbacks


def test_mistakes_are_reported_together(checked: Checked) -> None:
    overrides = ["+typo=1", "optimizer.lr=fast", "budget.top_k=0", "+trainer.max_epoch=3", "data.micro_batch_size=5"]
    lines = mistakes_of(checked, *overrides)
    keys = ("typo", "optimizer.lr", "budget.top_k", "trainer.max_epoch", "data.batch_size")
    assert sorted(line.partition(":")[0].partition("=")[0] for line in lines) == sorted(keys)


def test_what_a_part_itself_lacks_is_said(checked: Checked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message does not say that the part is missing, which would be misleading."""
    (tmp_path / "my_optimizers.py").write_text("import a_package_that_is_not_installed\nclass Fast: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    (line,) = mistakes_of(checked, "optimizer._target_=my_optimizers.Fast")
    assert "No module named 'a_package_that_is_not_installed'" in line


@pytest.mark.parametrize("job", ["finetune", "budget"])
def test_an_adapter_for_a_job_that_reads_none(checked: Checked, store_adapter: Callable[..., object], job: str) -> None:
    (line,) = mistakes_of(checked, f"job={job}", f"adapter={store_adapter()}")
    assert line.endswith(f"job={job} takes no adapter; use job=evaluate or job=merge")


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("benchmark.scope=model", "benchmark.scope=model takes no adapter; use scope evaluation"),
        (
            "benchmark.scope=evaluation",
            "needs the base it was trained on; add benchmark.random_weights=false",
        ),
    ],
)
def test_an_adapter_for_a_benchmark_without_its_base(
    checked: Checked, store_adapter: Callable[..., object], override: str, message: str
) -> None:
    (line,) = mistakes_of(checked, "job=benchmark", override, f"adapter={store_adapter()}")
    assert line.endswith(message)


def test_a_sharded_model_has_one_adapter(
    checked: Checked, store_adapter: Callable[..., object], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    adapters = f"adapter=[{store_adapter()},{store_adapter(other)}]"
    (line,) = mistakes_of(checked, "job=evaluate", "trainer=fsdp", adapters)
    assert line == "adapter: a sharded model cannot switch adapters; give one at a time, or use trainer=ddp"


@pytest.mark.parametrize("key", ["task.benchmarks", "evaluation.benchmarks"])
def test_a_benchmark_that_is_listed_twice(checked: Checked, key: str) -> None:
    (line,) = mistakes_of(checked, f"{key}=[boolq,piqa,boolq]")
    assert line == f"{key}: boolq is listed twice; give each once"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("evaluation.decoding=continuous", "trainer=fsdp"), "cannot run on a sharded model; use"),
        (("evaluation.decoding=vllm",), "scores only saved checkpoints; use job=merge"),
        (("job=evaluate", "evaluation.decoding=vllm", "trainer.devices=2"), "runs in one process, not on"),
    ],
)
def test_engines_are_refused_where_they_cannot_run(checked: Checked, overrides: tuple[str, ...], message: str) -> None:
    (line,) = mistakes_of(checked, *overrides)
    assert line.startswith(f"{next(key for key in overrides if 'decoding' in key)}: {message}")


@pytest.mark.parametrize(
    "overrides", [("evaluation.decoding=continuous",), ("job=evaluate", "evaluation.decoding=vllm")]
)
def test_engines_are_free_to_run_elsewhere(checked: Checked, overrides: tuple[str, ...]) -> None:
    assert checked(*overrides).evaluation.decoding in overrides[-1]


def test_a_part_needs_all_its_arguments(checked: Checked) -> None:
    (line,) = mistakes_of(checked, "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping")
    target = "lightning.pytorch.callbacks.EarlyStopping"
    assert line == f"callbacks.stop.monitor: {target} needs this argument; add callbacks.stop.monitor=..."


def test_a_method_needs_a_name_and_a_label(checked: Checked) -> None:
    assert mistakes_of(checked, "~method.name") == ["method.name: has no value; reports name the method by it"]
    assert mistakes_of(checked, "~method.label") == ["method.label: has no value; it names the run folder"]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("method.label=../../x", "method.label=../../x: use letters, digits, '_', '-', '+' and '.'"),
        ("method.name=a/b", "method.name=a/b: use letters, digits, '_', '-', '+' and '.'"),
        ("job.name=..", "job.name=..: use letters, digits, '_', '-', '+' and '.'"),
        ("job.depends_on=[modle.dtype]", "job.depends_on: no group or key modle; did you mean model?"),
        ("job.but_not_on=[modle]", "job.but_not_on: no group or key modle; did you mean model?"),
        ("job.depends_on=???", "job.depends_on: has no value; give one with job.depends_on=..."),
        ("job.folder=same", "job.folder=same: has no {digest}, which distinguishes runs; add it"),
        ("job.folder='{model.nmae}-{digest}'", "model.nmae: has no value; it names the run folder"),
        (
            "job.folder='{model.name_or_path}-{digest}' model.name_or_path=a/b",
            "model.name_or_path=a/b: use letters, digits, '_', '-', '+' and '.'",
        ),
    ],
)
def test_what_names_a_run_folder_is_checked(checked: Checked, override: str, line: str) -> None:
    assert mistakes_of(checked, *override.split()) == [line]


def test_another_optimizer_brings_its_own_arguments(checked: Checked) -> None:
    lines = mistakes_of(checked, "optimizer._target_=torch.optim.SGD")
    assert [line.partition(":")[0] for line in lines] == ["optimizer.betas", "optimizer.eps"]
    sgd = ("optimizer._target_=torch.optim.SGD", "~optimizer.betas", "~optimizer.eps", "+optimizer.momentum=0.9")
    assert checked(*sgd).optimizer["momentum"] == 0.9


@pytest.mark.parametrize("override", ["callbacks.learning_rate=null", "~callbacks", "~logger", "trainer.precision=32"])
def test_parts_can_be_switched_off(checked: Checked, override: str) -> None:
    assert isinstance(checked(override), RunConfig)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": {"top_k": "many"}}, "budget.top_k=many: Value 'many' of type 'str' could not be converted to"),
        ({"seed": None}, "seed=null: "),
        ({"data": {"batch_size": [1]}}, "data.batch_size=[1]: "),
        ({"trainer": 5}, "trainer=5: "),
        ({"model": 5}, "model=5: "),
    ],
)
def test_values_that_met_no_schema_are_converted_or_refused(
    composed: Composed, change: dict[str, object], message: str
) -> None:
    """For example after a user has edited the ``config.yaml`` of a run folder."""
    plain = OmegaConf.create(OmegaConf.to_container(composed(), resolve=False))
    del plain["hydra"]
    for key, value in change.items():
        plain[key] = OmegaConf.merge(plain[key], value) if isinstance(value, dict) else value
    with pytest.raises(UserError) as caught:
        check(plain)
    assert any(line.startswith(f"  - {message}") for line in str(caught.value).splitlines())


def test_a_number_in_quotes_is_a_number(composed: Composed) -> None:
    plain = OmegaConf.create(OmegaConf.to_container(composed(), resolve=False))
    del plain["hydra"]
    plain.budget.top_k = "3"
    assert check(plain).budget.top_k == 3


def test_a_stored_run_is_typed_again(checked: Checked) -> None:
    run = checked("budget=top5")
    assert typed(dataclasses.asdict(run)) == run
    with pytest.raises(UserError, match="budget: has no value"):
        typed({key: value for key, value in dataclasses.asdict(run).items() if key != "budget"})
