"""transformers' continuous batching: a finished row makes room for the next prompt at once.

Batches do not wait for their longest row, which is faster with long generations and enough memory, as on GPUs. On a CPU
it takes more than twice the plain loop's time (docs/performance.md).
"""

from collections.abc import Sequence

from transformers import GenerationConfig, PreTrainedModel

from neuroada.config.errors import UserError
from neuroada.decoding.plain import of_one_limit, with_limit, without_stops


class ContinuousDecoder:
    """``generate_batch`` of a model whose attention can read a paged cache."""

    def __init__(self, model: PreTrainedModel, config: GenerationConfig) -> None:
        self._model = model
        self._config = config

    def decode(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """The new tokens of each prompt: at most ``limits`` of them, ending with the end token if it is reached.

        Raises:
            UserError: The library's scheduler dropped an item; it logs why.
        """
        written: list[list[int]] = [[] for _ in prompts]
        for limit, rows in of_one_limit(limits):
            asked = [list(prompts[row]) for row in rows]
            outputs = self._model.generate_batch(  # type: ignore[operator]  # typed as a module attribute
                asked, generation_config=without_stops(with_limit(self._config, limit)), warmup=False
            )
            done = [output.generated_tokens for output in outputs.values() if output.error is None]
            if len(done) < len(rows):
                num_lost = len(rows) - len(done)
                raise UserError(
                    f"evaluation.decoding=continuous: transformers gave up {num_lost} of {len(rows)} prompts; use "
                    "evaluation.decoding=auto"
                )
            for row, ids in zip(rows, done, strict=True):
                written[row] = ids
        return written
