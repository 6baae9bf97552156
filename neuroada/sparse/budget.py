"""The number of parameters that an adapter trains, and their share of the model."""

from dataclasses import dataclass

from torch import nn

from neuroada.sparse.biases import match_biases
from neuroada.sparse.config import NeuroAdaConfig
from neuroada.sparse.coverage import Coverage, coverage
from neuroada.sparse.linear_layers import widths
from neuroada.sparse.targets import targets_of
from neuroada.sparse.whole_modules import match_whole, whole_sizes


@dataclass(frozen=True)
class Budget:
    """Parameter counts of an adapter on a model.

    Attributes:
        trainable: Values that train.
        total: Parameters of the base model, including embeddings and output head; tied ones count once.
        layers: Trained values by layer name; of modules that train whole, by parameter name.
        coverage: Which of the model's weights the adapted layers are, for methods that adapt linear layers.
    """

    trainable: int
    total: int
    layers: dict[str, int]
    coverage: Coverage | None = None

    @property
    def percent(self) -> float:
        """Trainable share of the model in percent, as papers report it."""
        return 100 * self.trainable / self.total


def budget(model: nn.Module, config: NeuroAdaConfig) -> Budget:
    """Count what ``attach(model, config)`` would train. Reads shapes only, so it works on the meta device.

    With ``config.spread``, the weights decide how the total is divided; ``layers`` then says what each brings in.

    Raises:
        AdapterError: ``config.target_modules`` or ``modules_to_save`` does not match the model.
    """
    whole = match_whole(model, config.modules_to_save)
    targets = targets_of(model, config, whole)
    covered = coverage(model, targets, whole)
    layers = {name: config.count_of(name, *widths(layer)) for name, layer in targets.items()}
    layers.update(whole_sizes({**whole, **match_biases(model, config.bias, whole)}))
    return Budget(trainable=sum(layers.values()), total=covered.total, layers=layers, coverage=covered)
