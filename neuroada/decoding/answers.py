"""Where an answer ends, and its text."""

from collections.abc import Sequence

from transformers import GenerationConfig, PreTrainedTokenizerBase


class Answers:
    """Reads the answers of one model.

    Args:
        tokenizer: The model's.
        ends: Ids that end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.ends = frozenset(ends)

    def texts(self, new_tokens: Sequence[Sequence[int]], stop: Sequence[str] = ()) -> list[str]:
        """The text of each answer: up to its first end token and its first stop text, without special tokens."""
        kept = [self._before_end(ids) for ids in new_tokens]
        return [before_stop(text, stop) for text in self.tokenizer.batch_decode(kept, skip_special_tokens=True)]

    def _before_end(self, ids: Sequence[int]) -> list[int]:
        place = next((place for place, token in enumerate(ids) if token in self.ends), len(ids))
        return list(ids[:place])


class Stops:
    """Whether new tokens contain a stop text.

    Args:
        tokenizer: The model's.
        texts: The stop texts; may be empty.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._texts = texts

    def found_in(self, written: Sequence[int]) -> bool:
        """Whether these tokens contain a stop text."""
        if not self._texts:
            return False
        text = self._tokenizer.decode(list(written), skip_special_tokens=True)
        return any(stop in text for stop in self._texts)


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop."""
    places = [text.find(each) for each in stop if each in text]
    return text[: min(places)] if places else text


def end_tokens(config: GenerationConfig) -> list[int]:
    """The ids that end an answer: transformers allows one, several or none."""
    ends = config.eos_token_id
    if ends is None:
        return []
    return [int(end) for end in ends] if isinstance(ends, list) else [int(ends)]
