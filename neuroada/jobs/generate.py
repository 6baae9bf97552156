"""``job=generate``: what the base and an adapter answer, side by side."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from neuroada.config.schema import RunConfig
from neuroada.data.download import ensure
from neuroada.data.entries import Sources
from neuroada.jobs.side_by_side import Writers, answers_table, protocol_of_questions, questions
from neuroada.methods.saved import Saved, open_saved
from neuroada.runs.adapter_origin import unchanged_adapter
from neuroada.runs.folder_lock import locked
from neuroada.runs.foreign_files import begins_with, refuse_other_files
from neuroada.storage.whole_files import write_whole
from neuroada.tasks.protocol import Example, Protocol
from neuroada.training.data_sources import sources_of

GENERATIONS_FILE = "generations.jsonl"
NUM_SHOWN = 5
"""Rows of a file that are shown; all are written."""


def generate(run: RunConfig, folder: Path) -> None:
    """Answer ``generate.prompt``, each row of ``generate.file``, or what is typed until an empty line.

    Raises:
        UserError, AdapterError: The adapter, its base or the file cannot be read, or do not belong together, or the
            same command is running already.
    """
    if run.generate.file is None and run.generate.prompt is None:
        _talk(_writers(run, _asked(run, sources_of(run)).protocol), Console(highlight=False))
        return
    refuse_other_files(folder, own=begins_with('{"index": '))
    with locked([folder]):  # from the start: answers that could not be written would be lost
        _answer_all(run, folder)


def _answer_all(run: RunConfig, folder: Path) -> None:
    asked = _asked(run, sources_of(run))
    writers = _writers(run, asked.protocol)
    console = Console(highlight=False)
    rows = list(writers.rows(asked.examples))
    write_whole(folder / GENERATIONS_FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    console.print(answers_table(rows[:NUM_SHOWN]))
    if len(rows) > NUM_SHOWN:
        console.print(f"and {len(rows) - NUM_SHOWN} more")
    console.print(f"answers: {escape(str(folder / GENERATIONS_FILE))}", soft_wrap=True)


@dataclass(frozen=True)
class _Asked:
    protocol: Protocol
    examples: list[Example]


def _asked(run: RunConfig, sources: Sources) -> _Asked:
    """The questions, and the protocol that puts them into prompts: that of the file, else that of the task."""
    if run.generate.file is not None:
        (split,) = sources.splits([run.generate.file], run.data.split, "generate.file")
        ensure([split], Path(run.data.dir), run.data.url)
        return _Asked(split.protocol, split.examples(scored=False))
    protocol = protocol_of_questions(run, sources)
    return _Asked(protocol, [] if run.generate.prompt is None else _typed([run.generate.prompt], protocol))


def _typed(texts: list[str], protocol: Protocol) -> list[Example]:
    return questions("generate.prompt", texts, protocol, "give rows with generate.file=<file>")


def _writers(run: RunConfig, protocol: Protocol) -> Writers:
    adapters = {} if run.adapter is None else {"adapted": _opened(run)}
    return Writers.of(run, protocol, adapters)


def _opened(run: RunConfig) -> Saved:
    return open_saved(unchanged_adapter(Path(run.adapter)), run.allow_precision)


def _talk(writers: Writers, console: Console) -> None:
    console.print("Type a question; an empty line ends.")
    while True:
        try:
            typed = console.input("[bold]> [/bold]")
        except EOFError:
            return
        if not typed.strip():
            return
        console.print(answers_table(list(writers.rows(_typed([typed], writers.protocol)))))
