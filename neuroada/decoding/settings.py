"""Turn the configuration of decoding into generation configs, and reject settings that conflict."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from neuroada.config.errors import UserError, suggest
from neuroada.config.resolution import first_line
from neuroada.config.schema import EvaluationConfig
from neuroada.data.benchmarks import BenchmarkItems
from neuroada.data.packing import pad_token_id
from neuroada.decoding.vllm_engine import library

_KEYWORDS = frozenset(vars(GenerationConfig()))
# Settings that keep greedy decoding greedy, whatever their value.
_GREEDY_KEYWORDS = {"do_sample", "num_beams", "use_cache"}
_GREEDY_ENGINES = {"verified", "vllm"}
_SET_ELSEWHERE = {
    **dict.fromkeys(("max_new_tokens", "max_length"), "use evaluation.max_new_tokens"),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), "the model's own is used; leave it out"),
    "stop_strings": "use protocol.stop",
    "max_time": "a completion ends at an end token, a stop text or its limit; leave it out",
    "watermarking_config": "no answer that is scored needs a watermark; leave it out",
    **dict.fromkeys(("num_return_sequences", "return_dict_in_generate"), "one text is scored per prompt; leave it out"),
}


@dataclass(frozen=True)
class Decoding:
    """How each benchmark is generated, in the order of the test loaders."""

    configs: Sequence[GenerationConfig]
    openings: Sequence[Sequence[int]]
    """Token ids that a completion of each benchmark is expected to begin with; may be empty."""
    engine: str
    """verified (where the model allows it, else plain), plain, continuous or vllm."""
    tokenizer: PreTrainedTokenizerBase
    """Reads stop texts."""
    longest: int
    """Tokens of the longest prompt with the longest answer to it."""

    @classmethod
    def make(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        benchmarks: Iterable[BenchmarkItems],
        evaluation: EvaluationConfig,
        ends: Sequence[int],
    ) -> "Decoding":
        """From the configuration; ``ends`` are the ids that end an answer.

        Raises:
            UserError: A keyword is unknown, set elsewhere, has an invalid value, or is not supported by the decoder.
        """
        keywords = evaluation.generation
        for key in sorted(keywords.keys() & _SET_ELSEWHERE.keys()):
            raise UserError(f"evaluation.generation.{key}: cannot be set here; {_SET_ELSEWHERE[key]}")
        for key in sorted(keywords.keys() - _KEYWORDS):
            raise UserError(f"evaluation.generation.{key}: generate has no such keyword; {suggest(key, _KEYWORDS)}")
        benchmarks = list(benchmarks)
        protocols = [items.protocol for items in benchmarks]
        lengths = [evaluation.max_new_tokens or protocol.max_new_tokens for protocol in protocols]
        try:
            configs = [
                _config(tokenizer, length, ends, protocol.stop, keywords)
                for length, protocol in zip(lengths, protocols, strict=True)
            ]
        except (ValueError, TypeError) as error:
            raise _refused(keywords, error) from error
        if keywords and configs:
            _rehearse(configs[0], keywords, tokenizer, num_rows=min(2, evaluation.batch_size or 2))
        openings = [_opening(tokenizer, protocol.opening) for protocol in protocols]
        whole = (items.longest_prompt + length for items, length in zip(benchmarks, lengths, strict=True))
        return cls(configs, openings, _engine(evaluation), tokenizer, max(whole, default=0))


def _engine(evaluation: EvaluationConfig) -> str:
    keywords, asked = evaluation.generation, evaluation.decoding
    if asked == "auto":
        return "verified" if _is_greedy(keywords) else "plain"
    if asked in _GREEDY_ENGINES and not _is_greedy(keywords):
        raise UserError(
            f"evaluation.decoding={asked}: supports only plain greedy decoding; use evaluation=greedy, or "
            "evaluation.decoding=auto"
        )
    if asked == "vllm":
        library()  # raises before the backbone is read
    if asked == "continuous" and _num_beams(keywords) > 1:
        raise UserError(
            "evaluation.decoding=continuous: does not support beams; use evaluation=greedy, or evaluation.decoding=auto"
        )
    return asked


def _config(
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
    ends: Sequence[int],
    stop: Sequence[str],
    keywords: Mapping[str, Any],
) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=list(ends) if len(ends) > 1 else next(iter(ends), None),
        stop_strings=list(stop) or None,
        pad_token_id=pad_token_id(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        **keywords,
    )


def _rehearse(
    config: GenerationConfig, keywords: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, num_rows: int
) -> None:
    """Generate two tokens with a tiny random model: many values are refused by ``generate`` itself, hours later.

    Some are refused only for more than one row.

    Raises:
        UserError: ``generate`` refuses the settings.
    """
    tiny = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    with torch.random.fork_rng(devices=[]):
        model = LlamaForCausalLM(tiny).eval()
        try:
            few = copy.deepcopy(config)
            few.max_new_tokens = 2
            no_padding = 1 if config.pad_token_id == 0 else 0  # of padding on the right, transformers warns
            ids_BT = torch.full((num_rows, 3), no_padding)
            model.generate(ids_BT, generation_config=few, tokenizer=tokenizer)
        except Exception as error:  # whatever it raises about a value
            raise _refused(keywords, error) from error


def _refused(keywords: Mapping[str, Any], error: Exception) -> UserError:
    """What to raise where ``generate`` refuses a value, whose key it does not always name."""
    given = ", ".join(f"{key}={value}" for key, value in keywords.items())
    return UserError(f"evaluation.generation ({given}): {first_line(error)}")


def _is_greedy(keywords: Mapping[str, Any]) -> bool:
    others = {key for key, value in keywords.items() if value is not None} - _GREEDY_KEYWORDS
    return not others and not keywords.get("do_sample") and _num_beams(keywords) == 1


def _num_beams(keywords: Mapping[str, Any]) -> int:
    return keywords.get("num_beams") or 1


def _opening(tokenizer: PreTrainedTokenizerBase, opening: str) -> list[int]:
    # Most tokenizers merge a trailing space into the token of the next word.
    return tokenizer.encode(opening.rstrip(), add_special_tokens=False)
