"""The LightningModule: the loss it minimises, the mode it trains in, what its checkpoints hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from transformers import BloomConfig, BloomForCausalLM, PreTrainedTokenizerFast

from neuroada.config.errors import UserError
from neuroada.config.schema import RunConfig
from neuroada.jobs.preparation import Preparation, prepare
from neuroada.jobs.sizing import size
from neuroada.sparse.layer import BypassedLinear
from neuroada.training.module import FineTuningModule

MakeRun = Callable[..., RunConfig]


def build(run: RunConfig, folder: Path) -> tuple[Preparation, FineTuningModule]:
    sized = size(run)
    preparation = prepare(sized, folder)
    model = preparation.load_model()
    return preparation, preparation.build_module(model, sized.sized.attach(model))


def trained_values(run: RunConfig, folder: Path, *callbacks: Callback) -> list[torch.Tensor]:
    lightning.seed_everything(run.seed, verbose=False)
    preparation, module = build(run, folder)
    preparation.trainer.callbacks.extend(callbacks)  # type: ignore[attr-defined]
    preparation.trainer.fit(module, datamodule=preparation.data)
    return [values.detach().clone() for values in module.trained.parameters()]


class Watch(Callback):
    """Records the state at each micro-batch."""

    def __init__(self) -> None:
        self.modes: list[bool] = []
        self.gradients: list[bool] = []

    def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        self.modes.append(all(part.training for part in module.modules()))

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self.gradients.append(all(values.grad is not None for values in module.trained.parameters()))


def test_adapted_logits_equal_the_base_before_the_first_step(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    _, adapted = build(run, tmp_path / "a")
    _, base = build(make_run("method=none"), tmp_path / "b")
    ids = torch.arange(20).view(2, 10)
    assert torch.equal(adapted.model(ids).logits, base.model(ids).logits)


def test_everything_is_in_training_mode_and_every_value_gets_a_gradient(make_run: MakeRun, tmp_path: Path) -> None:
    watch = Watch()
    trained_values(make_run("trainer.max_steps=2"), tmp_path, watch)
    assert watch.modes
    assert all(watch.modes)
    assert all(watch.gradients)


def test_gradient_checkpointing_changes_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    watch = Watch()
    plain = trained_values(make_run("trainer.max_steps=3"), tmp_path)
    again = trained_values(make_run("trainer.max_steps=3", "model.gradient_checkpointing=true"), tmp_path, watch)
    assert all(watch.gradients)
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_micro_batch_size_changes_nothing(make_run: MakeRun, tmp_path: Path, micro_batch_size: int) -> None:
    values = trained_values(make_run(), tmp_path)
    other = trained_values(make_run(f"data.micro_batch_size={micro_batch_size}"), tmp_path)
    # One ulp in a gradient near zero is a visible step under Adam's normalisation.
    for one, two in zip(values, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=2e-4)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("batching", ["packed", "grouped"])
def test_batching_changes_nothing(make_run: MakeRun, tmp_path: Path, batching: str) -> None:
    values = trained_values(make_run("data.batching=padded"), tmp_path)
    other = trained_values(make_run(f"data.batching={batching}"), tmp_path)
    for one, two in zip(values, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=2e-4)


BUNDLED = (
    "model.name_or_path=bundled",
    "model.name=bundled",
    "task.train=[bundled_choice,bundled_arithmetic]",
    "task.benchmarks=[bundled_choice]",
    "data.batch_size=16",
    "data.micro_batch_size=16",
    "trainer.max_steps=25",
    "optimizer.lr=1.5e-2",
)


@pytest.mark.slow
def test_bundled_model_ends_with_the_same_adapter_packed_and_padded(make_run: MakeRun, tmp_path: Path) -> None:
    packed = torch.cat(trained_values(make_run(*BUNDLED, "data.batching=packed"), tmp_path))
    padded = torch.cat(trained_values(make_run(*BUNDLED, "data.batching=padded"), tmp_path))
    assert packed.std() > 0.01  # it has learnt
    torch.testing.assert_close(packed, padded, rtol=1e-3, atol=1e-3)


def test_backbone_that_mixes_packed_examples_is_refused_before_the_first_step(
    make_run: MakeRun, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    folder = tmp_path / "bloom"
    config = BloomConfig(vocab_size=420, hidden_size=64, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=1)
    BloomForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    bloom = [f"model.name_or_path={folder}", "model.target_modules=[query_key_value]", "trainer.max_steps=2"]
    with pytest.raises(UserError, match=r"data\.batching=packed: BloomForCausalLM .* use data\.batching=grouped"):
        trained_values(make_run(*bloom, "data.batching=packed"), tmp_path)
    assert any(values.any() for values in trained_values(make_run(*bloom, "data.batching=grouped"), tmp_path))


def test_micro_batch_reduction_weighs_short_answers_more(make_run: MakeRun, tmp_path: Path) -> None:
    step = trained_values(make_run("task.loss_on=all", "trainer.max_steps=2"), tmp_path)
    micro = trained_values(
        make_run("task.loss_on=all", "trainer.max_steps=2", "task.loss_reduction=micro_batch"), tmp_path
    )
    assert any(not torch.allclose(one, two, atol=1e-6) for one, two in zip(step, micro, strict=True))


@pytest.mark.parametrize(
    "optimizer",
    [
        ("optimizer._target_=transformers.Adafactor", "optimizer.lr=null"),
        ("optimizer._target_=torch.optim.Rprop", "~optimizer.weight_decay"),
    ],
)
def test_an_optimizer_without_these_rates_trains(make_run: MakeRun, tmp_path: Path, optimizer: tuple[str, ...]) -> None:
    keys = ("~optimizer.betas", "~optimizer.eps", "trainer.max_steps=2")
    assert any(values.any() for values in trained_values(make_run(*optimizer, *keys), tmp_path))


def test_state_dict_is_the_adapter_alone(make_run: MakeRun, tmp_path: Path) -> None:
    _, module = build(make_run(), tmp_path)
    keys = set(module.state_dict())
    layers = {name for name, part in module.model.named_modules() if isinstance(part, BypassedLinear)}
    assert layers
    assert keys == {f"model.{name}.bypass.{part}" for name in layers for part in PARTS}


PARTS = ("values", "columns", "original")


def test_loading_a_checkpoint_rewrites_the_effective_weights(make_run: MakeRun, tmp_path: Path) -> None:
    _, module = build(make_run(), tmp_path)
    state = {key: value.clone() for key, value in module.state_dict().items()}
    for key in state:
        if key.endswith("values"):
            state[key] += 1.0
    before = module.model(torch.arange(10)[None]).logits
    module.load_state_dict(state)
    assert not torch.equal(module.model(torch.arange(10)[None]).logits, before)


def test_checkpoint_without_values_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    _, module = build(make_run(), tmp_path)
    state = module.state_dict()
    state.pop(next(key for key in state if key.endswith("values")))
    with pytest.raises(UserError, match=r"1 tensors are missing.*resume=never"):
        module.load_state_dict(state)


def test_foreign_keys_in_a_checkpoint_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    _, module = build(make_run(), tmp_path)
    with pytest.raises(UserError, match=r"1 unknown \(first: stranger\)"):
        module.load_state_dict({**module.state_dict(), "model.stranger": torch.zeros(1)})
