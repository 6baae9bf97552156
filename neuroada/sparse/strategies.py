"""How the connections of a neuron are scored: the k with the largest scores get a bypass.

A strategy is a function. The names of its parameters say what it needs; other parameters are options, with defaults.
Those of the model: ``weight``, ``name`` of the layer, ``generator`` (seeded for the layer, on the CPU). Those measured
on calibration batches, as ``neuroada.sparse.measurement`` does: ``input_norm``, ``absolute_gradient``,
``squared_gradient``. It returns scores of the weight's shape.

Shapes: O neurons (= out_features), I inputs (= in_features).
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuroada.sparse.errors import AdapterError

Score = Callable[..., Tensor]
Selection = str | Mapping[str, Any] | Score
"""A name, a mapping of a name and options, such as ``{"name": "lift", "rank": 16}``, or a function."""

FROM_MODEL = ("weight", "name", "generator")
MEASURED = ("input_norm", "absolute_gradient", "squared_gradient")
_FUNCTION = "function"
"""Key under which an adapter file names a function that is not ours: it is never looked up from there."""
_LIFT_SHARE = 8
_ITERATIONS = 8
"""Power iterations of a truncated decomposition: with two, a tenth of the columns of a flat spectrum still differ."""


def magnitude(weight: Tensor) -> Tensor:
    """The largest weights, the published method."""
    return weight.abs()


def smallest(weight: Tensor) -> Tensor:
    """The smallest weights."""
    return -weight.abs()


def random(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Any weights."""
    # Drawn on the CPU, so that every device selects the same columns.
    return torch.rand(weight.shape, generator=generator).to(weight.device)


def magnitude_relative_to_column(weight: Tensor) -> Tensor:
    """The largest shares of an input: each weight by the norm of all weights that read the same input."""
    wide = weight.to(_wide(weight))
    return wide.abs() / torch.linalg.vector_norm(wide, dim=0).clamp_min(torch.finfo(wide.dtype).tiny)


def lift(weight: Tensor, generator: torch.Generator, rank: int | None = None) -> Tensor:
    """The largest weights after rank reduction by a truncated SVD (LIFT, Liu et al., 2025).

    Args:
        rank: Singular directions that are kept; by default an eighth of the smaller side.
    """
    most = min(weight.shape)
    kept = max(1, most // _LIFT_SHARE) if rank is None else rank
    if not 1 <= kept < most:
        raise AdapterError(f"lift: rank={rank} must lie between 1 and {most - 1}, below the smaller side of the layer")
    wide = weight.to(_wide(weight))
    devices = [weight.device] if weight.is_cuda else []
    with torch.random.fork_rng(devices):  # svd_lowrank draws from the global generator
        torch.manual_seed(generator.initial_seed())
        left_OR, values_R, right_IR = torch.svd_lowrank(wide, q=min(kept + 10, most), niter=_ITERATIONS)
    return ((left_OR[:, :kept] * values_R[:kept]) @ right_IR[:, :kept].T).abs()


def wanda(weight: Tensor, input_norm: Tensor) -> Tensor:
    """The largest weights times the norm of their input (Wanda, Sun et al., 2024)."""
    return weight.abs().to(input_norm.dtype) * input_norm


def gradient(absolute_gradient: Tensor) -> Tensor:
    """The largest absolute gradients, summed over the batches."""
    return absolute_gradient


def fisher(squared_gradient: Tensor) -> Tensor:
    """The largest squared gradients, summed over the batches: the diagonal of the empirical Fisher information."""
    return squared_gradient


_BY_ROWS: tuple[Score, ...] = (magnitude, smallest, random, wanda, gradient, fisher)
"""Strategies that score a row by itself, so that they can be given a block of rows at a time."""
STRATEGIES: dict[str, Score] = {
    "magnitude": magnitude,
    "smallest": smallest,
    "random": random,
    "magnitude_relative_to_column": magnitude_relative_to_column,
    "lift": lift,
    "wanda": wanda,
    "gradient": gradient,
    "fisher": fisher,
}


@dataclass(frozen=True)
class Strategy:
    """A selection, looked up and checked.

    Attributes:
        function: Scores a layer.
        takes: What it is called with, of ``FROM_MODEL`` and ``MEASURED``.
        described: What an adapter file says of it.
    """

    function: Score
    takes: tuple[str, ...]
    described: str | dict[str, Any]

    @property
    def measures(self) -> tuple[str, ...]:
        """What it needs of ``MEASURED``; empty if it needs no data."""
        return tuple(name for name in self.takes if name in MEASURED)

    @property
    def needs_gradients(self) -> bool:
        """Whether it needs gradients of the weights."""
        return any(name.endswith("_gradient") for name in self.measures)

    @property
    def by_rows(self) -> bool:
        """Whether it can be given a block of rows at a time."""
        return self.function in _BY_ROWS

    @property
    def is_exact(self) -> bool:
        """Whether a score is one number of the weight, so that every device ranks alike: nothing is added up."""
        return self.function in (magnitude, smallest)

    def scores(self, given: Mapping[str, Any]) -> Tensor:
        """(O, I) scores of a layer, or of a block of its rows.

        Args:
            given: At least what it takes.

        Raises:
            AdapterError: It returned something else.
        """
        scores = self.function(**{name: given[name] for name in self.takes})
        shape = given["weight"].shape
        if not isinstance(scores, Tensor) or scores.shape != shape or not scores.is_floating_point():
            what = f"{scores.dtype} {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
            raise AdapterError(
                f"selection={shown(self.described)} returned {what}; it must return floating-point scores of the "
                f"weight's shape, {tuple(shape)}"
            )
        return scores


def strategy_of(selection: Selection) -> Strategy:
    """Look a selection up.

    Raises:
        AdapterError: There is no such strategy, it has no such option, or a function takes something else.
    """
    if callable(selection):
        return Strategy(selection, _taken(selection, _named(selection)), _described(selection))
    options = dict(selection) if isinstance(selection, Mapping) else {}
    if _FUNCTION in options:
        raise AdapterError(
            f"selection: the adapter was made with the function {options[_FUNCTION]}, which its files do not hold; "
            "give the function itself to choose connections with it again"
        )
    name = options.pop("name", None) if isinstance(selection, Mapping) else selection
    if not isinstance(name, str) or name not in STRATEGIES:
        raise AdapterError(
            f"selection={name!r}: choose one of {', '.join(STRATEGIES)}, or give a function (a mapping has a name and "
            "options)"
        )
    function = STRATEGIES[name]
    _refuse_unknown(name, options, function)
    bound = functools.partial(function, **options) if options else function
    return Strategy(bound, _taken(function, name), {"name": name, **options} if options else name)


def check_selection(selection: Selection) -> None:
    """Raise AdapterError unless it is a strategy, or what an adapter file says of a function."""
    if not names_a_function(selection):
        strategy_of(selection)


def names_a_function(selection: Selection) -> bool:
    """Whether it is what an adapter file says of a function, which the file does not hold."""
    return isinstance(selection, Mapping) and isinstance(selection.get(_FUNCTION), str)


def described(selection: Selection) -> str | dict[str, Any]:
    """What adapter files and results say of a selection: plain values."""
    if isinstance(selection, Mapping):
        return dict(selection)
    return strategy_of(selection).described


def shown(selection: str | Mapping[str, Any]) -> str:
    """A described selection in messages."""
    if isinstance(selection, str):
        return selection
    options = {key: value for key, value in selection.items() if key not in ("name", _FUNCTION)}
    settings = ", ".join(f"{key}={value}" for key, value in options.items())
    name = selection.get("name", selection.get(_FUNCTION))
    return f"{name} ({settings})" if settings else str(name)


def _taken(function: Score, name: str) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise AdapterError(f"selection={name}: does not tell what it takes ({error}); give a function") from error
    known = (*FROM_MODEL, *MEASURED)
    for one in parameters:
        is_keyword = one.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        if not is_keyword or (one.name not in known and one.default is inspect.Parameter.empty):
            raise AdapterError(
                f"selection={name}: its parameter {one.name} is none of {', '.join(known)}; give it a default or value"
            )
    return tuple(one.name for one in parameters if one.name in known)


def _refuse_unknown(name: str, options: Mapping[str, Any], function: Score) -> None:
    own = [key for key in inspect.signature(function).parameters if key not in (*FROM_MODEL, *MEASURED)]
    if unknown := [key for key in options if key not in own]:
        has = f"its options are {', '.join(own)}" if own else "it has no options"
        raise AdapterError(f"selection={name}: no option {unknown[0]!r}; {has}")


def _named(function: Score) -> str:
    inner = function.func if isinstance(function, functools.partial) else function
    return f"{getattr(inner, '__module__', '?')}.{getattr(inner, '__qualname__', type(inner).__name__)}"


def _described(function: Score) -> dict[str, Any]:
    options = function.keywords if isinstance(function, functools.partial) else {}
    plain = {key: value for key, value in options.items() if isinstance(value, str | int | float | bool | None)}
    return {_FUNCTION: _named(function), **plain}


def _wide(weight: Tensor) -> torch.dtype:
    return torch.promote_types(weight.dtype, torch.float32)
