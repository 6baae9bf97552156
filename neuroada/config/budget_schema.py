"""Schema of the budget: how much trains, and where it goes."""

from dataclasses import dataclass
from typing import Any

from neuroada.config.errors import shown
from neuroada.config.requirements import require, require_at_least, require_choice

MATCHES = ("neuroada", "masked")
"""Methods that ``budget.match`` accepts: their parameters can be counted at ``budget.top_k``."""
ONE_K = ("masked",)
"""Those of them with the same k in every layer."""
SPREADS = ("layer", "block", "model")
"""What connections compete in; ``neuroada.sparse.config`` has the same, but would import torch here."""


@dataclass
class BudgetConfig:
    """How much trains: inputs per neuron, a number or share of parameters, or as many parameters as another method has
    at ``top_k``."""

    top_k: int | None = None
    """Trained inputs per neuron, for methods with such a size; more than a layer has means all of them."""
    trainable: int | None = None
    """Number of parameters to train, met as closely as the method's settings allow; replaces ``top_k``."""
    percent: float | None = None
    """The same as a share of all parameters, in percent."""
    match: str | None = None
    """Train as many parameters as this method has at ``top_k``: neuroada or masked."""
    top_k_pattern: Any = None
    """Other numbers than ``top_k`` for some layers, such as {down_proj: 4}: a key is the end of a layer's name or a
    regular expression for it; the first one that fits counts."""
    by_depth: list[int] | None = None
    """Numbers of trained inputs per neuron from the first block to the last, such as [1, 8], with straight lines
    between them."""
    spread: str | None = None
    """What connections compete in for the same number of values: layer, block or model. Neurons then have as many
    trained inputs as the scores of ``method.selection`` give them, and ``top_k`` is the mean; null means that each has
    ``top_k``."""

    def __post_init__(self) -> None:
        require_at_least("budget.top_k", self.top_k, 1)
        self._require_shape()
        require_at_least("budget.trainable", self.trainable, 1)
        require(
            self.percent is None or 0 < self.percent <= 100,
            f"budget.percent={self.percent}: must be above 0 and at most 100",
        )
        given = [key for key in ("top_k", "trainable", "percent") if getattr(self, key) is not None]
        require(
            len(given) <= 1,
            f"budget: {' and '.join(f'{key}={getattr(self, key)}' for key in given)} were both given; give one",
        )
        if self.match is not None:
            require_choice("budget.match", self.match, MATCHES)
        require(
            self.match is None or self.top_k is not None,
            f"budget.match={self.match}: needs budget.top_k, at which its parameters are counted",
        )

    def _require_shape(self) -> None:
        pattern, depths = self.top_k_pattern, self.by_depth
        is_pattern = isinstance(pattern, dict) and all(type(top_k) is int for top_k in pattern.values())
        require(
            is_pattern or pattern is None,
            f"budget.top_k_pattern={shown(pattern)}: give numbers by names of layers, such as {{down_proj: 4}}",
        )
        for key, top_k in (pattern or {}).items():
            require_at_least(f"budget.top_k_pattern.{key}", top_k, 1)
        for top_k in depths or ():
            require_at_least("budget.by_depth", top_k, 1)
        require(
            depths is None or len(depths) > 1,
            f"budget.by_depth={depths}: give at least two numbers, for the first block and the last",
        )
        if self.spread is not None:
            require_choice("budget.spread", self.spread, SPREADS)
        shape = "budget.top_k_pattern" if pattern else "budget.by_depth" if depths else ""
        require(not (pattern and depths), "budget.top_k_pattern and budget.by_depth: give one of them")
        has_one_k = self.match in ONE_K
        require(not (shape and has_one_k), f"{shape}: budget.match={self.match} has one k; use match=neuroada")
        require(
            not shape or self.top_k is not None,
            f"{shape}: needs budget.top_k, which all other layers have (a number or share of parameters has one k)",
        )
