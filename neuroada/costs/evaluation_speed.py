"""Scope ``evaluation`` of ``job=benchmark``: questions per second of the evaluation engine and of a plain loop.

The plain loop is what reference implementations do: batches of 16 prompts in file order, padded on the left, through
transformers' ``generate`` until the last row of a batch has ended. The engine is what ``job=evaluate`` runs. Both
answer the same items with the same model, alternating in rounds; the engine's caches are empty at the start of a round.
Items whose tokens differ are answered once more, each alone, to find the true greedy answer: if two tokens are equally
likely to within rounding, a batch of another shape can choose the other one.

Machines are shared, so two clocks are read: the wall clock (``step_ms``, from which speeds and speed-ups are computed)
and the CPU time of this process, summed over its threads (``cpu_ms``), which other work on the machine affects far
less. On a GPU the CPU time does not include the GPU's work.
"""

import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from neuroada.backbones import loading
from neuroada.config.schema import RunConfig
from neuroada.costs.measurement import device_name
from neuroada.costs.timing import synchronize
from neuroada.costs.workloads import backbone
from neuroada.data.chat_templates import with_chat_template
from neuroada.data.module import InstructionDataModule
from neuroada.data.prompt_batches import PromptBatch, collate_prompts, default_tokens_per_batch
from neuroada.decoding.answer_ends import answer_ends
from neuroada.decoding.generator import Generator
from neuroada.decoding.plain import generate
from neuroada.decoding.settings import Decoding
from neuroada.methods.saved import open_saved
from neuroada.runs.adapter_origin import unchanged_adapter
from neuroada.training.data_sources import sources_of

logger = logging.getLogger(__name__)

PLAIN = "plain"
ENGINE = "engine"
PLAIN_BATCH_SIZE = 16

Answers = Iterator[tuple[int, PromptBatch, list[list[int]]]]
"""For each batch: the index of its benchmark, the batch, and the new tokens of each prompt."""
Written = Mapping[tuple[int, int], tuple[int, ...]]
"""(index of the benchmark, ``Example.index``) -> new tokens, including the end token if there is one."""


@dataclass(frozen=True)
class Questions:
    """A model and the items that it answers."""

    model: PreTrainedModel
    data: InstructionDataModule
    decoding: Decoding
    top_k: int | None = None
    """Trained inputs of a neuron; None if there is no adapter, or if they differ by layer."""

    @property
    def num_items(self) -> int:
        return sum(len(items.examples) for items in self.data.benchmarks)

    def plain(self) -> Answers:
        for place, (items, config) in enumerate(zip(self.data.benchmarks, self.decoding.configs, strict=True)):
            prompts = [(example.index, ids) for example, ids in zip(items.examples, items.prompts, strict=True)]
            for start in range(0, len(prompts), PLAIN_BATCH_SIZE):
                batch = collate_prompts(prompts[start : start + PLAIN_BATCH_SIZE])
                yield place, batch, generate(self.model, batch["prompts"], config)

    def _prompt(self, place: int, index: int) -> list[int]:
        items = self.data.benchmarks[place]
        position = next(position for position, example in enumerate(items.examples) if example.index == index)
        return items.prompts[position]

    def alone(self, place: int, index: int) -> tuple[int, ...]:
        """The new tokens of one item, answered in a batch of its own."""
        (new,) = generate(self.model, [self._prompt(place, index)], self.decoding.configs[place])
        return tuple(new)

    def gap(self, place: int, index: int, best: Sequence[int], other: Sequence[int]) -> float:
        """Logit of the first differing token in ``best`` minus that in ``other``."""
        # Neither is a prefix of the other, because the end token is part of a completion.
        same = next(step for step, (ours, theirs) in enumerate(zip(best, other, strict=False)) if ours != theirs)
        ids = [*self._prompt(place, index), *best[:same]]
        with torch.inference_mode():
            logits_V = self.model(torch.tensor([ids], device=self.model.device)).logits[0, -1].double()
        return float(logits_V[best[same]] - logits_V[other[same]])

    def engine(self) -> Answers:
        generator = Generator(self.model, self.decoding)  # its drafts and shared prefixes last for one round
        for place, loader in enumerate(self.data.test_dataloader()):
            for batch in loader:
                yield place, batch, generator(batch, place)


@dataclass(frozen=True)
class _Round:
    """All items answered once."""

    step_ms: float
    cpu_ms: float
    written: Written


def evaluation_rows(
    run: RunConfig, device: torch.device, dtype: torch.dtype, shown: Callable[[range, str], Iterable[int]] | None = None
) -> list[dict[str, Any]]:
    """The result rows of both methods.

    Args:
        shown: Wraps the rounds, given with what is timed, to show progress.

    Raises:
        UserError, AdapterError: A file is missing or wrong, or the adapter belongs to another base.
    """
    questions = questions_of(run, device, dtype)
    methods = {PLAIN: questions.plain, ENGINE: questions.engine}
    shape = _shape(run, questions)
    for answers in methods.values():
        next(answers())  # warm-up, so that no method is charged for one-time set-up
    rounds: dict[str, list[_Round]] = {name: [] for name in methods}
    rounds_to_do = range(run.benchmark.repeats)
    for _ in rounds_to_do if shown is None else shown(rounds_to_do, shape):
        for name, answers in methods.items():
            rounds[name].append(_timed(answers, device))
    shared = {
        "scope": run.benchmark.scope,
        "shape": shape,
        "top_k": questions.top_k,
        "dtype": str(dtype).removeprefix("torch."),
        "device": device_name(device),
        "questions": questions.num_items,
        "decoding": questions.decoding.engine,
    }
    differing = {name: _differing(done, rounds[PLAIN][0].written) for name, done in rounds.items()}
    alone = {key: questions.alone(*key) for key in sorted(frozenset().union(*differing.values()))}
    return [
        shared | _row(done, rounds[PLAIN]) | {"method": name} | _disputed(questions, done, differing[name], alone)
        for name, done in rounds.items()
    ]


def questions_of(run: RunConfig, device: torch.device, dtype: torch.dtype) -> Questions:
    """The run's model, with its adapter if it has one, and its benchmarks' items.

    Raises:
        UserError, AdapterError: A file is missing or wrong, or the adapter belongs to another base.
    """
    default_tokens = default_tokens_per_batch(run.evaluation.decoding, device.type)
    most_tokens = run.evaluation.max_tokens_per_batch or default_tokens
    evaluation = replace(run.evaluation, max_tokens_per_batch=most_tokens)
    tokenizer = with_chat_template(loading.load_tokenizer(run.model), run.data.chat_template)
    task, sources = replace(run.task, train=[]), sources_of(run)
    data = InstructionDataModule(task, run.data, evaluation, tokenizer, run.seed, sources=sources)
    data.prepare_data()
    data.setup()
    decoding = Decoding.make(tokenizer, data.benchmarks, evaluation, answer_ends(run.model, tokenizer))
    model = backbone(run, device, dtype).eval()
    if run.adapter is None:
        return Questions(model, data, decoding)
    saved = open_saved(unchanged_adapter(Path(run.adapter)), run.allow_precision)
    saved.attach(model)
    return Questions(model, data, decoding, None if "top_k_pattern" in saved.size else run.budget.top_k)


def _shape(run: RunConfig, questions: Questions) -> str:
    adapted = "" if run.adapter is None else f" with {run.method['name']}"
    benchmarks = ", ".join(f"{items.name} {len(items.examples)}" for items in questions.data.benchmarks)
    return f"{run.model.name}{adapted}, items: {benchmarks}"


def _timed(answers: Callable[[], Answers], device: torch.device) -> _Round:
    synchronize(device)
    started, cpu_started = time.perf_counter(), time.process_time()
    batches = list(answers())
    synchronize(device)
    step_ms = (time.perf_counter() - started) * 1000
    cpu_ms = (time.process_time() - cpu_started) * 1000
    return _Round(step_ms, cpu_ms, written_by(batches))


def written_by(answers: Iterable[tuple[int, PromptBatch, list[list[int]]]]) -> Written:
    """The new tokens of each item."""
    return {
        (place, index): tuple(ids)
        for place, batch, new in answers
        for index, ids in zip(batch["index"], new, strict=True)
    }


def _differing(rounds: list[_Round], expected: Written) -> frozenset[tuple[int, int]]:
    """Items whose tokens differ from the expected ones in any round."""
    return frozenset(key for one in rounds for key in expected if one.written[key] != expected[key])


def _disputed(
    questions: Questions, rounds: list[_Round], differing: frozenset[tuple[int, int]], alone: Written
) -> dict[str, Any]:
    """How many items differ from the plain loop, and how many of those differ from the answer given alone.

    ``largest_gap`` tells ties from mistakes: the largest logit difference among the items that differ from it.
    """
    wrong = {key: one.written[key] for one in rounds for key, ids in alone.items() if one.written[key] != ids}
    gaps = [questions.gap(*key, alone[key], ids) for key, ids in wrong.items()]
    if differing:
        logger.warning("%d items have tokens that differ from the plain loop's", len(differing))
    return {"differing": len(differing), "unlike_alone": len(wrong), "largest_gap": max(gaps, default=None)}


def _row(rounds: list[_Round], plain: list[_Round]) -> dict[str, Any]:
    times = [one.step_ms for one in rounds]
    median, cpu = statistics.median(times), statistics.median(one.cpu_ms for one in rounds)
    num_tokens = sum(map(len, rounds[0].written.values()))
    return {
        "step_ms": round(median, 1),
        "step_ms_min": round(min(times), 1),
        "step_ms_max": round(max(times), 1),
        "cpu_ms": round(cpu, 1),
        "questions_per_s": round(len(rounds[0].written) / median * 1000, 3),
        "tokens_per_s": round(num_tokens / median * 1000, 1),
        "vs_plain": round(statistics.median(one.step_ms for one in plain) / median, 3),
        "vs_plain_cpu": round(statistics.median(one.cpu_ms for one in plain) / cpu, 3),
    }
