"""Count what a computation allocates while it runs on fake tensors.

torch's own ``MemTracker`` counts whole modules; this also counts the parts of a step and the workspace of our operator.
"""

import math
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from neuroada.sparse import gradient
from neuroada.sparse.measured_ways import kind_of_gpu


class AllocationCounter(TorchDispatchMode):
    """Bytes of the storages that operators allocate inside the block and that are still referenced.

    Attributes:
        held: Bytes now.
        peak: Largest number of bytes since the start or the last ``take_peak``.
    """

    def __init__(self, device_type: str, known: Iterable[Tensor]) -> None:
        """Count as on a device of this type; the storages of ``known`` existed before and do not count."""
        super().__init__()
        self.held = self.peak = 0
        self._device_type = device_type
        # The operator that made each live storage, by the storage's address.
        self._makers: dict[int, Any] = {_address(tensor): None for tensor in known}

    def take_peak(self) -> int:
        """Return the peak so far and start a new one."""
        peak, self.peak = self.peak, self.held
        return peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # The probes of a backbone read numbers, which fake tensors lack. Differences between packed and separate
        # examples read as zero. Two tensors are equal if the same operator made them, so logits that were scaled or
        # capped after the output layer differ from the output layer's own.
        if func is torch.ops.aten._local_scalar_dense.default and _is_fake(args[0]):
            return 0
        if func is torch.ops.aten.equal.default and _is_fake(args[0]):
            return self._makers.get(_address(args[0])) == self._makers.get(_address(args[1]))
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._add(tensor, func)
        if func is torch.ops.neuroada.sampled_weight_gradient.default:
            self.peak = max(self.peak, self.held + _gradient_workspace(self._device_type, *args))
        return result

    def _add(self, tensor: Tensor, maker: Any) -> None:
        address = _address(tensor)
        if address in self._makers:
            return
        storage = tensor.untyped_storage()
        self._makers[address] = maker
        self.held += storage.nbytes()
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._remove, address, storage.nbytes())

    def _remove(self, address: int, num_bytes: int) -> None:
        self.held -= num_bytes
        del self._makers[address]


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _is_fake(tensor: Tensor) -> bool:
    return isinstance(tensor, torch._subclasses.FakeTensor)


def _gpu_here(device_type: str) -> str | None:
    """The kind of this machine's GPU; a plan for another kind uses the rule, where the workspaces differ little."""
    return kind_of_gpu(torch.device("cuda", 0)) if device_type == "cuda" and torch.cuda.is_available() else None


def _gradient_workspace(
    device_type: str, grad_TO: Tensor, input_TI: Tensor, columns_OK: Tensor, dtype: torch.dtype, way: str
) -> int:
    """Workspace of ``sampled_weight_gradient`` in bytes, without its result; measured on the CPU, else counted."""
    (num_tokens, num_outputs), num_inputs = grad_TO.shape, input_TI.shape[1]
    if way == gradient.AUTO:
        way = gradient.best_way(num_inputs, columns_OK.shape[1], grad_TO.dtype, device_type, _gpu_here(device_type))
    if way == "gemm":
        entries = min(gradient.BLOCK_ENTRIES, num_outputs * num_inputs)
        return entries * grad_TO.element_size() + math.prod(columns_OK.shape) * 8
    if way == "sampled":
        # Each chunk is transposed, after a cast to fp32 if it is in half precision. The pattern and the product take
        # about seven numbers per value.
        copies = 1 if grad_TO.dtype == dtype else 2
        chunk = min(num_tokens, gradient.CHUNK_TOKENS) * (num_outputs + num_inputs) * dtype.itemsize
        return copies * chunk + 7 * math.prod(columns_OK.shape) * dtype.itemsize
    if way == "gathered":
        chunk = min(num_tokens, gradient.GATHERED_TOKENS)
        casts = 0 if grad_TO.dtype == dtype else num_outputs + num_inputs
        return (chunk * (num_outputs + casts) + math.prod(columns_OK.shape)) * dtype.itemsize
    # Triton: all kernels but ``rows`` read a packed copy of the input; the sums of few shares are left out.
    by_rows = way == "triton_rows" or (way == "triton" and columns_OK.shape[1] == 1)
    return 0 if by_rows else num_tokens * num_inputs * input_TI.element_size()
