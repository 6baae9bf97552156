"""The kernels for packed rows, whatever arguments a version takes: as attention of each example alone.

The kernels themselves need a GPU; here stand-ins with their arguments compute example by example.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModelForCausalLM

from neuroada.backbones import packed_attention, varlen_attention
from neuroada.backbones.loading import load_model
from neuroada.backbones.packed_attention import attend_by_example
from neuroada.backbones.varlen_attention import Kernel, from_flash_attn, from_torch, kernel_for
from neuroada.config.schema import ModelConfig
from neuroada.data.encoding import Encoded
from neuroada.data.packing import collate_packed
from neuroada.training.loss import SummedLoss

LENGTHS = [3, 1, 7]
HEADS, KEY_HEADS, HEAD_SIZE = 4, 2, 8


def by_example(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, scale: float | None) -> Tensor:
    """(T, H, D); grouped queries are taken."""
    parts = []
    for start, end in zip(ends.tolist()[:-1], ends.tolist()[1:], strict=True):
        states = [part[start:end].transpose(0, 1) for part in (query, key, value)]
        grouped = query.shape[1] != key.shape[1]
        parts.append(scaled_dot_product_attention(*states, is_causal=True, scale=scale, enable_gqa=grouped))
    return torch.cat([part.transpose(0, 1) for part in parts])


def require_every_head(query: Tensor, key: Tensor) -> None:
    assert query.shape[1] == key.shape[1], "this version takes no grouped queries"


def as_in_2_10(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, is_causal: bool = False
) -> Tensor:
    require_every_head(q, k)
    assert is_causal
    assert max_q == max_k == max(LENGTHS)
    return by_example(q, k, v, cu_q, None)


def with_scale(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    require_every_head(q, k)
    assert is_causal
    return by_example(q, k, v, cu_q, scale)


def as_in_2_13(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    assert window_size == (-1, 0)
    assert enable_gqa
    assert cu_q.dtype == cu_k.dtype == torch.int32
    return by_example(q, k, v, cu_q, scale)


def flash_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    max_q: int,
    max_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    assert causal
    assert dropout_p == 0
    return by_example(q, k, v, cu_q, softmax_scale)


def without_mask(q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int) -> Tensor:
    raise AssertionError("would see later tokens")


KERNELS: dict[str, Kernel | None] = {
    "torch 2.10": from_torch(as_in_2_10),
    "with a scale": from_torch(with_scale),
    "torch 2.13": from_torch(as_in_2_13),
    "flash-attn": from_flash_attn(flash_attn),
}


@pytest.mark.parametrize("scale", [HEAD_SIZE**-0.5, 0.2])
@pytest.mark.parametrize("name", KERNELS)
def test_every_version_computes_each_example_alone(name: str, scale: float) -> None:
    kernel = KERNELS[name]
    assert kernel is not None
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(sum(LENGTHS), HEADS, HEAD_SIZE, generator=generator)
    key, value = torch.randn(2, sum(LENGTHS), KEY_HEADS, HEAD_SIZE, generator=generator)
    wanted = by_example(query, key, value, torch.tensor([0, *LENGTHS]).cumsum(0), scale)
    torch.testing.assert_close(kernel(query, key, value, LENGTHS, scale), wanted, rtol=1e-5, atol=1e-5)


def test_a_version_that_cannot_mask_later_tokens_is_not_used() -> None:
    assert from_torch(without_mask) is None


def test_the_version_installed_here_can_be_used() -> None:
    assert "torch" in dict(varlen_attention.installed_kernels())


def test_on_a_cpu_and_in_full_precision_there_is_no_kernel() -> None:
    assert kernel_for(torch.zeros(1, 2, 3, 8)) is None
    assert kernel_for(torch.zeros(1, 2, 3, 8, dtype=torch.bfloat16)) is None


@pytest.mark.parametrize("name", ["torch 2.13", "flash-attn"])
def test_a_packed_step_is_the_same_with_a_kernel(name: str, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [Encoded.after(list(range(5 + number, 12 + 3 * number)), 2) for number in range(4)]

    def step(find: Callable[[Tensor], Kernel | None]) -> tuple[float, Tensor]:
        monkeypatch.setattr(packed_attention, "kernel_for", find)
        model = AutoModelForCausalLM.from_pretrained(backbone)
        assert attend_by_example(model)
        loss, _ = SummedLoss(model)(collate_packed(examples, 1))
        loss.backward()
        return loss.item(), model.get_decoder().layers[0].self_attn.q_proj.weight.grad

    def counted(*states: Any) -> Tensor:
        calls.append(states[3])
        kernel = KERNELS[name]
        assert kernel is not None
        return kernel(*states)

    calls: list[list[int]] = []
    (loss, gradient), (alone, wanted) = step(lambda query: counted), step(lambda query: None)
    assert calls[-1] == [len(example.input_ids) for example in examples]
    assert math.isclose(loss, alone, rel_tol=1e-6)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)


def test_a_loaded_backbone_never_waits_for_a_plan_of_cudnn(backbone: Path) -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    load_model(ModelConfig(name_or_path=str(backbone), name="tiny"), torch.device("cpu"))
    assert not torch.backends.cuda.cudnn_sdp_enabled()
