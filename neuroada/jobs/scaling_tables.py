"""``python -m neuroada.jobs.scaling_tables``: the tables and the figure of docs/scaling.md, from the memory planner."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuroada.config.errors import UserError
from neuroada.costs import many_devices, roofline
from neuroada.costs.many_devices import EXAMPLE_TOKENS, LORA_RANK, MODELS, Layout, Subject, model_config
from neuroada.costs.roofline import Cluster, measured_share
from neuroada.report import drawing, palette
from neuroada.report.marked_pages import check_places, markdown, write_into

_GIGA = 1e9
_MODELS = ["llama_7b", "llama_13b", "llama3_70b", "llama3_405b"]
"""Sizes far apart; another 7B or 8B model is like the first."""
_GPUS = {80: (0, (4, 3)), 141: (0, (1, 2))}
"""Memory of a GPU in GB -> the line that marks it."""
"""GB of an H100 and an H200 as advertised. Both have 6 % more, which is left to the driver and the allocator."""
_FIGURE_RANKS = (1, 2, 4, 8, 16, 32, 64)

Rows = list[list[str]]


@dataclass(frozen=True)
class Scenario:
    """What the tables cover."""

    models: Sequence[str]
    budgets: Sequence[int]
    ranks: Sequence[int]
    tokens: Sequence[int]
    cluster: Cluster

    def layouts(self) -> list[Layout]:
        return [Layout(1, False), *(Layout(ranks, True) for ranks in self.ranks)]


def memory_table(scenario: Scenario, subjects: Sequence[Subject]) -> str:
    """GB on each rank, by layout, micro-batch tokens and checkpointing."""
    settings = [(tokens, checkpointing) for checkpointing in (False, True) for tokens in scenario.tokens]
    names = [f"{tokens:,}{' ckpt' if checkpointing else ''}" for tokens, checkpointing in settings]
    heads = ["model", "k", "layout, ranks", "held", *names, *(f"fits {gpu} GB" for gpu in _GPUS)]
    rows = []
    for subject in subjects:
        for layout in scenario.layouts():
            totals = [subject.memory(layout, *setting) for setting in settings]
            held = totals[0].total - totals[0].step
            fits = [_best_fit(scenario, subject, layout, gpu) for gpu in _GPUS]
            name = "one GPU, or DDP" if layout.ranks == 1 else layout.name
            cells = [_gb(held), *(_gb(memory.total) for memory in totals), *fits]
            rows.append([subject.name, str(subject.top_k), name, *cells])
    return markdown(heads, rows, left=(0, 2))


def _fits(subject: Subject, layout: Layout, num_tokens: int, checkpointing: bool, gpu: int) -> bool:
    return subject.memory(layout, num_tokens, checkpointing).total <= gpu * _GIGA


def _best_fit(scenario: Scenario, subject: Subject, layout: Layout, gpu: int) -> str:
    """The largest micro-batch that fits, without checkpointing if it also fits that way."""
    for tokens in sorted(scenario.tokens, reverse=True):
        for checkpointing in (False, True):
            if _fits(subject, layout, tokens, checkpointing, gpu):
                return f"{tokens:,}{' ckpt' if checkpointing else ''}"
    return "no"


def traffic_table(scenario: Scenario, subjects: Sequence[Subject]) -> str:
    """GB that each rank sends in a step, by method."""
    ranks = max(scenario.ranks)
    whole, sharded = Layout(ranks, False), Layout(ranks, True)
    heads = ["model", "k", "values", "NeuroAda DDP", f"LoRA r={LORA_RANK} DDP", "NeuroAda FSDP", "full FSDP"]
    rows = []
    for subject in subjects:
        sizes = subject.sizes
        under_ddp = [many_devices.bytes_sent(sizes, whole), many_devices.lora_bytes_sent(sizes, whole)]
        under_fsdp = [many_devices.bytes_sent(sizes, sharded), many_devices.full_bytes_sent(sizes, sharded)]
        cells = [f"{num_bytes / _GIGA:.3f}" for num_bytes in under_ddp] if _weights_fit(subject) else ["-", "-"]
        cells += [_gb(num_bytes) for num_bytes in under_fsdp]
        rows.append([subject.name, str(subject.top_k), f"{sizes.values / 1e6:,.1f} M", *cells])
    return markdown(heads, rows)


def _weights_fit(subject: Subject) -> bool:
    return 2 * (subject.sizes.in_blocks + subject.sizes.outside) <= max(_GPUS) * _GIGA


def time_table(scenario: Scenario, subjects: Sequence[Subject]) -> str:
    """Estimated milliseconds of a step of one micro-batch on the largest GPU, if it fits."""
    names = [f"{name}, {tokens:,}" for tokens in scenario.tokens for name in ("compute", "send", "step")]
    heads = ["model", "k", "layout, ranks", "ckpt", *names, "tokens/s", "hidden from"]
    top_k = max(scenario.budgets)
    rows: Rows = []
    for subject in (subject for subject in subjects if subject.top_k == top_k):
        whole = [Layout(ranks, False) for ranks in (1, *scenario.ranks)]
        for layout in [*whole, *(Layout(ranks, True) for ranks in scenario.ranks)]:
            rows += _time_row(scenario, subject, layout)
    return markdown(heads, rows, left=(0, 2, 3))


def _time_row(scenario: Scenario, subject: Subject, layout: Layout) -> Iterator[list[str]]:
    """One row, or none if the step does not fit even with checkpointing."""
    cluster, most = scenario.cluster, max(scenario.tokens)
    ways = [way for way in (False, True) if _fits(subject, layout, most, way, max(_GPUS))]
    if not ways:
        return
    cells, step = [], 0.0
    exchange = cluster.exchange_seconds(many_devices.bytes_sent(subject.sizes, layout), layout.ranks)
    for tokens in scenario.tokens:
        compute = cluster.compute_seconds(roofline.operations(subject.sizes, tokens, EXAMPLE_TOKENS, ways[0]))
        step = roofline.step_seconds(compute, exchange, layout)
        cells += [_ms(compute), _ms(exchange), _ms(step)]
    a_token = cluster.compute_seconds(roofline.operations(subject.sizes, 1, EXAMPLE_TOKENS, ways[0]))
    hidden = f"{exchange / a_token:,.0f}" if layout.is_sharded else "-"
    speed = f"{float(f'{layout.ranks * most / step:.3g}'):,.0f}"
    yield [subject.name, str(subject.top_k), layout.name, "yes" if ways[0] else "no", *cells, speed, hidden]


TABLES: dict[str, Callable[[Scenario, Sequence[Subject]], str]] = {
    "memory": memory_table,
    "traffic": traffic_table,
    "time": time_table,
}


def _gb(num_bytes: float) -> str:
    return f"{num_bytes / _GIGA:,.1f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}" if seconds >= 0.01 else f"{1000 * seconds:.1f}"


def draw(path: Path, subject: Subject, num_tokens: int) -> None:
    """Plot the memory of a rank by its parts over the number of ranks, with checkpointing.

    Raises:
        ImportError: matplotlib is not installed.
    """
    layouts = [Layout(ranks, ranks > 1) for ranks in _FIGURE_RANKS]
    memories = [subject.memory(layout, num_tokens, checkpointing=True) for layout in layouts]
    parts = {
        "blocks": "blocks, sharded",
        "outside": "embeddings and output head, whole",
        "gathered": "whole blocks, gathered",
        "trained": "values, columns, Adam, sharded",
        "step": "activations and working memory",
    }
    with drawing.style():
        figure, [axes] = drawing.canvas(height=3.6)
        below = [0.0] * len(layouts)
        for (part, label), colour in zip(parts.items(), palette.SERIES_COLOURS, strict=False):
            heights = [getattr(memory, part) / _GIGA for memory in memories]
            axes.bar(range(len(layouts)), heights, bottom=below, width=0.62, color=colour, label=label)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        for place, total in enumerate(below):
            above = {"xytext": (0, 2), "textcoords": "offset points", "ha": "center", "fontsize": 8}
            axes.annotate(f"{total:.0f}", (place, total), **above)
        for gpu, line in _GPUS.items():
            axes.axhline(gpu, color=palette.FAINT, linestyle=line, linewidth=1, label=f"a GPU of {gpu} GB")
        axes.set_xticks(range(len(layouts)), [str(layout.ranks) for layout in layouts])
        axes.set_xlabel("ranks (FSDP; 1 is one GPU)")
        axes.set_ylabel("GB on each rank")
        axes.set_title(f"{subject.name}, k={subject.top_k}, {num_tokens:,} tokens, gradient checkpointing")
        drawing.legend_below(figure, axes)
        if path.suffix == ".svg":
            drawing.save_svg(figure, path)
        else:
            figure.savefig(path, dpi=160)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, or write them and the figure to files."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        scenario = _scenario(given)
        if given.into is not None:
            check_places(given.into, TABLES)
        subjects = [Subject(name, top_k) for name in scenario.models for top_k in scenario.budgets]
        tables = {name: make(scenario, subjects) for name, make in TABLES.items()}
        if given.into is None:
            sys.stdout.write("\n".join(tables.values()))
        else:
            write_into(given.into, tables)
        if given.figure is not None:
            draw(given.figure, subjects[-1], max(scenario.tokens))
    except UserError as error:
        parser.exit(2, f"neuroada: {error}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m neuroada.jobs.scaling_tables", description=__doc__.partition("``: ")[2])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=_MODELS)
    parser.add_argument(
        "--top-k", type=int, nargs="+", metavar="N", default=[1, 20], help="budgets; times are for the largest"
    )
    parser.add_argument("--ranks", type=int, nargs="+", metavar="N", default=[8, 64])
    parser.add_argument(
        "--tokens",
        type=int,
        nargs="+",
        metavar="N",
        default=[512, 4096],
        help="tokens of a rank's micro-batch, multiples of 512",
    )
    parser.add_argument(
        "--tflops", type=float, default=989, help="peak TFLOPS of a GPU in bfloat16 (default: %(default)s)"
    )
    parser.add_argument(
        "--reached", type=float, default=0.4, help="share of the peak that is reached (default: %(default)s)"
    )
    parser.add_argument("--measured", type=Path, help="benchmark.json of job=benchmark on a GPU; replaces --reached")
    parser.add_argument(
        "--inside", type=float, default=450, help="GB/s of a GPU inside its node (default: %(default)s)"
    )
    parser.add_argument("--between", type=float, default=50, help="GB/s of a GPU between nodes (default: %(default)s)")
    parser.add_argument(
        "--links", type=float, default=0.8, help="share of both rates that is reached (default: %(default)s)"
    )
    parser.add_argument("--into", type=Path, help="Markdown page to write the tables into instead of printing them")
    parser.add_argument(
        "--figure", type=Path, help="file (.svg, .png) for the figure of the last model's memory over ranks"
    )
    return parser


def _scenario(given: argparse.Namespace) -> Scenario:
    for tokens in given.tokens:
        if tokens < EXAMPLE_TOKENS or tokens % EXAMPLE_TOKENS:
            raise UserError(f"--tokens {tokens}: must be a multiple of {EXAMPLE_TOKENS}, the tokens of an example")
    for name in ("top_k", "ranks"):
        least = 1 if name == "top_k" else 2
        if min(getattr(given, name)) < least:
            raise UserError(f"--{name.replace('_', '-')} {min(getattr(given, name))}: must be at least {least}")
    for name in ("tflops", "reached", "inside", "between", "links"):
        if getattr(given, name) <= 0:
            raise UserError(f"--{name} {getattr(given, name)}: must be above 0")
    peak = given.tflops * 1e12
    known = {name: model_config(name) for name in MODELS}
    cluster = Cluster(
        peak=peak,
        reached=given.reached if given.measured is None else measured_share(given.measured, peak, known),
        inside=given.inside * _GIGA,
        between=given.between * _GIGA,
        links_reached=given.links,
    )
    return Scenario(given.models, sorted(given.top_k), sorted(given.ranks), sorted(given.tokens), cluster)


if __name__ == "__main__":
    main()
