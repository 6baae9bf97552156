"""Replicas compare their frozen tensors instead of sending them; what trains is still sent."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuroada.config.errors import UserError
from neuroada.training.distributed.replicated import checksum, send_only_what_trains

OtherRank = Callable[[nn.Module], None]


@pytest.fixture
def other_rank(monkeypatch: pytest.MonkeyPatch) -> OtherRank:
    """The checksums of a second rank, which holds the given module."""

    def hold(module: nn.Module) -> None:
        frozen = [part.detach() for part in module.parameters() if not part.requires_grad]
        theirs = torch.stack([checksum(part) for part in [*frozen, *module.buffers()]])

        def all_reduce(ours: Tensor, op: object) -> None:
            is_lowest = op == torch.distributed.ReduceOp.MIN
            ours.copy_(torch.minimum(ours, theirs) if is_lowest else torch.maximum(ours, theirs))

        monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)

    return hold


def make() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    module.requires_grad_(False)
    module[2].requires_grad_(True)
    return module


def test_frozen_tensors_and_buffers_are_not_sent(other_rank: OtherRank) -> None:
    module = make()
    other_rank(make())
    send_only_what_trains(module)
    left = set(module._ddp_params_and_buffers_to_ignore)  # type: ignore[arg-type]
    assert {name for name, _ in module.named_parameters() if name not in left} == {"2.weight", "2.bias"}
    assert {name for name, _ in module.named_buffers()} <= left


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_a_rank_with_another_tensor_is_refused_by_its_name(other_rank: OtherRank, name: str) -> None:
    theirs = make()
    with torch.no_grad():
        theirs.state_dict()[name].view(-1)[2] += 1e-6
    other_rank(theirs)
    with pytest.raises(UserError, match=rf"^the ranks have different {name} \(1 of 7 tensors differ\)"):
        send_only_what_trains(make())


def test_what_trains_may_differ_because_it_is_sent(other_rank: OtherRank) -> None:
    theirs = make()
    with torch.no_grad():
        theirs[2].weight += 1
    other_rank(theirs)
    module = make()
    send_only_what_trains(module)
    left_out = module._ddp_params_and_buffers_to_ignore
    assert not {"2.weight", "2.bias"} & set(left_out)  # type: ignore[call-overload]  # set dynamically


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int32, torch.bool, torch.uint8])
def test_checksums_see_bits_and_rows(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1, 1], [1, 0, 0]]).to(dtype)
    assert checksum(tensor) == checksum(tensor.T.contiguous().T)
    assert checksum(tensor) != checksum(tensor.flip(0))
    assert checksum(tensor[0, 1]) != checksum(tensor[0, 0])
    assert checksum(torch.zeros(0, 3, dtype=dtype)) == 0
