"""DDP without sending the backbone: every rank has read the same files, which a number for each tensor shows."""

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from neuroada.config.errors import UserError

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of an entry -> an integer of that size."""


class ReplicatedStrategy(DDPStrategy):
    """Lightning's DDP strategy, which would send all weights of the first rank to the others, before each fit and test.

    What trains is still sent before a fit. Of everything else the ranks compare a checksum of each tensor.
    """

    def model_to_device(self) -> None:
        super().model_to_device()
        assert self.model is not None
        send_only_what_trains(self.model)


def send_only_what_trains(module: nn.Module) -> None:
    """Compare frozen tensors and buffers over the ranks, and let torch and Lightning leave them where they are.

    Raises:
        UserError: A rank has other ones; on every rank.
    """
    parameters = {name: part for name, part in module.named_parameters() if not part.requires_grad}
    frozen = {**parameters, **dict(module.named_buffers())}
    if differing := differing_over_ranks({name: tensor.detach() for name, tensor in frozen.items()}):
        raise UserError(
            f"the ranks have different {differing[0]} ({len(differing)} of {len(frozen)} tensors differ): their "
            "machines hold other files under the same name; copy the checkpoint and the adapter to all of them again"
        )
    # DistributedDataParallel and Lightning both read it.
    module._ddp_params_and_buffers_to_ignore = list(frozen)  # type: ignore[assignment]


def differing_over_ranks(tensors: dict[str, Tensor]) -> list[str]:
    """Names of tensors that are not the same on all ranks; a collective that every rank must call."""
    if not tensors:
        return []
    sums = torch.stack([checksum(tensor) for tensor in tensors.values()])
    lowest, highest = sums.clone(), sums
    torch.distributed.all_reduce(lowest, op=torch.distributed.ReduceOp.MIN)
    torch.distributed.all_reduce(highest, op=torch.distributed.ReduceOp.MAX)
    return [name for name, is_other in zip(tensors, (lowest != highest).tolist(), strict=True) if is_other]


def checksum(tensor: Tensor) -> Tensor:
    """() int64, of the bits of the entries and of the rows that they are in; one pass on the tensor's device."""
    bits = tensor.contiguous().view(-1) if tensor.dim() == 0 else tensor.contiguous()
    rows_R = bits.view(_BITS[bits.element_size()]).sum(dim=-1, dtype=torch.int64).flatten()
    return (rows_R * torch.arange(1, len(rows_R) + 1, device=tensor.device)).sum()
