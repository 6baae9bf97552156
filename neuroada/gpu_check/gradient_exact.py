"""Part ``gradient_exact``: every way of computing the gradient against fp64."""

import random
from collections.abc import Iterator

import torch

from neuroada.costs.failures import Failure, attempt
from neuroada.costs.gradient_ways import ALLOWED_ERROR, Operands, ways_on
from neuroada.gpu_check.setting import Row, Setting, row

_MOST = 700
"""Inputs and outputs of a random layer; tokens are as many."""
_BLOCK = 16
"""Tokens are aligned if they are whole blocks of so many."""
_SHAPES_SEED = 14


def rows(setting: Setting) -> Iterator[Row]:
    """One for each way, precision, k and alignment, with the largest error over all random shapes."""
    shapes = list(_random_shapes(setting.check.random_shapes))
    for dtype in ALLOWED_ERROR:
        for top_k in setting.check.top_k:
            for is_aligned in (True, False):
                drawn = [_operands(shape, top_k, is_aligned, dtype, setting) for shape in shapes]
                exact = [operands.exact() for operands in drawn]
                for way in ways_on(setting.device):
                    about = f"{way}, {str(dtype).removeprefix('torch.')}, k={top_k}"
                    about += ", aligned" if is_aligned else ", not aligned"
                    yield _row(about, way, drawn, exact, dtype)


def _random_shapes(number: int) -> Iterator[tuple[int, int, int]]:
    """(outputs, inputs, blocks of tokens); at least as many inputs as the largest usual k."""
    draw = random.Random(_SHAPES_SEED)
    for _ in range(number):
        yield draw.randint(1, _MOST), draw.randint(20, _MOST), draw.randint(1, _MOST // _BLOCK)


def _operands(
    shape: tuple[int, int, int], top_k: int, is_aligned: bool, dtype: torch.dtype, setting: Setting
) -> Operands:
    outputs, inputs, blocks = shape
    num_tokens = blocks * _BLOCK - (0 if is_aligned else 5)
    return Operands.drawn(num_tokens, (outputs, inputs), top_k, setting.device, dtype, setting.run.seed)


def _row(about: str, way: str, drawn: list[Operands], exact: list[torch.Tensor], dtype: torch.dtype) -> Row:
    def largest() -> float:
        return max(operands.error(way, exact_OK) for operands, exact_OK in zip(drawn, exact, strict=True))

    error = attempt(about, largest)
    if isinstance(error, Failure):
        return row(about, "", right=False, failed=error.reason)
    allowed = ALLOWED_ERROR[dtype]
    return row(about, f"error {error:.1e}, {allowed:.0e} allowed", right=error <= allowed, error=error)
