"""Causal language modelling: next-token loss on packed or padded rows, and generated answers."""

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from neuroada.backbones.packed_attention import attend_by_example, attend_by_row
from neuroada.backbones.probes import require_causal, require_separate_examples
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
    """

    def __init__(self, model: PreTrainedModel, decoding: Decoding) -> None:
        self._model = model
        self._decoding = decoding
        self._loss = SummedLoss(model)
        self._generator: Generator | None = None

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

    def start_test(self) -> None:
        # A new one each time: it remembers what the model writes, and the weights may have changed since.
        self._generator = Generator(self._model, self._decoding)

    def answers(self, batch: PromptBatch, benchmark: int) -> list[list[int]]:
        assert self._generator is not None, "start_test comes first"
        return self._generator(batch, benchmark)

    def likelihoods(self, batch: PromptBatch) -> list[list[float]]:
        return ChoiceScorer(self._model, pad_token_id(self._decoding.tokenizer))(batch)

    def answered_by(self) -> list[Any]:
        return [config.to_diff_dict() for config in self._decoding.configs]
