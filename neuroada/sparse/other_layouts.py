"""Linear layers of transformers that store their weight, or add their bias, in another way than ``nn.Linear``.

Their weight is written in place like any other's. Shapes: O neurons (= out_features), I inputs (= in_features).
"""

from torch import Tensor

from neuroada.sparse.layer import BypassedLinear


class BypassedConv1D(BypassedLinear):
    """``Conv1D`` of GPT-2 and its like with a bypass: its weight is (I, O), so a neuron is a column of it."""

    nf: int
    nx: int

    @property
    def in_features(self) -> int:  # type: ignore[override]
        """Inputs of each neuron."""
        return self.nx

    @property
    def out_features(self) -> int:  # type: ignore[override]
        """Neurons."""
        return self.nf

    @property
    def weight_OI(self) -> Tensor:
        """(O, I) effective weight, a view."""
        return self.weight.t()

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return self._product(input, self.weight.t(), self.bias)


class BypassedFalconLinear(BypassedLinear):
    """``FalconLinear`` with a bypass: the bias is added after the product, as that class does; the bits agree."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        output = self._product(input, self.weight, None)
        return output if self.bias is None else output + self.bias
