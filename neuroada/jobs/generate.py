"""``job=generate``: what the base and an adapter answer, side by side."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from transformers import PreTrainedModel

from neuroada.backbones import loading
from neuroada.backbones.limits import Limits
from neuroada.config.errors import UserError
from neuroada.config.json_files import read_json
from neuroada.config.schema import RunConfig
from neuroada.data.benchmarks import BenchmarkItems
from neuroada.data.catalog import Dataset
from neuroada.data.chat_templates import with_chat_template
from neuroada.data.download import ensure
from neuroada.data.encoding import encode_prompts
from neuroada.data.entries import Sources
from neuroada.data.prompt_batches import PromptBatch
from neuroada.data.segments import prompt_text
from neuroada.decoding.answer_ends import answer_ends
from neuroada.decoding.answers import Answers
from neuroada.decoding.generator import Generator
from neuroada.decoding.settings import Decoding
from neuroada.methods.saved import Saved, open_saved
from neuroada.runs.adapter_origin import adapter_directory
from neuroada.runs.files import PROMPTS_FILE
from neuroada.runs.folder_lock import locked
from neuroada.runs.foreign_files import begins_with, refuse_other_files
from neuroada.runs.recorded_files import refuse_changed_adapter
from neuroada.storage.whole_files import write_whole
from neuroada.tasks.protocol import Example, Protocol
from neuroada.tasks.protocols import made, merged
from neuroada.training.data_sources import sources_of

GENERATIONS_FILE = "generations.jsonl"
NUM_SHOWN = 5
"""Rows of a file that are shown; all are written."""
_TOGETHER = 16
"""Prompts generated together."""


def generate(run: RunConfig, folder: Path) -> None:
    """Answer ``generate.prompt``, each row of ``generate.file``, or what is typed until an empty line.

    Raises:
        UserError, AdapterError: The adapter, its base or the file cannot be read, or do not belong together, or the
            same command is running already.
    """
    if run.generate.file is None and run.generate.prompt is None:
        _talk(_Writers.of(run, _asked(run, sources_of(run)).protocol), Console(highlight=False))
        return
    refuse_other_files(folder, own=begins_with('{"index": '))
    with locked([folder]):  # from the start: answers that could not be written would be lost
        _answer_all(run, folder)


def _answer_all(run: RunConfig, folder: Path) -> None:
    asked = _asked(run, sources_of(run))
    writers = _Writers.of(run, asked.protocol)
    console = Console(highlight=False)
    rows = list(writers.rows(asked.examples))
    write_whole(folder / GENERATIONS_FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    console.print(answers_table(rows[:NUM_SHOWN]))
    if len(rows) > NUM_SHOWN:
        console.print(f"and {len(rows) - NUM_SHOWN} more")
    console.print(f"answers: {escape(str(folder / GENERATIONS_FILE))}", soft_wrap=True)


def answers_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line for each question, with an answer from each model."""
    table = Table(show_lines=True)
    names = [name for name in ("base", "adapted") if name in rows[0]]
    for name in ("question", *names):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[name]) for name in ("instruction", *names)))
    return table


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
    protocol = _protocol_of_adapter(run) or _protocol_of_task(run, sources)
    prompt = run.generate.prompt
    return _Asked(protocol, [] if prompt is None else [question(prompt)])


def _protocol_of_adapter(run: RunConfig) -> Protocol | None:
    """The protocol of its first training set, with ``protocol.*`` applied; None if its folder does not say.

    From the adapter's own folder, because its data may be elsewhere. Nothing is judged here, so no judge is made.
    """
    file = None if run.adapter is None else adapter_directory(Path(run.adapter)) / PROMPTS_FILE
    if file is None or not file.is_file():
        return None
    try:
        name, definition = next(iter(read_json(file, dict[str, Any], "give another adapter").items()))
        kept = {key: definition[key] for key in ("prompt", "completion", "stop", "max_new_tokens", "chat")}
        settings = {key: value for key, value in asdict(run.protocol).items() if key in kept}
        return made(name, merged(kept, settings))
    except UserError:
        refuse_changed_adapter(file.parent)  # says more of a file that the run had written whole
        raise
    except (KeyError, TypeError, StopIteration):  # a class, or none
        return None


def _protocol_of_task(run: RunConfig, sources: Sources) -> Protocol:
    """The protocol of the first training set, else of the first benchmark."""
    named = [(run.task.train, "train"), (run.task.benchmarks, run.data.split)]
    entries, split = next((entries, split) for entries, split in named if entries)
    (first,) = sources.splits(entries[:1], split, "task.train")
    return first.protocol


def question(text: str, index: int = 0) -> Example:
    """A typed question, under every name that a protocol may use for it."""
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]
    names = dict.fromkeys(("instruction", "question", "prompt"), text)
    return Example(index, text, "", "", {**names, "input": "", "messages": turns})


@dataclass
class _Writers:
    """A backbone that answers with and without an adapter."""

    model: PreTrainedModel
    saved: Saved | None
    protocol: Protocol
    answers: Answers
    decoding: Decoding

    @classmethod
    def of(cls, run: RunConfig, protocol: Protocol) -> "_Writers":
        saved = None if run.adapter is None else _opened(adapter_directory(Path(run.adapter)))
        tokenizer = with_chat_template(loading.load_tokenizer(run.model), run.data.chat_template)
        ends = answer_ends(run.model, tokenizer)
        items = BenchmarkItems(Dataset("asked", protocol), "", protocol, [], [])
        decoding = Decoding.make(tokenizer, [items], run.evaluation, ends)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = loading.load_model(run.model, device).eval()
        return cls(model, saved, protocol, Answers(tokenizer, ends), decoding)

    def rows(self, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
        """One row for each example: its question, the whole prompt, and an answer from each model."""
        tokenizer = self.answers.tokenizer
        prompts = [prompt_text(example, self.protocol, tokenizer) for example in examples]
        found = {"base": self._answer(examples, "base")}
        if self.saved is not None:
            trained = self.saved.attach(self.model)
            try:
                found["adapted"] = self._answer(examples, "adapted")
            finally:
                trained.detach()
        for place, (example, prompt) in enumerate(zip(examples, prompts, strict=True)):
            answers = {name: texts[place] for name, texts in found.items()}
            yield {"index": example.index, "instruction": example.instruction, "prompt": prompt, **answers}

    def _answer(self, examples: Sequence[Example], name: str) -> list[str]:
        generator = Generator(self.model, self.decoding)
        prompts = encode_prompts(examples, self.protocol, self.answers.tokenizer)
        Limits.of(self.model).require_ids(max(map(max, filter(None, prompts)), default=0), self.answers.tokenizer)
        texts: list[str] = []
        starts = range(0, len(prompts), _TOGETHER)
        for start in track(starts, f"answers of the {name} model", disable=len(starts) == 1, transient=True):
            part = prompts[start : start + _TOGETHER]
            new = generator(PromptBatch(index=list(range(len(part))), prompts=part), 0)
            texts += self.answers.texts(new, self.protocol.stop)
        return texts


def _opened(directory: Path) -> Saved:
    refuse_changed_adapter(directory)
    return open_saved(directory)


def _talk(writers: _Writers, console: Console) -> None:
    console.print("Type a question; an empty line ends.")
    while True:
        try:
            typed = console.input("[bold]> [/bold]")
        except EOFError:
            return
        if not typed.strip():
            return
        console.print(answers_table(list(writers.rows([question(typed)]))))
