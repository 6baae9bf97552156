"""Causal language modelling: next-token loss on packed or padded rows, and generated answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from neuroada.backbones.packed_attention import attend_by_example, attend_by_row
from neuroada.backbones.probes import require_causal, require_separate_examples
from neuroada.config.schema import EvaluationConfig
from neuroada.data.benchmarks import BenchmarkItems
from neuroada.data.module import InstructionDataModule
from neuroada.data.packing import TrainingBatch, pad_token_id
from neuroada.data.prompt_batches import PromptBatch
from neuroada.decoding.generator import Generator
from neuroada.decoding.likelihoods import ChoiceScorer
from neuroada.decoding.settings import Decoding
from neuroada.training.loss import SummedLoss


class CausalLanguageModelling:
    """The objective of instruction tuning.

    Args:
        model: The backbone, with the method on it.
        decoding: How each benchmark is generated.
        evaluation: Limits of a batch and of an answer. Held-out questions are always answered greedily: that is cheap,
            the same after a resume, and does not advance the random state of training.
        ends: Ids that end an answer.
    """

    def __init__(
        self, model: PreTrainedModel, decoding: Decoding, evaluation: EvaluationConfig, ends: Sequence[int]
    ) -> None:
        self._model = model
        self._decoding = decoding
        # Engines with their own cache or process are for scoring only; in training, memory is needed for other things.
        plainly = "plain" if evaluation.decoding == "plain" else "auto"
        self._greedy = replace(evaluation, generation={}, decoding=plainly)
        self._ends = ends
        self._loss = SummedLoss(model)
        self._answers: _Answers | None = None

    def start_fit(self, data: InstructionDataModule) -> None:
        """Raises UserError where a token would see later ones, or those of another example of a packed row."""
        require_causal(self._model)
        if data.packs_examples:
            require_separate_examples(self._model)
            attend_by_example(self._model)

    def end_fit(self) -> None:
        attend_by_row(self._model)

    def summed_loss(self, batch: TrainingBatch) -> tuple[Tensor, int]:
        return self._loss(batch)

    def example_losses(self, batch: TrainingBatch) -> Tensor:
        return self._loss.by_example(batch)

    def start_test(self) -> None:
        self._answers = self._answering(self._decoding)

    def outputs(self, batch: PromptBatch, benchmark: int) -> dict[str, Any]:
        assert self._answers is not None, "start_test comes first"
        return self._answers.outputs(batch, benchmark)

    def asked(self, questions: Sequence[BenchmarkItems]) -> "_Answers":
        return self._answering(Decoding.make(self._decoding.tokenizer, questions, self._greedy, self._ends))

    def answered_by(self) -> list[Any]:
        return [config.to_diff_dict() for config in self._decoding.configs]

    def _answering(self, decoding: Decoding) -> "_Answers":
        # A new generator each time: it remembers what the model writes, and the weights may have changed since.
        scorer = ChoiceScorer(self._model, pad_token_id(decoding.tokenizer))
        return _Answers(Generator(self._model, decoding), scorer)


@dataclass(frozen=True)
class _Answers:
    """Generates answers, or scores choices where there are some."""

    generator: Generator
    scorer: ChoiceScorer

    def outputs(self, batch: PromptBatch, benchmark: int) -> dict[str, Any]:
        if "choices" in batch:
            return {"log_likelihoods": self.scorer(batch)}
        return {"new_tokens": self.generator(batch, benchmark)}
