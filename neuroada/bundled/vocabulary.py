"""The bundled tokenizer: this world's words as single tokens, digits one by one, everything else byte by byte.

It works on bytes, so every text survives the round trip. It is a unigram model and not BPE, whose intermediate merges
would double the vocabulary.
"""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS, EOS, UNK = "<s>", "</s>", "<unk>"
MAX_LENGTH = 1024
_PIECES = r"\n| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s"
_MIN_COUNT = 2
# Log-probabilities: one word beats two, and bytes are used only for text that is not a known word.
_WORD_SCORE, _BYTE_SCORE = -1.0, -30.0


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A fast tokenizer for the texts. Like Llama's, it prepends `<s>` and has no padding token: `<unk>` is used."""
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts = Counter(piece for text in texts for piece, _ in splitter.pre_tokenize_str(text))
    tokenizer = Tokenizer(models.Unigram(_scored_pieces(counts), unk_id=0))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )


def _scored_pieces(counts: Counter[str]) -> list[tuple[str, float]]:
    """Special tokens, then the 256 bytes, then the words in alphabetical order, each with its log-probability."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted(piece for piece, count in counts.items() if count >= _MIN_COUNT and len(piece) > 1)
    return [
        *((token, 0.0) for token in (UNK, BOS, EOS)),
        *((byte, _BYTE_SCORE) for byte in alphabet),
        *((word, _WORD_SCORE) for word in words),
    ]
