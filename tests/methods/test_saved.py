"""Saved adapters: opened by what their files are, refused where they are damaged or belong to another base."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.jobs.sizing import size
from neuroada.methods.saved import open_saved
from neuroada.sparse.errors import AdapterError

from ..tiny_runs import MakeRun, save_llama

CPU = torch.device("cpu")
PEFT = ("lora", "rslora", "dora", "pissa", "ia3", "shira", "supertuning", "miss", "vera", "road", "oft")
KINDS = ("neuroada", "masked", "lora", "layernorm", "head")
"""A method of each kind of files."""
Save = Callable[[str], Path]


@pytest.fixture
def save(compose_method: MakeRun, tmp_path: Path) -> Save:
    """Trains a method for a step and saves it; returns the folder."""

    def saved(method: str) -> Path:
        run = size(compose_method(f"method={method}"))
        model = loading.load_model(run.run.model, CPU)
        trained = run.sized.attach(model)
        train(model, list(trained.parameters()))
        trained.save(tmp_path / method)
        torch.save(logits(model), tmp_path / f"{method}.pt")
        return tmp_path / method

    return saved


def train(model: PreTrainedModel, parameters: list[torch.nn.Parameter]) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        model(tokens(), labels=tokens()).loss.backward()
        optimizer.step()


def tokens() -> torch.Tensor:
    return torch.arange(2, 50).view(2, 24)


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model.eval()(tokens()).logits


def change_header(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("method", PEFT)
def test_peft_alone_opens_what_its_methods_saved(method: str, save: Save, backbone: Path) -> None:
    folder = save(method)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(backbone), str(folder))
    torch.testing.assert_close(logits(model), torch.load(f"{folder}.pt"), rtol=0, atol=1e-4 if method == "pissa" else 0)


@pytest.mark.slow_after(4)
@pytest.mark.parametrize("umask", [0o022, 0o027])
@pytest.mark.parametrize("method", [*KINDS, "pissa"])
def test_files_have_the_permissions_of_new_ones(method: str, umask: int, save: Save) -> None:
    before = os.umask(umask)
    try:
        folder = save(method)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes["adapter_model.safetensors"] == 0o666 & ~umask
    assert set(modes.values()) == {0o666 & ~umask}


@pytest.mark.parametrize("method", KINDS)
def test_cut_off_tensors_are_refused(method: str, save: Save) -> None:
    folder = save(method)
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert_refused(lambda: open_saved(folder), "damaged")


@pytest.mark.parametrize("method", KINDS)
def test_missing_tensors_are_refused(method: str, save: Save) -> None:
    folder = save(method)
    (folder / "adapter_model.safetensors").unlink()
    assert_refused(lambda: open_saved(folder), "adapter_model.safetensors")


@pytest.mark.slow_after(4)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("method", [*KINDS, "full", "shira"])
def test_values_that_are_not_finite_are_refused(method: str, value: float, save: Save) -> None:
    folder = save(method)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name, part in tensors.items() if part.is_floating_point())
    tensors[name].view(-1)[-1] = value
    save_file(tensors, path, metadata={"format": "pt"})
    assert_refused(lambda: open_saved(folder), f"{path}: NaN or infinite values in {name.removesuffix('.values')}")


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("method", ["neuroada", "masked", "lora", "dora", "ia3", "vera", "layernorm", "full"])
def test_an_adapter_that_lacks_tensors_is_refused(method: str, save: Save, backbone: Path) -> None:
    folder = save(method)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    layer = sorted(tensors)[0].rpartition(".")[0]
    kept = {name: part for name, part in tensors.items() if not name.startswith(layer)}
    assert 0 < len(kept) < len(tensors)
    save_file(kept, path, metadata={"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(backbone)
    assert_left_alone(model, lambda: open_saved(folder).attach(model))


@pytest.mark.parametrize("method", ["masked", "lora", "layernorm"])
def test_an_adapter_with_other_tensors_is_refused(method: str, save: Save, backbone: Path) -> None:
    folder = save(method)
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), "another": torch.ones(2)}, path, metadata={"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(backbone)
    assert_left_alone(model, lambda: open_saved(folder).attach(model))


def test_weights_that_peft_stored_beside_an_adapter_come_off_with_it(save: Save, backbone: Path) -> None:
    folder = save("lora")
    path = folder / "adapter_model.safetensors"
    model = AutoModelForCausalLM.from_pretrained(backbone)
    before, norm = logits(model), model.model.norm.weight.detach().clone()
    beside = {"base_model.model.model.norm.weight": norm + 1}
    save_file({**load_file(path), **beside}, path, metadata={"format": "pt"})
    trained = open_saved(folder).attach(model)
    assert torch.equal(model.model.norm.weight, norm + 1)
    trained.detach()
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("odd", [-1, 64, 2**31 - 1])
def test_masked_columns_out_of_range_are_refused(odd: int, save: Save, backbone: Path) -> None:
    folder = save("masked")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    columns = next(part for name, part in tensors.items() if name.endswith(".columns"))
    columns[0, 0 if odd < 0 else -1] = odd
    save_file(tensors, path)
    model = AutoModelForCausalLM.from_pretrained(backbone)
    assert_left_alone(model, lambda: open_saved(folder).attach(model))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is damaged"), ("[]", "its content should be a valid dictionary"), ("{}", "lacks the field 'peft_type'")],
)
def test_a_damaged_header_is_refused(content: str, message: str, save: Save) -> None:
    folder = save("lora")
    (folder / "adapter_config.json").write_text(content)
    assert_refused(lambda: open_saved(folder), message)


def test_no_module_that_an_adapter_names_is_imported(
    save: Save, backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save("lora")
    (tmp_path / "strangers_module.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w').close()")
    monkeypatch.syspath_prepend(tmp_path)
    change_header(folder, megatron_config={"any": 1}, megatron_core="strangers_module")
    model = AutoModelForCausalLM.from_pretrained(backbone)
    assert_refused(lambda: open_saved(folder).attach(model), "names a module to import")
    assert not (tmp_path / "proof").exists()


def test_a_type_that_peft_does_not_know_is_refused(save: Save, backbone: Path) -> None:
    folder = save("lora")
    change_header(folder, peft_type="MAGIC")
    model = AutoModelForCausalLM.from_pretrained(backbone)
    before = logits(model)
    assert_refused(lambda: open_saved(folder).attach(model), "the MAGIC adapter cannot be put on this base")
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("method", ["neuroada", "masked", "layernorm", "head"])
def test_another_base_of_the_same_shapes_is_refused(method: str, save: Save, tmp_path: Path) -> None:
    folder = save(method)
    save_llama(tmp_path / "other", seed=1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "other")
    if method == "layernorm":  # ones in every new model
        model.model.norm.weight.data.mul_(2)
    assert_left_alone(model, lambda: open_saved(folder).attach(model))


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("method", ["neuroada", "masked", "layernorm", "lora", "dora", "shira"])
def test_a_base_of_other_layers_is_refused(method: str, save: Save, backbone: Path) -> None:
    folder = save(method)
    config = LlamaConfig.from_pretrained(backbone, num_hidden_layers=1)
    model = LlamaForCausalLM(config)
    assert_left_alone(model, lambda: open_saved(folder).attach(model))


@pytest.mark.slow_after(4)
@pytest.mark.parametrize("method", ["neuroada", "masked", "layernorm", "lora", "ia3", "full"])
def test_a_base_of_other_widths_is_refused(method: str, save: Save, backbone: Path) -> None:
    folder = save(method)
    config = LlamaConfig.from_pretrained(backbone, hidden_size=32, head_dim=16, intermediate_size=64)
    model = LlamaForCausalLM(config)
    assert_left_alone(model, lambda: open_saved(folder).attach(model))


def assert_left_alone(model: PreTrainedModel, attach: Callable[[], object]) -> None:
    """Refused, and the model is as it was."""
    before, kinds = logits(model), [type(module) for module in model.modules()]
    flags = [part.requires_grad for part in model.parameters()]
    assert_refused(attach, ".")
    assert [type(module) for module in model.modules()] == kinds
    assert torch.equal(logits(model), before)
    assert [part.requires_grad for part in model.parameters()] == flags


def assert_refused(action: Callable[[], object], message: str) -> None:
    with pytest.raises((UserError, AdapterError), match=message) as refused:
        action()
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_the_trained_biases_of_a_peft_adapter_come_off_with_it(bias: str, tmp_path: Path) -> None:
    """peft's ``unload`` leaves them in the base, so the next adapter of one backbone would be scored with them."""

    def base() -> LlamaForCausalLM:
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        return LlamaForCausalLM(LlamaConfig(vocab_size=64, attention_bias=True, **sizes))

    wrapped = get_peft_model(base(), LoraConfig(r=2, bias=bias, target_modules=["q_proj", "v_proj"]))
    train(wrapped, [part for part in wrapped.parameters() if part.requires_grad])
    wrapped.save_pretrained(tmp_path)
    model = base()
    before = {name: part.clone() for name, part in model.state_dict().items()}
    for _ in range(2):
        trained = open_saved(tmp_path).attach(model)
        assert logits(model).equal(logits(wrapped))
        trained.detach()
        assert all(part.equal(before[name]) for name, part in model.state_dict().items())
