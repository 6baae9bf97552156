"""From the ``budget`` group to what a method is asked for: a number or share of parameters, or another method's
count."""

from collections.abc import Mapping, Sequence

from torch import nn

from neuroada.config.schema import BudgetConfig
from neuroada.methods.contract import Method, Targets, Wanted, count_parameters
from neuroada.methods.masked import Masked
from neuroada.methods.neuroada import NeuroAda
from neuroada.sparse.whole_modules import is_inside, match_whole, whole_sizes

_COUNTED_AT_TOP_K: Mapping[str, Method] = {method.name: method for method in (NeuroAda(), Masked())}
"""Methods that ``budget.match`` may name; ``BudgetConfig`` refuses all others."""


def wanted(
    budget: BudgetConfig, skeleton: nn.Module, targets: Targets, modules_to_save: Sequence[str] | None = None
) -> Wanted:
    """What a run asks of its method on this architecture.

    Args:
        modules_to_save: Modules that train whole; a number of parameters includes theirs.

    Raises:
        AdapterError: The targets do not fit the model.
    """
    if budget.trainable is not None:
        return Wanted(trainable=budget.trainable, spread=budget.spread)
    if budget.percent is not None:
        number = max(1, round(budget.percent / 100 * count_parameters(skeleton)))
        return Wanted(trainable=number, spread=budget.spread)
    shaped = Wanted(budget.top_k, None, budget.top_k_pattern, budget.by_depth, budget.spread)
    if budget.match is None:
        return shaped
    other = _COUNTED_AT_TOP_K[budget.match].sized(skeleton, targets, shaped)
    whole = match_whole(skeleton, modules_to_save)
    beside = sum(size for name, size in other.budget.layers.items() if not is_inside(name, whole))
    number = beside + sum(whole_sizes(whole).values())
    return Wanted(top_k=budget.top_k, trainable=number, spread=budget.spread)
