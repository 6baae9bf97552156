"""A layer with a bypass: an ordinary linear layer on the effective weight, whose values get the selected gradients."""

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import neuroada
from neuroada.sparse import gradient
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.layer import BypassedLinear, bypass_linear, remove_bypass
from neuroada.sparse.selection import select_columns

WAYS = ["auto", "gemm", "sampled"]  # "triton" needs a GPU, or a process of its own: see test_gradient.py


def make_layer(
    in_features: int = 6,
    out_features: int = 4,
    top_k: int = 2,
    bias: bool = True,
    dtype: torch.dtype = torch.float32,
    gradient: str = "auto",
) -> BypassedLinear:
    layer = nn.Linear(in_features, out_features, bias=bias, dtype=dtype).requires_grad_(False)
    return bypass_linear(layer, select_columns(layer.weight, top_k, "magnitude"), gradient)


def keep_columns(layer: BypassedLinear) -> BypassedLinear:
    layer.bypass.keep_columns()
    return layer


def keep_input(layer: BypassedLinear) -> BypassedLinear:
    return layer


SAVED = [keep_input, keep_columns]


def set_values(layer: BypassedLinear, values: Tensor | float) -> None:
    with torch.no_grad():
        layer.values.copy_(torch.as_tensor(values))
    layer.sync()


def applied(layer: BypassedLinear) -> Tensor:
    """The selected entries of the weight."""
    return layer.weight.gather(1, layer.columns.long())


# What it computes


def test_the_weight_holds_the_base_plus_the_values() -> None:
    layer = make_layer()
    base, values = layer.weight.clone(), torch.randn(4, 2)
    set_values(layer, values)
    assert layer.weight.equal(base.scatter_add(1, layer.columns.long(), values))
    x = torch.randn(3, 6)
    assert layer(x).equal(F.linear(x, layer.weight, layer.bias))


def test_in_bf16_the_sum_is_made_in_fp32_and_rounded_once() -> None:
    layer = make_layer(dtype=torch.bfloat16)
    base, values = layer.weight.clone(), torch.randn(4, 2) * 1e-3
    set_values(layer, values)
    assert layer.values.dtype == torch.float32
    assert layer.weight.equal(base.float().scatter_add(1, layer.columns.long(), values).bfloat16())


def test_values_over_an_fp64_weight_are_fp64() -> None:
    assert make_layer(dtype=torch.float64).values.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_restore_gives_the_base_back_bit_for_bit_negative_zeros_included(dtype: torch.dtype) -> None:
    layer = nn.Linear(3, 2, dtype=dtype).requires_grad_(False)
    layer.weight[0] = torch.tensor([-0.0, 0.0, 1e-3])
    bits = layer.weight.clone().view(torch.uint8)
    bypassed = bypass_linear(layer, select_columns(layer.weight, 3, "magnitude"))
    set_values(bypassed, 7.5)
    bypassed.restore()
    assert bypassed.weight.view(torch.uint8).equal(bits)


def test_removing_the_bypass_leaves_the_plain_layer_it_was() -> None:
    plain = nn.Linear(6, 4).requires_grad_(False)
    attributes, keys = set(vars(plain)), list(plain.state_dict())
    layer = bypass_linear(plain, select_columns(plain.weight, 2, "magnitude"))
    layer.load_state_dict(layer.state_dict())
    assert remove_bypass(layer) is plain
    assert type(plain) is nn.Linear
    assert set(vars(plain)) == attributes
    assert list(plain.state_dict()) == keys
    assert not plain._load_state_dict_post_hooks


# Gradients


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("saved", SAVED)
def test_gradients_are_those_of_the_function_that_writes_the_values_first(
    bias: bool, shape: tuple[int, ...], way: str, saved: Callable[[BypassedLinear], BypassedLinear]
) -> None:
    base = nn.Linear(5, 3, bias=bias, dtype=torch.float64).requires_grad_(False)
    columns = select_columns(base.weight, 2, "magnitude")

    def write_then_apply(x: Tensor, values: Tensor, trained_bias: Tensor | None = None) -> Tensor:
        layer = saved(bypass_linear(copy.deepcopy(base), columns, way))
        set_values(layer, values.detach())
        parameters = {"bypass.values": values} | ({} if trained_bias is None else {"bias": trained_bias})
        return functional_call(layer, parameters, x)

    inputs = [torch.randn(shape), torch.randn(3, 2), *([torch.randn(3)] if bias else [])]
    assert torch.autograd.gradcheck(write_then_apply, [tensor.double().requires_grad_() for tensor in inputs])


def contiguous(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape)


def transposed(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape[::-1]).permute(*reversed(range(len(shape))))


def strided(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(*shape[:-1], 2 * shape[-1])[..., ::2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("top_k", [1, 5, 13])
@pytest.mark.parametrize("layout", [contiguous, transposed, strided])
@pytest.mark.parametrize("leading", [(11,), (3, 5), (1, 1, 1), ()])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("saved", SAVED)
def test_gradients_equal_those_of_a_dense_layer_gathered(
    dtype: torch.dtype,
    top_k: int,
    layout: Callable[[tuple[int, ...]], Tensor],
    leading: tuple[int, ...],
    way: str,
    saved: Callable[[BypassedLinear], BypassedLinear],
) -> None:
    layer = saved(make_layer(13, 7, top_k, dtype=dtype, gradient=way))
    set_values(layer, torch.randn(7, top_k))
    x = layout((*leading, 13)).to(dtype)
    grad = layout((*leading, 7)).to(dtype)
    dense_weight, dense_x = layer.weight.clone().requires_grad_(), x.clone().requires_grad_()
    F.linear(dense_x, dense_weight, layer.bias).backward(grad)

    x.requires_grad_()
    layer(x).backward(grad)
    precision = {torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}[dtype]
    expected = dense_weight.grad.gather(1, layer.columns.long()).float()
    torch.testing.assert_close(layer.values.grad, expected, rtol=precision, atol=precision)
    torch.testing.assert_close(x.grad, dense_x.grad, rtol=precision, atol=precision)
    assert layer.weight.grad is None


def test_an_unfrozen_bias_gets_its_gradient() -> None:
    layer = make_layer()
    layer.bias.requires_grad_()
    layer(torch.randn(3, 6)).sum().backward()
    assert layer.bias.grad.equal(torch.full((4,), 3.0))


def test_an_empty_batch_gives_zero_gradients() -> None:
    layer = make_layer()
    layer(torch.empty(0, 2, 6)).sum().backward()
    assert layer.values.grad.equal(torch.zeros(4, 2))


def test_without_grad_nothing_is_recorded() -> None:
    layer = make_layer()
    with torch.no_grad():
        assert not layer(torch.randn(3, 6)).requires_grad
    layer.values.requires_grad_(False)
    assert not layer(torch.randn(3, 6)).requires_grad


def test_rewriting_the_weight_between_forward_and_backward_raises_instead_of_a_wrong_gradient() -> None:
    layer = make_layer()
    loss = layer(torch.randn(3, 6, requires_grad=True)).sum()
    layer.sync()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_weight_set_to_train_is_refused() -> None:
    layer = make_layer()
    layer.weight.requires_grad_()
    with pytest.raises(AdapterError, match=r"weight\.requires_grad_\(False\)"):
        layer(torch.randn(3, 6))


# What autograd keeps


def saved_by(forward: Callable[[], Tensor], known: list[Tensor]) -> set[tuple[int, ...]]:
    """Shapes of the tensors that a forward saves for backward, without those that share memory with known tensors."""
    places = {tensor.untyped_storage().data_ptr() for tensor in known}
    saved = set()

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in places:
            saved.add(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return saved


@pytest.mark.parametrize("autocast", [False, True])
def test_only_the_input_the_columns_and_the_weight_itself_are_saved(autocast: bool) -> None:
    layer, x = make_layer(), torch.randn(3, 6)
    known = [x, layer.weight, layer.columns]

    def in_place() -> Tensor:
        return layer(x)

    def dense() -> Tensor:
        delta = torch.zeros_like(layer.weight).scatter(1, layer.columns.long(), layer.values)
        return F.linear(x.clone().requires_grad_(), layer.weight + delta, layer.bias)

    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert saved_by(in_place, known) == set()
        dense_copies = [saved for saved in saved_by(dense, known) if math.prod(saved) == layer.weight.numel()]
    assert dense_copies  # what the plain formulation pays


@pytest.mark.parametrize("autocast", [False, True])
def test_with_few_columns_kept_those_of_the_input_are_saved_instead_of_it(autocast: bool) -> None:
    layer, x = keep_columns(make_layer(50, 4, 2)), torch.randn(3, 50)
    kept = layer.bypass.kept
    assert kept.tolist() == sorted({*layer.columns.flatten().tolist()})
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert saved_by(lambda: layer(x), [layer.weight, layer.columns, kept]) == {(3, len(kept))}


def largest_in_backward(layer: nn.Module, largest_result: type[Any]) -> int:
    loss = layer(torch.randn(16, layer.in_features, requires_grad=True)).sum()
    with largest_result() as largest:
        loss.backward()
    return largest.num_entries


def test_backward_makes_nothing_as_large_as_the_weight(largest_result: type[Any]) -> None:
    assert largest_in_backward(nn.Linear(300, 400), largest_result) == 300 * 400  # it would be seen
    assert largest_in_backward(make_layer(300, 400, 5), largest_result) == 16 * 300


@pytest.mark.parametrize(("way", "limit"), [("sampled", 400 * 5), ("gemm", 12_000)])
def test_nor_does_the_gradient_of_the_values_from_inside(
    way: str, limit: int, largest_result: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Our own operators are opaque to the mode above, so their inner operations are checked separately.
    monkeypatch.setattr(gradient, "BLOCK_ENTRIES", 12_000)
    columns = make_layer(300, 400, 5).columns
    grad, x = torch.randn(16, 400), torch.randn(16, 300)
    with largest_result() as largest:
        gradient.WAYS[way](grad, x, columns, torch.float32)
    assert largest.num_entries == limit


def test_autocast_computes_and_differentiates_as_a_dense_layer_under_autocast() -> None:
    layer, x = make_layer(13, 7, 3), torch.randn(5, 13)
    dense_weight, dense_x = layer.weight.clone().requires_grad_(), x.clone().requires_grad_()
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        dense_output, output = F.linear(dense_x, dense_weight, layer.bias), layer(x)
    assert output.dtype == torch.bfloat16
    assert output.equal(dense_output)
    grad = torch.randn_like(output)
    output.backward(grad)
    dense_output.backward(grad)
    assert x.grad.dtype == layer.values.grad.dtype == torch.float32
    torch.testing.assert_close(x.grad, dense_x.grad, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(
        layer.values.grad, dense_weight.grad.gather(1, layer.columns.long()), rtol=1e-2, atol=1e-2
    )


# State dicts: whatever part of the layer is loaded, the weight holds base plus values afterwards


def trained_layer(seed: int = 0, dtype: torch.dtype = torch.float32) -> BypassedLinear:
    torch.manual_seed(seed)
    layer = make_layer(dtype=dtype)
    set_values(layer, torch.randn(4, 2))
    return layer


def part(layer: BypassedLinear, *endings: str) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in layer.state_dict().items() if key.endswith(endings)}


def assert_consistent(layer: BypassedLinear, base: Tensor, columns: Tensor, values: Tensor) -> None:
    assert layer.columns.equal(columns)
    assert layer.values.equal(values)
    assert layer.weight.equal(base.scatter_add(1, columns.long(), values))
    layer.restore()
    assert layer.weight.equal(base)


def base_of(layer: BypassedLinear) -> Tensor:
    other = copy.deepcopy(layer)
    other.restore()
    return other.weight.detach()


@pytest.mark.parametrize("assign", [False, True])
def test_a_plain_state_dict_replaces_the_base_under_the_values(assign: bool) -> None:
    layer, plain = trained_layer(), nn.Linear(6, 4)
    columns, values, base = layer.columns.clone(), layer.values.detach().clone(), plain.weight.detach().clone()
    missing = layer.load_state_dict(plain.state_dict(), strict=False, assign=assign).missing_keys
    assert sorted(missing) == ["bypass.columns", "bypass.original", "bypass.values"]
    assert_consistent(layer, base, columns, values)


@pytest.mark.parametrize("assign", [False, True])
def test_a_full_state_dict_moves_the_layer_over(assign: bool) -> None:
    layer, source = trained_layer(0), trained_layer(1)
    layer.load_state_dict(copy.deepcopy(source.state_dict()), assign=assign)
    assert_consistent(layer, base_of(source), source.columns, source.values.detach())


def test_loading_the_values_alone_rewrites_the_weight() -> None:
    layer, source = trained_layer(0), trained_layer(1)
    base, columns = base_of(layer), layer.columns.clone()
    layer.load_state_dict(part(source, "values"), strict=False)
    assert_consistent(layer, base, columns, source.values.detach())


@pytest.mark.parametrize("order", [1, -1])
def test_loading_columns_and_values_moves_the_bypass_on_the_same_base(order: int) -> None:
    layer, source = trained_layer(0), trained_layer(1)
    base = base_of(layer)
    assert not layer.columns.equal(source.columns)
    state = dict(list(part(source, "columns", "values").items())[::order])
    layer.load_state_dict(state, strict=False)
    assert_consistent(layer, base, source.columns, source.values.detach())


@pytest.mark.parametrize("assign", [False, True])
def test_loading_other_columns_changes_which_are_saved_for_backward(assign: bool) -> None:
    layer, source = keep_columns(trained_layer(0)), trained_layer(1)
    assert "bypass.kept" not in layer.state_dict()
    layer.load_state_dict(copy.deepcopy(source.state_dict()), assign=assign)
    assert layer.bypass.kept.equal(source.columns.unique())


def test_a_refused_state_dict_leaves_the_layer_consistent() -> None:
    layer = trained_layer()
    base, columns, values = base_of(layer), layer.columns.clone(), layer.values.detach().clone()
    with pytest.raises(RuntimeError, match="size mismatch"):
        layer.load_state_dict({"bypass.values": torch.zeros(4, 3)}, strict=False)
    assert_consistent(layer, base, columns, values)


def test_the_state_dict_needs_no_unpickled_code() -> None:
    layer, source, file = trained_layer(0), trained_layer(1), io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    layer.load_state_dict(torch.load(file, weights_only=True))
    assert layer.weight.equal(source.weight)


# Copies, casts, moves


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_is_independent(duplicate: Callable[[BypassedLinear], BypassedLinear]) -> None:
    layer = trained_layer()
    weight = layer.weight.clone()
    other = duplicate(layer)
    set_values(other, 3.0)
    assert layer.weight.equal(weight)
    assert applied(other).equal(other.bypass.original + 3)
    remove_bypass(other)
    assert not other._load_state_dict_post_hooks
    assert layer._load_state_dict_post_hooks


def test_a_cast_to_bf16_casts_the_base_and_keeps_the_values() -> None:
    layer = trained_layer()
    base, parameter, values = base_of(layer), layer.values, layer.values.detach().clone()
    layer(torch.ones(6)).sum().backward()
    layer.to(torch.bfloat16)
    assert layer.values is parameter  # optimizers still hold it
    assert layer.values.dtype == layer.values.grad.dtype == torch.float32
    assert layer.values.equal(values)
    expected = base.bfloat16().float().scatter_add(1, layer.columns.long(), values).bfloat16()
    assert layer.weight.equal(expected)
    layer.restore()
    assert layer.weight.equal(base.bfloat16())


def test_a_cast_to_fp64_takes_the_values_along() -> None:
    layer = trained_layer().double()
    assert layer.weight.dtype == layer.values.dtype == torch.float64
    assert applied(layer).equal(layer.bypass.original + layer.values)


@pytest.mark.parametrize("saved", SAVED)
def test_a_layer_can_go_to_the_meta_device_and_be_loaded_again(
    saved: Callable[[BypassedLinear], BypassedLinear],
) -> None:
    layer, source = saved(trained_layer(0)), trained_layer(1)
    layer.to("meta")
    assert layer.weight.is_meta
    assert layer.values.is_meta
    layer.to_empty(device="cpu")
    layer.load_state_dict(source.state_dict())
    assert_consistent(layer, base_of(source), source.columns, source.values.detach())


@pytest.mark.parametrize("values_dtype", [torch.bfloat16, torch.float16])
def test_values_in_half_precision_never_round_the_base(values_dtype: torch.dtype) -> None:
    """As TRL casts them: zero values leave each entry as it is, and others add what they are."""
    layer = nn.Linear(8, 6, bias=False)
    before_OI = layer.weight.detach().clone()
    adapter = neuroada.attach(layer, neuroada.NeuroAdaConfig(2))
    [values_OK] = adapter.parameters()
    values_OK.data = values_OK.data.to(values_dtype)
    adapter.sync()
    assert layer.weight.equal(before_OI)
    values_OK.data.fill_(0.1)
    adapter.sync()
    columns_OK = layer.bypass.columns.long()
    added_OI = torch.zeros_like(before_OI).scatter(1, columns_OK, values_OK.detach().float())
    assert layer.weight.equal(before_OI + added_OI)
    assert layer.bypass.rounded().equal(layer.weight.gather(1, columns_OK))
