"""Choose the decoder of a benchmark: the configured one, if the model supports it."""

from collections.abc import Sequence
from typing import Protocol

from transformers import GenerationConfig, PreTrainedModel

from neuroada.decoding.cache import can_verify
from neuroada.decoding.continuous import ContinuousDecoder
from neuroada.decoding.drafts import Drafts
from neuroada.decoding.plain import PlainDecoder
from neuroada.decoding.settings import Decoding
from neuroada.decoding.verified import CPU_TOKENS_PER_PASS, GPU_TOKENS_PER_PASS, VerifiedDecoder
from neuroada.decoding.vllm_engine import VllmDecoder, start_engine


class Decoder(Protocol):
    """Answers the prompts of one benchmark."""

    def decode(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """The new tokens of each prompt: at most ``limits`` of them, ending with the end token if it is reached."""


def decoders(model: PreTrainedModel, decoding: Decoding) -> list[Decoder]:
    """One decoder per benchmark.

    Raises:
        UserError: The requested engine is not installed.
    """
    match decoding.engine:
        case "continuous":
            return [ContinuousDecoder(model, config) for config in decoding.configs]
        case "vllm":
            engine = start_engine(model)
            return [VllmDecoder(engine, config) for config in decoding.configs]
        case "verified" if can_verify(model):
            parts = zip(decoding.configs, decoding.openings, strict=True)
            return [_verified(model, config, opening) for config, opening in parts]
    return [PlainDecoder(model, config) for config in decoding.configs]


def _verified(model: PreTrainedModel, config: GenerationConfig, opening: Sequence[int]) -> Decoder:
    end = config.eos_token_id
    if end is None:
        return PlainDecoder(model, config)
    assert isinstance(end, int), "a tokenizer has one end token"
    tokens_per_pass = CPU_TOKENS_PER_PASS if model.device.type == "cpu" else GPU_TOKENS_PER_PASS
    return VerifiedDecoder(model, end, Drafts(opening, end) if opening else None, tokens_per_pass)
