"""Choose the decoder of a benchmark: the configured one, if the model supports it."""

from collections.abc import Sequence
from typing import Protocol

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from neuroada.decoding.answers import Stops, end_tokens
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
            engine = start_engine(model, decoding.longest)
            return [VllmDecoder(engine, config) for config in decoding.configs]
        case "verified" if can_verify(model):
            parts = zip(decoding.configs, decoding.openings, strict=True)
            return [_verified(model, config, opening, decoding.tokenizer) for config, opening in parts]
    return [PlainDecoder(model, config, decoding.tokenizer) for config in decoding.configs]


def _verified(
    model: PreTrainedModel, config: GenerationConfig, opening: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> Decoder:
    ends = end_tokens(config)
    if not ends:
        return PlainDecoder(model, config, tokenizer)
    tokens_per_pass = CPU_TOKENS_PER_PASS if model.device.type == "cpu" else GPU_TOKENS_PER_PASS
    stops = Stops(tokenizer, config.stop_strings or ())
    return VerifiedDecoder(model, ends, Drafts(opening, ends) if opening else None, tokens_per_pass, stops)
