"""Give a layer the bypass that its kind of weight takes."""

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from neuroada.sparse.beside import BypassedBeside, bypass_beside
from neuroada.sparse.errors import AdapterError
from neuroada.sparse.gradient import AUTO
from neuroada.sparse.layer import BypassedLinear, bypass_linear
from neuroada.sparse.linear_layers import is_conv1d, is_falcon, is_quantised
from neuroada.sparse.other_layouts import BypassedConv1D, BypassedFalconLinear

AdaptedLayer = BypassedLinear | BypassedBeside
"""A layer with a bypass: inside its weight, or beside it where that cannot be written."""


def refuse_rows(modules: Mapping[str, nn.Module], names: Collection[str]) -> None:
    """Raise AdapterError if a layer with a bypass beside its weight shall not have k trained inputs in each neuron.

    Args:
        modules: All modules by name.
        names: Of the layers.
    """
    if quantised := [name for name in names if is_quantised(modules[name])]:
        raise AdapterError(
            f"{quantised[0]}: is quantised, and its neurons must all have the same number of trained inputs; leave out "
            "neuron_fraction and spread, or load the base without quantisation"
        )


def add_bypass(
    layer: nn.Module, columns_OK: Tensor, gradient: str = AUTO, rows_R: Tensor | None = None
) -> AdaptedLayer:
    """Give a layer a bypass, in place; the result is the same object. Its weight must already be frozen.

    Args:
        layer: One that ``linear_layers.is_linear`` knows.
        columns_OK: (out_features, k) selected columns.
        gradient: How the gradient of the values is computed, see ``gradient.sampled_weight_gradient``.
        rows_R: (rows,) neurons, if not every one has a row of columns; not for quantised layers.
    """
    if is_quantised(layer):
        return bypass_beside(layer, columns_OK, gradient)
    kind = BypassedConv1D if is_conv1d(layer) else BypassedFalconLinear if is_falcon(layer) else BypassedLinear
    return bypass_linear(layer, columns_OK, gradient, kind, rows_R)
