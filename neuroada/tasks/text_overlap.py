"""Graded judges of free text: token F1, and ROUGE and chrF of their reference packages (extra ``metrics``).

Scores are per item, between 0 and 1; a benchmark's score is their mean. Nothing is fetched.
"""

from collections import Counter

from neuroada.tasks.judges import Graded, normalised
from neuroada.tasks.protocol import ProtocolError

_EXTRA = "install the extra: pip install 'neuroada[metrics]'"


def token_f1(generation: str, answer: str) -> float:
    """F1 of the words in common, after normalising, as SQuAD scores answers."""
    given, gold = normalised(generation).split(), normalised(answer).split()
    if not given or not gold:
        return float(given == gold)
    shared = sum((Counter(given) & Counter(gold)).values())
    return 2 * shared / (len(given) + len(gold))


def rouge(variant: str = "rougeL", use_stemmer: bool = False) -> Graded:
    """F-measure of the ``rouge-score`` package.

    Args:
        variant: rouge1, rouge2, rougeL or rougeLsum.
        use_stemmer: Whether words are reduced by Porter's stemmer.

    Raises:
        ProtocolError: The package is not installed, or has no such variant.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    except ImportError as error:
        raise ProtocolError(f"judge rouge: needs rouge-score; {_EXTRA}") from error
    try:
        scorer = RougeScorer([variant], use_stemmer=use_stemmer)
        scorer.score("a", "a")
    except ValueError as error:
        raise ProtocolError(f"judge rouge: {error}; use rouge1, rouge2, rougeL or rougeLsum") from error
    return Graded(lambda generation, answer: float(scorer.score(answer, generation)[variant].fmeasure), variant)


def chrf(char_order: int = 6, word_order: int = 0, beta: int = 2) -> Graded:
    """Sentence-level chrF of ``sacrebleu``, divided by 100; ``word_order=2`` is chrF++.

    Raises:
        ProtocolError: The package is not installed.
    """
    try:
        from sacrebleu.metrics import CHRF
    except ImportError as error:
        raise ProtocolError(f"judge chrf: needs sacrebleu; {_EXTRA}") from error
    metric = CHRF(char_order=char_order, word_order=word_order, beta=beta)
    return Graded(lambda generation, answer: min(metric.sentence_score(generation, [answer]).score / 100, 1.0), "chrf")
