"""``job=budget``: the parameter table of a configuration, from the architecture alone."""

from collections import Counter
from pathlib import Path

from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table

from neuroada.config.schema import RunConfig
from neuroada.sparse.budget import Budget
from neuroada.training import models
from neuroada.training.methods import Method


def budget(run: RunConfig, folder: Path) -> None:
    """Print what would train. No weights are read and nothing is written.

    Raises:
        UserError, AdapterError: The architecture is not to be had, or the targets do not fit it.
    """
    method: Method = instantiate(run.method, _convert_="all")
    counted = method.budget(models.load_skeleton(run.model), run.model.target_modules, run.budget.top_k)
    Console().print(budget_table(counted, f"{run.model.name}, {method.name}, top_k={run.budget.top_k}"))


def budget_table(counted: Budget, title: str) -> Table:
    """Trained values by kind of layer, with their share of the model in percent as papers print it."""
    table = Table(title=title, show_footer=True)
    table.add_column("layers", footer="all")
    table.add_column("count", justify="right", footer=str(len(counted.layers)))
    table.add_column("trainable", justify="right", footer=f"{counted.trainable:,}")
    table.add_column("% of model", justify="right", footer=f"{counted.percent:.3f}")
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for name, size in counted.layers.items():
        kind = name.rpartition(".")[2]
        sizes[kind] += size
        counts[kind] += 1
    for kind, size in sizes.items():
        table.add_row(kind, str(counts[kind]), f"{size:,}", f"{100 * size / counted.total:.3f}")
    table.caption = f"{counted.total:,} parameters in the base model"
    return table
