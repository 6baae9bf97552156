"""The table at the end of a run, made from its ``result.json``."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from neuroada.training.record import RESULT_FILE, read_result


def show(folder: Path) -> None:
    """Print the summary of a run folder; a job that records no result has nothing to show."""
    if (folder / RESULT_FILE).is_file():
        Console().print(summary_table(read_result(folder), folder))


def summary_table(result: dict[str, Any], folder: Path) -> Table:
    """Accuracy of each benchmark in percent, under the run's method, budget and loss."""
    metrics = result["metrics"]
    table = Table(title=_title(result), caption=_caption(result, folder), show_footer=True, title_justify="left")
    table.caption_justify = "left"
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


def _title(result: dict[str, Any]) -> str:
    config, budget = result["config"], result["budget"]
    method = config["method"]["name"]
    name = f"{config['model']['name']} on {config['task']['name']}"
    if method == "none":
        return f"{name}: base model, nothing trained"
    return (
        f"{name}: {method} top_k={config['budget']['top_k']}, {budget['trainable']:,} of {budget['total']:,} "
        f"parameters ({budget['percent']:.3f} %), loss on {config['task']['loss_on']}"
    )


def _caption(result: dict[str, Any], folder: Path) -> str:
    timings = result["timings"]
    fit = f"fit {timings['fit_seconds']:.0f} s, " if "fit_seconds" in timings else ""
    dtype = result["content"]["dtype"]
    times = f"{fit}scored in {timings['evaluate_seconds']:.0f} s, {dtype} on {result['device']}"
    return f"seed {result['config']['seed']}, {times}\n{folder}"
