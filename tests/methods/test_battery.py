"""What every method promises, whichever it is: one row of ``rows.py`` each."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.quantizations import package_of
from neuroada.config.schema import RunConfig
from neuroada.costs.memory import plan
from neuroada.jobs.evaluate import evaluate
from neuroada.jobs.finetune import finetune
from neuroada.jobs.preparation import prepare
from neuroada.jobs.sizing import SizedRun, size
from neuroada.methods.contract import Calibration, Trained
from neuroada.methods.saved import open_saved
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.frozen_layers import stop_repacking
from neuroada.sparse.linear_layers import is_quantised, stored_tensors

from ..tiny_runs import MakeRun, StopAt
from .rows import ROWS, Row

CPU = torch.device("cpu")
FROZEN = {"llama": "model.embed_tokens.weight", "gpt2": "transformer.wte.weight"}
"""A parameter of each backbone that does not require a gradient before a method is attached."""

KINDS = {"llama": "model.target_modules=[q_proj,down_proj]", "gpt2": "model.target_modules=[c_attn,c_fc]"}
"""Two kinds of layers of each backbone."""


@dataclass(frozen=True)
class Subject:
    """A method, sized for the tiny backbone, and what is known of the backbone without it."""

    row: Row
    run: RunConfig
    sized: SizedRun
    base: PreTrainedModel
    tokens_BT: Tensor
    calibration: Calibration

    def load(self) -> PreTrainedModel:
        """A new backbone."""
        model = loading.load_model(self.run.model, CPU)
        model.get_parameter(FROZEN[self.row.backbone]).requires_grad_(False)
        return model

    def attach(self, seed: int = 0) -> tuple[PreTrainedModel, Trained]:
        model = self.load()
        torch.manual_seed(seed)
        return model, self.sized.sized.attach(model, self.calibration)

    def train(self, seed: int = 0) -> tuple[PreTrainedModel, Trained]:
        model, trained = self.attach(seed)
        self.take_steps(model, trained)
        return model, trained

    def take_steps(self, model: PreTrainedModel, trained: Trained) -> None:
        optimizer = torch.optim.AdamW(list(trained.parameters()), lr=0.01, weight_decay=0.0)
        for _ in range(3):
            optimizer.zero_grad()
            model(self.tokens_BT, labels=self.tokens_BT).loss.backward()
            optimizer.step()

    @torch.no_grad()
    def logits(self, model: PreTrainedModel) -> Tensor:
        """(B, T, vocabulary)."""
        stop_repacking(model)  # a plain backbone's 4-bit weights would be written here
        logits_BTV: Tensor = model.eval()(self.tokens_BT).logits
        return logits_BTV


@dataclass(frozen=True)
class Study:
    """A trained method: to be read, not changed.

    Attributes:
        before: Every tensor of the model after the method was attached.
        first_logits: Those of that moment.
    """

    model: PreTrainedModel
    trained: Trained
    before: dict[str, Tensor]
    first_logits: Tensor


@pytest.fixture(
    scope="module",
    params=[pytest.param(row, marks=pytest.mark.slow) if row.is_slow else row for row in ROWS],
    ids=[row.id for row in ROWS],
)
def subject(
    request: pytest.FixtureRequest, compose_method: MakeRun, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    if request.param.is_absent:
        pytest.skip(f"{package_of(request.param.quantized)} is not installed")
    run = compose_method(*request.param.composed_with(), *backbone_of(request.param, request))
    sized = size(run)
    calibration = prepare(sized, tmp_path_factory.mktemp("runs")).calibration()
    tokens_BT = torch.randint(2, 420, (2, 24), generator=torch.Generator().manual_seed(0))
    return Subject(request.param, run, sized, loading.load_model(run.model, CPU), tokens_BT, calibration)


@pytest.fixture(scope="module")
def study(subject: Subject) -> Study:
    model, trained = subject.attach()
    before = {name: tensor.detach().clone() for name, tensor in tensors_of(model)}
    first_logits = subject.logits(model)
    subject.take_steps(model, trained)
    return Study(model, trained, before, first_logits)


@pytest.fixture(scope="module")
def straight(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted run with a checkpoint after each step."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    finetune(with_checkpoints(subject.run), folder)
    return folder


def backbone_of(row: Row, request: pytest.FixtureRequest) -> list[str]:
    """The overrides that select a row's backbone, if it is another than that of ``compose_method``."""
    return [] if row.backbone == "llama" else [f"model.name_or_path={request.getfixturevalue(row.backbone)}"]


def with_checkpoints(run: RunConfig) -> RunConfig:
    often = {**run.callbacks["checkpoint"], "every_n_train_steps": 1}
    return dataclasses.replace(run, callbacks={**run.callbacks, "checkpoint": often})


def tensors_of(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers; of a quantised weight, the tensors that it consists of."""
    quantised = {name: module for name, module in model.named_modules() if is_quantised(module)}
    for name, part in model.named_parameters():
        if name.removesuffix(".weight") not in quantised:
            yield name, part
    for name, module in quantised.items():
        yield from ((f"{name}.{key}", part) for key, part in stored_tensors(module).items())
    yield from model.named_buffers()


def assert_near(found: Tensor, expected: Tensor, share: float) -> None:
    """Equal to a share of the largest; bit for bit if that is 0."""
    if share == 0:
        assert torch.equal(found, expected)
    else:
        assert (found - expected).abs().max() <= share * expected.abs().max()


@pytest.mark.slow_after(4)
def test_attaching_leaves_the_logits_as_they_were(subject: Subject, study: Study) -> None:
    if subject.row.starts_within is None:
        pytest.skip("not promised")
    assert_near(study.first_logits, subject.logits(subject.base), subject.row.starts_within)


def test_training_moves_the_logits(subject: Subject, study: Study) -> None:
    assert (subject.logits(study.model) - study.first_logits).abs().max() > 1e-2


def test_nothing_changes_but_what_is_declared(subject: Subject, study: Study) -> None:
    declared = {id(parameter) for parameter in study.trained.parameters()}
    entries = subject.row.changes_per_row
    targets = {f"{name}.weight" for name in subject.sized.sized.budget.layers} if entries else set()
    for name, tensor in tensors_of(study.model):
        changed = tensor.detach() != study.before[name]
        if name in targets:
            changed = changed.T if subject.row.backbone == "gpt2" else changed  # Conv1D has its neurons in columns
            assert changed.sum(1).max() <= entries, name
            assert changed.any(), name
        elif id(tensor) in declared:
            assert changed.any(), name
        else:
            assert not changed.any(), name


def test_everything_that_trains_gets_a_gradient(study: Study) -> None:
    parameters = list(study.trained.parameters())
    assert parameters
    assert all(parameter.requires_grad for parameter in parameters)
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in parameters)


def test_nothing_else_asks_for_a_gradient(study: Study) -> None:
    declared = {id(parameter) for parameter in study.trained.parameters()}
    assert [
        name for name, part in study.model.named_parameters() if part.requires_grad and id(part) not in declared
    ] == []


def test_the_budget_is_what_trains(subject: Subject, study: Study) -> None:
    budget = subject.sized.sized.budget
    parameters = list(study.trained.parameters())
    if subject.row.trains_entries:
        counted = sum(int((part.grad != 0).sum()) for part in parameters if part.grad is not None)
    else:
        counted = sum(part.numel() for part in parameters)
    assert budget.trainable == counted == sum(budget.layers.values())
    assert budget.total == loading.load_skeleton(subject.run.model).num_parameters()


@pytest.mark.slow_after(8)
def test_a_state_put_on_a_fresh_backbone_gives_the_same_logits(subject: Subject, study: Study) -> None:
    model, trained = subject.attach(seed=1)
    trained.load_state({name: tensor.detach().clone() for name, tensor in study.trained.state().items()})
    assert torch.equal(subject.logits(model), subject.logits(study.model))


@pytest.mark.parametrize("foreign", ["a tensor less", "a tensor more", "another shape"])
def test_a_foreign_state_is_refused_and_changes_nothing(subject: Subject, study: Study, foreign: str) -> None:
    state = {name: tensor.detach().clone() + 1 for name, tensor in study.trained.state().items()}
    last = list(state)[-1]
    if foreign == "a tensor less":
        del state[last]
    elif foreign == "a tensor more":
        state["stranger"] = torch.zeros(1)
    else:
        state[last] = state[last].flatten()[:-1]
    logits = subject.logits(study.model)
    with pytest.raises(UserError, match=r"does not belong to this adapter.*resume=never"):
        study.trained.load_state(state)
    assert torch.equal(subject.logits(study.model), logits)


@pytest.mark.slow_after(8)
def test_what_is_saved_opens_on_a_fresh_backbone(subject: Subject, study: Study, tmp_path: Path) -> None:
    logits = subject.logits(study.model)
    study.trained.save(tmp_path / "adapter")
    assert torch.equal(subject.logits(study.model), logits)
    model = subject.load()
    open_saved(tmp_path / "adapter").attach(model)
    assert_near(subject.logits(model), logits, subject.row.reopens_within)


def test_what_is_saved_comes_off_again(subject: Subject, study: Study, tmp_path: Path) -> None:
    study.trained.save(tmp_path / "adapter")
    model = subject.load()
    open_saved(tmp_path / "adapter").attach(model).detach()
    assert_is_the_base(model, subject)


def test_what_is_saved_counts_as_what_trained(subject: Subject, study: Study, tmp_path: Path) -> None:
    study.trained.save(tmp_path / "adapter")
    skeleton = loading.load_skeleton(subject.run.model)
    found, trained = open_saved(tmp_path / "adapter").budget(skeleton), subject.sized.sized.budget
    assert found.trainable == subject.row.stores_ranks * trained.trainable
    assert found.total == trained.total


@pytest.mark.slow_after(8)
def test_merging_leaves_a_plain_model_with_the_same_logits(subject: Subject, tmp_path: Path) -> None:
    model, trained = subject.train()
    logits = subject.logits(model)
    if subject.row.quantized:
        with pytest.raises(AdapterError, match="the base is quantised"):
            trained.merge()
        assert torch.equal(subject.logits(model), logits)
        return
    trained.merge()
    assert_near(subject.logits(model), logits, subject.row.merges_within)
    assert_is_plain(model, subject)
    merged = subject.logits(model)
    model.save_pretrained(tmp_path / "merged")
    assert torch.equal(subject.logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), merged)


def test_the_changes_on_the_base_are_the_merged_weights_and_reading_them_changes_nothing(subject: Subject) -> None:
    model, trained = subject.train()
    logits = subject.logits(model)
    changes = list(trained.changes())
    assert torch.equal(subject.logits(model), logits)
    if subject.row.quantized:
        assert [change.name.removesuffix(".weight") for change in changes] == list(subject.sized.sized.budget.layers)
        return
    trained.merge()
    merged = {name: part.detach() for name, part in model.named_parameters()}
    for change in changes:
        is_transposed = isinstance(model.get_submodule(change.name.rpartition(".")[0]), Conv1D)
        weight = merged[change.name].T if is_transposed else merged[change.name]
        assert change.delta.shape == change.base.shape == weight.shape
        torch.testing.assert_close(change.base + change.delta, weight, rtol=0, atol=1e-5)
    base = dict(subject.base.named_parameters(remove_duplicate=False))
    assert {name for name, part in merged.items() if not torch.equal(part, base[name])} <= {
        change.name for change in changes
    }


def test_detaching_gives_the_base_back_bit_for_bit(subject: Subject) -> None:
    model, trained = subject.train()
    trained.detach()
    assert_is_the_base(model, subject)


def assert_is_plain(model: PreTrainedModel, subject: Subject) -> None:
    """The modules of the base, its flags, and no hooks."""
    assert [(name, type(part)) for name, part in model.named_modules()] == [
        (name, type(part)) for name, part in subject.base.named_modules()
    ]
    # A head with a weight of its own is not among a tied base's parameters.
    expected = {name: part.requires_grad for name, part in subject.load().named_parameters()}
    flags = {name: part.requires_grad for name, part in model.named_parameters()}
    assert {name: flags[name] for name in expected} == expected
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert not any(part._backward_hooks for part in model.parameters())


def assert_is_the_base(model: PreTrainedModel, subject: Subject) -> None:
    assert_is_plain(model, subject)
    assert model.state_dict().keys() == subject.base.state_dict().keys()
    state, expected = dict(tensors_of(model)), dict(tensors_of(subject.base))
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.tie_word_embeddings
    assert torch.equal(subject.logits(model), subject.logits(subject.base))


@pytest.mark.slow_after(3)
def test_a_checkpoint_holds_what_trains_and_no_backbone(subject: Subject, straight: Path) -> None:
    checkpoint = torch.load(straight / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert checkpoint
    if subject.row.holds_backbone:
        return
    base = subject.base.state_dict()
    trained = (
        {f"model.{name}" for name in subject.sized.sized.budget.layers} if not subject.row.trains_entries else set()
    )
    most = subject.row.holds_per_value * subject.sized.sized.budget.trainable
    whole = [key for key in checkpoint.keys() - trained if key.removeprefix("model.") in base]
    assert whole == []
    assert sum(tensor.numel() for tensor in checkpoint.values()) <= most


@pytest.mark.slow_after(2)
def test_an_interrupted_run_ends_as_if_it_never_stopped(
    subject: Subject, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroada.training.callbacks.watch.StopAt", StopAt, raising=False)
    run = with_checkpoints(subject.run)
    stop = {"_target_": "neuroada.training.callbacks.watch.StopAt", "step": 2}
    with pytest.raises(RuntimeError, match="crash"):
        finetune(dataclasses.replace(run, callbacks={**run.callbacks, "watch": stop}), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    finetune(run, tmp_path / "run")
    expected, resumed = adapter_of(straight), adapter_of(tmp_path / "run")
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[key], tensor) for key, tensor in expected.items())
    assert metrics_of(tmp_path / "run") == metrics_of(straight)


@pytest.mark.slow_after(3)
def test_evaluating_a_run_gives_its_own_metrics(
    subject: Subject, straight: Path, tmp_path: Path, compose_method: MakeRun, request: pytest.FixtureRequest
) -> None:
    same = backbone_of(subject.row, request)
    evaluate(compose_method("job=evaluate", f"adapter={straight}", *same), tmp_path / "evaluation")
    assert metrics_of(tmp_path / "evaluation") == metrics_of(straight)


def adapter_of(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(folder / "adapter" / "adapter_model.safetensors")
    return tensors


def metrics_of(folder: Path) -> dict[str, object]:
    metrics: dict[str, object] = json.loads((folder / "metrics.json").read_text())
    return metrics


def test_a_wrong_setting_is_one_clear_line(
    subject: Subject, compose_method: MakeRun, request: pytest.FixtureRequest
) -> None:
    with pytest.raises((UserError, AdapterError)) as refused:
        size(compose_method(*subject.row.composed_with(), *backbone_of(subject.row, request), subject.row.wrong))
    setting = subject.row.wrong.removeprefix("+").partition("=")[0]
    lines = str(refused.value).removeprefix("config rejected:\n  - ").splitlines()
    assert len(lines) == 1
    assert setting.rpartition(".")[2] in lines[0] or f"method={subject.row.name}" in lines[0]


@pytest.mark.parametrize(
    "subject",
    [
        row if row.id in ("neuroada", "lora", "full", "masked") else pytest.param(row, marks=pytest.mark.slow)
        for row in ROWS
    ],
    indirect=True,
    ids=lambda row: row.id,
)
def test_the_memory_of_a_step_can_be_planned(
    subject: Subject, compose_method: MakeRun, request: pytest.FixtureRequest
) -> None:
    # Two kinds of layers instead of seven: planning is slow per operator.
    run = compose_method(*subject.row.composed_with(), KINDS[subject.row.backbone], *backbone_of(subject.row, request))
    sized = size(run)
    planned = plan(sized.run, sized.sized, "cpu")
    assert planned.total > planned.weights
    optimizer_state = 2 * 4 * sized.sized.budget.trainable
    assert planned.trained >= optimizer_state
