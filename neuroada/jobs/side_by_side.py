"""A backbone that answers the same questions without and with adapters."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
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
from neuroada.data.encoding import encode_prompts
from neuroada.data.entries import Sources
from neuroada.data.prompt_batches import PromptBatch
from neuroada.data.segments import prompt_text
from neuroada.decoding.answer_ends import answer_ends
from neuroada.decoding.answers import Answers
from neuroada.decoding.generator import Generator
from neuroada.decoding.settings import Decoding
from neuroada.methods.saved import Saved
from neuroada.runs.adapter_origin import adapter_directory
from neuroada.runs.files import PROMPTS_FILE
from neuroada.runs.recorded_files import refuse_changed_adapter
from neuroada.tasks.protocol import Example, Protocol, ProtocolError
from neuroada.tasks.protocols import made, merged

BASE = "base"
"""The model without an adapter, in rows of answers."""
_OF_THE_QUESTION = ("index", "instruction", "prompt")
_TOGETHER = 16
"""Prompts generated together."""


@dataclass
class Writers:
    """A backbone and what it answers with.

    Attributes:
        adapters: Those to put on it in turn, by the names that the answers get.
    """

    model: PreTrainedModel
    adapters: Mapping[str, Saved]
    protocol: Protocol
    answers: Answers
    decoding: Decoding

    @classmethod
    def of(cls, run: RunConfig, protocol: Protocol, adapters: Mapping[str, Saved]) -> "Writers":
        """Loads the backbone."""
        tokenizer = with_chat_template(loading.load_tokenizer(run.model), run.data.chat_template)
        ends = answer_ends(run.model, tokenizer)
        items = BenchmarkItems(Dataset("asked", protocol), "", protocol, [], [])
        decoding = Decoding.make(tokenizer, [items], run.evaluation, ends)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = loading.load_model(run.model, device).eval()
        return cls(model, adapters, protocol, Answers(tokenizer, ends), decoding)

    def rows(self, examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
        """One row for each example: its question, the whole prompt, and an answer of the base and with each adapter."""
        tokenizer = self.answers.tokenizer
        prompts = [prompt_text(example, self.protocol, tokenizer) for example in examples]
        found = {BASE: self._answer(examples, BASE)}
        for name, saved in self.adapters.items():
            trained = saved.attach(self.model)
            try:
                found[name] = self._answer(examples, name)
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


def answers_table(rows: Sequence[dict[str, Any]]) -> Table:
    """One line for each question, with an answer from each model."""
    table = Table(show_lines=True)
    names = [name for name in rows[0] if name not in _OF_THE_QUESTION]
    for name in ("question", *names):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[name]) for name in ("instruction", *names)))
    return table


def question(text: str, index: int = 0) -> Example:
    """A typed question, under every name that a protocol may use for it."""
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]
    names = dict.fromkeys(("instruction", "question", "prompt"), text)
    return Example(index, text, "", "", {**names, "input": "", "messages": turns})


def questions(key: str, texts: Sequence[str], protocol: Protocol, way_out: str) -> list[Example]:
    """Typed questions, numbered from 0.

    Raises:
        UserError: The prompt needs more than a question.
    """
    asked = [question(text, number) for number, text in enumerate(texts)]
    try:
        for example in asked:
            protocol.prompt(example)
    except ProtocolError as error:
        problem = str(error).partition("; correct")[0]
        raise UserError(f"{key}: a question alone does not fill the prompt ({problem}); {way_out}") from error
    return asked


def protocol_of_questions(run: RunConfig, sources: Sources) -> Protocol:
    """The protocol that puts typed questions into prompts: that of the adapter's training data, else of the task."""
    return _protocol_of_adapter(run) or _protocol_of_task(run, sources)


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
