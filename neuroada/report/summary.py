"""The summary that a run prints at its end, from its ``result.json``."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from neuroada.config.errors import UserError
from neuroada.config.schema import ENGINES
from neuroada.report.estimates import bounds_of
from neuroada.runs.files import RESULT_FILE
from neuroada.runs.listing import Run
from neuroada.runs.stored_files import read_result
from neuroada.tasks import intervals

MANY_MISSING = 0.1
"""If more than this share of a benchmark's answers lack the trigger, its score says little about knowledge."""


@rank_zero_only
def show(folder: Path) -> None:
    """Print the summary of a run folder; nothing for a job that records no result.

    Raises:
        UserError: The result is damaged.
    """
    if not (folder / RESULT_FILE).is_file():
        return
    result = read_result(folder)
    console = Console(highlight=False)
    try:
        shown = [f"\n[bold]{escape(headline(result))}[/bold]", scores_table(result), *remarks(result)]
        shown.append(conditions(result))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / RESULT_FILE} is no result that can be shown ({type(error).__name__}: {error}); delete it to "
            "run again"
        ) from error
    for part in shown:
        console.print(part)
    here = Path.cwd()
    place = folder.relative_to(here) if folder.is_relative_to(here) else folder
    console.print(f"run folder: {place}", soft_wrap=True, markup=False)


def scores_table(result: dict[str, Any]) -> Table:
    """Accuracy of each benchmark in percent with its 95 % interval, and the averages over benchmarks and over items."""
    scores = result["metrics"]["benchmarks"]
    is_checked = any("contamination" in score for score in scores.values())
    columns = ["benchmark", "n", "accuracy\n%", "95 %\ninterval", "strict\n%", "no\ntrigger"]
    columns += ["clean\n%"] if is_checked else []
    table = Table(show_footer=True)
    for name, footer in zip(columns, _averages(result["metrics"]), strict=False):
        is_name = name == "benchmark"
        table.add_column(name, footer, justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name)
    for name, score in scores.items():
        missing = str(score["missing_trigger"])
        cells = (
            str(score["n"]),
            percent(score["protocol"]),
            _interval(score),
            percent(score["strict"]),
            f"[red]{missing}[/red]" if _is_about_format(score) else missing,
        )
        table.add_row(escape(name), *cells, *([_clean(score)] if is_checked else []))
    return table


def remarks(result: dict[str, Any]) -> Iterator[str]:
    """Remarks on the table, in console markup: one line each."""
    scores = result["metrics"]["benchmarks"]
    about_format = [name for name, score in scores.items() if _is_about_format(score)]
    if about_format:
        missing = [f"{name} {scores[name]['missing_trigger']} of {scores[name]['n']}" for name in about_format]
        yield f"[red]{', '.join(missing)} answers were not found: the scores measure format, not knowledge[/red]"
    differing = _counts(scores, "disagreements")
    if differing:
        yield f"items on which protocol and strict differ: {differing}; job=rescore runs=<run folder> lists them"
    empty = _counts(scores, "empty")
    if empty:
        yield f"empty generations: {empty}"
    too_long = _counts(scores, "too_long")
    if too_long:
        yield f"prompts longer than the context, counted as wrong: {too_long}; too_long marks them in predictions/"
    leaked = {name: score.get("contamination", {}) for name, score in scores.items()}
    found = _counts(leaked, "leaked")
    if found:
        yield f"clean: without the items whose question is in the training set ({found})"
    yield from _metrics(scores)
    yield from _validation(result.get("validation", {}))
    yield from _forgetting(result.get("forgetting") or {})


def _metrics(scores: dict[str, Any]) -> Iterator[str]:
    """All metrics of benchmarks with several, or with one that is no share of items."""
    for name, score in scores.items():
        found = score.get("metrics", {})
        if len(found) > 1 or "metric" in score:
            shown = [f"{metric} {percent(value)}" for metric, value in found.items()]
            yield f"{escape(name)}: {', '.join(shown)}; the first is the score"


def _validation(found: dict[str, Any]) -> Iterator[str]:
    """Results on held-out rows: the loss of the kept adapter, and the first and last accuracy."""
    if "loss" not in found:
        return
    base = f" ({found['base_loss']:.4f} before training)" if "base_loss" in found else ""
    yield f"held-out loss {found['loss']:.4f} at step {found['step']}{base}"
    if found.get("answers"):
        first, last = found["answers"][0], found["answers"][-1]
        shares = [f"{percent(asked['accuracy'])} % at step {asked['step']}" for asked in (first, last)]
        yield f"held-out accuracy on {last['n']} questions: {', '.join(shares)}"


def _forgetting(found: dict[str, Any]) -> Iterator[str]:
    """How much training raised the loss on general text; only the loss if the model was not trained in this run."""
    if "after" not in found:
        return
    if found.get("before") is None or found.get("difference") is None:
        yield f"loss on general text: {found['after']:.3f}"
        return
    yield (
        f"loss on general text: {found['before']:.3f} before, {found['after']:.3f} after "
        f"({found['difference']:+.3f} nats)"
    )


def percent(fraction: float) -> str:
    """A fraction in percent with one decimal, as papers report accuracy."""
    return f"{100 * fraction:.1f}"


def headline(result: dict[str, Any]) -> str:
    """Backbone, task, method, and the trained share of the parameters, as papers report it."""
    run, budget = Run.finished(result), result["budget"]
    name = f"{run.model} on {run.task}"
    if run.is_base:
        return f"{name}: base model, nothing trained"
    wanted = "" if budget.get("wanted") is None else f", wanted {budget['wanted']:,}"
    return (
        f"{name}: {run.label}, {budget['trainable']:,} of {budget['total']:,} parameters "
        f"({budget['percent']:.3f} %){wanted}"
    )


def conditions(result: dict[str, Any]) -> str:
    """What a reader must know to compare the scores: loss, seed, items, precision, device, batches, time."""
    config, timings = result["config"], result["timings"]
    num_items = sum(score["n"] for score in result["metrics"]["benchmarks"].values())
    has_trained = "fit_seconds" in timings
    limit = config["evaluation"].get("limit")
    sample = f" (a sample of {limit} per benchmark)" if limit else ""
    parts = [
        _trained_on(config["task"]) if has_trained else "",
        f"seed {config['seed']}",
        f"{result['content']['dtype']} on {result['device']}",
        f"fit {timings['fit_seconds']:.0f} s" if has_trained else "",
        f"{num_items:,} items{sample} scored in {timings['evaluate_seconds']:.0f} s",
        _batches(result),
    ]
    return ", ".join(part for part in parts if part)


def _trained_on(task: Mapping[str, Any]) -> str:
    """What carried the loss: parts of a text, or its label."""
    return f"loss on {task['loss_on']}" if task.get("objective") is None else f"loss of the {task['objective']}"


def _batches(result: dict[str, Any]) -> str:
    """The limits of an evaluation batch, if recorded: earlier versions did not record a default."""
    configured = result["config"]["evaluation"]
    decoding = configured.get("decoding")
    if decoding in ENGINES:
        return f"answered by {ENGINES[decoding]}"
    recorded = {**configured, **result.get("evaluation", {})}
    prompts, tokens = configured.get("batch_size"), recorded.get("max_tokens_per_batch")
    limits = [f"{prompts} prompts"] if prompts else []
    limits += [f"{tokens:,} tokens"] if tokens else []
    return f"batches of at most {' or '.join(limits)}" if limits else ""


def _averages(metrics: dict[str, Any]) -> list[str]:
    """The two footer lines, column by column: macro above micro."""
    scores = list(metrics["benchmarks"].values())
    num_items, num_correct = (sum(score[key] for score in scores) for key in ("n", "correct"))
    strict = metrics.get("strict_macro", sum(score["strict"] for score in scores) / len(scores))
    shares = [score.get("contamination", {}).get("clean", {}).get("protocol") for score in scores]
    clean = "-" if None in shares else percent(sum(shares) / len(shares))
    low, high = metrics.get("micro_ci95") or intervals.of_share(num_correct, num_items)
    return [
        "macro\nmicro",
        f"\n{num_items}",
        f"{percent(metrics['macro'])}\n{percent(metrics['micro'])}",
        f"\n{percent(low)}–{percent(high)}",
        percent(strict),
        "",
        clean,
    ]


def _interval(score: dict[str, Any]) -> str:
    low, high = bounds_of(score)
    return f"{percent(low)}–{percent(high)}"


def _clean(score: dict[str, Any]) -> str:
    """Accuracy on the clean items; a dash if there are none or this was not checked."""
    share = score.get("contamination", {}).get("clean", {}).get("protocol")
    return "-" if share is None else percent(share)


def _is_about_format(score: dict[str, Any]) -> bool:
    return bool(score["missing_trigger"] > MANY_MISSING * score["n"])


def _counts(entries: dict[str, dict[str, Any]], key: str) -> str:
    """Each name with its count, without zeros."""
    return ", ".join(f"{name} {entry[key]}" for name, entry in entries.items() if entry.get(key))
