"""What a run prints at its end, made from its ``result.json``."""

from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.table import Table

from neuroada.training.record import RESULT_FILE, read_result


@rank_zero_only
def show(folder: Path) -> None:
    """Print the summary of a run folder; a job that records no result has nothing to show."""
    if not (folder / RESULT_FILE).is_file():
        return
    result = read_result(folder)
    console = Console(highlight=False)
    console.print(f"\n[bold]{headline(result)}[/bold]")
    console.print(scores_table(result))
    console.print(conditions(result))
    here = Path.cwd()
    shown = folder.relative_to(here) if folder.is_relative_to(here) else folder
    console.print(f"run folder: {shown}", soft_wrap=True)


def scores_table(result: dict[str, Any]) -> Table:
    """Accuracy of each benchmark in percent, with the papers' macro average and the micro average beside it."""
    metrics = result["metrics"]
    table = Table(show_footer=True)
    table.add_column("benchmark", footer="macro / micro")
    table.add_column("n", justify="right", footer=str(sum(score["n"] for score in metrics["benchmarks"].values())))
    table.add_column("accuracy %", justify="right", footer=f"{percent(metrics['macro'])} / {percent(metrics['micro'])}")
    table.add_column("strict %", justify="right")
    table.add_column("no trigger", justify="right")
    for name, score in metrics["benchmarks"].items():
        cells = (str(score["n"]), percent(score["protocol"]), percent(score["strict"]), str(score["missing_trigger"]))
        table.add_row(name, *cells)
    return table


def percent(fraction: float) -> str:
    """A fraction in percent with one decimal, as papers print accuracy."""
    return f"{100 * fraction:.1f}"


def headline(result: dict[str, Any]) -> str:
    """Backbone, task, method, and the trained share of the parameters as papers print it."""
    config, budget = result["config"], result["budget"]
    name = f"{config['model']['name']} on {config['task']['name']}"
    if budget["trainable"] == 0:
        return f"{name}: base model, nothing trained"
    return (
        f"{name}: {config['method']['name']} top_k={config['budget']['top_k']}, "
        f"{budget['trainable']:,} of {budget['total']:,} parameters ({budget['percent']:.3f} %)"
    )


def conditions(result: dict[str, Any]) -> str:
    """What a reader must know to compare the scores: loss, seed, precision, device, time."""
    config, timings = result["config"], result["timings"]
    loss = f"loss on {config['task']['loss_on']}, " if "fit_seconds" in timings else ""
    fit = f"fit {timings['fit_seconds']:.0f} s, " if "fit_seconds" in timings else ""
    where = f"{result['content']['dtype']} on {result['device']}"
    return f"{loss}seed {config['seed']}, {where}, {fit}scored in {timings['evaluate_seconds']:.0f} s"
