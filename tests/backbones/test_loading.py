"""Backbones: precision, identity, architectures without weights, and names that cannot be loaded."""

from pathlib import Path

import pytest
import torch

from neuroada.backbones import loading
from neuroada.config.errors import UserError
from neuroada.config.schema import ModelConfig

from ..tiny_runs import save_llama

CPU = torch.device("cpu")


def config(name: object, **options: object) -> ModelConfig:
    return ModelConfig(name="m", name_or_path=str(name), target_modules="all-linear", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.bfloat16),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float32", "cuda", torch.float32),
    ],
)
def test_dtype_alone_decides_the_precision(dtype: str, device: str, expected: torch.dtype) -> None:
    assert loading.resolve_dtype(dtype, device) == expected


@pytest.mark.parametrize("precision", ["medium", "highest"])
def test_products_of_float32_matrices_are_as_precise_as_configured(backbone: Path, precision: str) -> None:
    loading.load_model(config(backbone, float32_matmul_precision=precision), CPU)
    assert torch.get_float32_matmul_precision() == precision


def test_model_is_loaded_in_its_dtype(backbone: Path) -> None:
    model = loading.load_model(config(backbone, dtype="bfloat16"), CPU)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_model_goes_by_the_name_it_was_asked_for(backbone: Path) -> None:
    assert loading.load_model(config(backbone), CPU).name_or_path == str(backbone)


def test_content_hash_follows_the_weights(backbone: Path, tmp_path: Path) -> None:
    save_llama(tmp_path / "same", seed=0)
    save_llama(tmp_path / "other", seed=1)
    same, other = (loading.content_hash(config(tmp_path / name)) for name in ("same", "other"))
    save_llama(tmp_path / "again", seed=0)
    assert loading.content_hash(config(tmp_path / "again")) == same != other


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("yahma/llama-7b-hf", 6_738_415_616),
        ("yahma/llama-13b-hf", 13_015_864_320),
        ("meta-llama/Llama-2-7b-hf", 6_738_415_616),
        ("meta-llama/Meta-Llama-3-8B", 8_030_261_248),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", 134_515_008),
    ],
)
def test_known_architectures_need_no_hub(name: str, num_parameters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    skeleton = loading.load_skeleton(config(name))
    assert sum(parameter.numel() for parameter in skeleton.parameters()) == num_parameters
    assert all(parameter.is_meta for parameter in skeleton.parameters())


@pytest.mark.parametrize("load", [loading.load_tokenizer, loading.load_skeleton, loading.content_hash])
def test_name_that_cannot_be_loaded_is_one_line(load: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.name_or_path=.*nothing: cannot be loaded") as caught:
        load(config(tmp_path / "nothing"))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_one_line(backbone: Path, tmp_path: Path) -> None:
    for file in backbone.iterdir():
        content = file.read_bytes()
        (tmp_path / file.name).write_bytes(content[:1000] if file.suffix == ".safetensors" else content)
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        loading.load_model(config(tmp_path), CPU)
    assert "\n" not in str(caught.value)


def test_liger_kernels_are_refused_off_the_gpu(backbone: Path) -> None:
    with pytest.raises(UserError, match=r"model\.liger_kernel=true: its kernels need a GPU, but the run is on cpu"):
        loading.load_model(config(backbone, liger_kernel=True), CPU)


def test_liger_kernels_are_for_the_device_that_computes(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sharded backbone is read on the CPU. What the kernels compute, only a GPU can show."""
    applied: list[str] = []
    monkeypatch.setattr(loading, "apply_liger_kernel", lambda model, _: applied.append(type(model).__name__))
    loading.load_model(config(backbone, liger_kernel=True), CPU, computes_on=torch.device("cuda"))
    assert applied == ["LlamaForCausalLM"]


def test_weights_go_to_a_gpu_tensor_by_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 3)
    assert loading._streamed(gpu, {}) == {"device_map": {"": gpu}}
    assert loading._streamed(CPU, {}) == loading._streamed(gpu, {"gguf_file": "m.gguf"}) == {}
    monkeypatch.setattr(loading, "is_accelerate_available", lambda: False)
    assert loading._streamed(gpu, {}) == {}


def test_weights_that_are_streamed_are_the_same(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loading.load_model(config(backbone, dtype="bfloat16"), CPU)
    monkeypatch.setattr(loading, "_streamed", lambda *_: {"device_map": {"": CPU}})
    streamed = loading.load_model(config(backbone, dtype="bfloat16"), CPU)
    for (name, one), (same, other) in zip(whole.state_dict().items(), streamed.state_dict().items(), strict=True):
        assert name == same
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
    ids = torch.arange(6)[None]
    assert torch.equal(whole(ids).logits, streamed(ids).logits)  # of the buffers, too


def test_liger_kernels_without_the_package_name_the_extra(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.integrations.liger.is_liger_kernel_available", lambda: False)
    model = loading.load_model(config(backbone), CPU)
    with pytest.raises(UserError, match=r"pip install 'neuroada\[liger\]'"):
        loading.use_liger_kernels(model, torch.device("cuda"))
