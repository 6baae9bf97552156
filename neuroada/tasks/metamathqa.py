"""The judge of PEFT's comparison of methods on MetaMathQA and GSM8K (method_comparison/MetaMathQA), by its rules.

A text states its answer behind one of five phrases. Two answers are equal as numbers (``1/2`` is 0.5), else as texts,
so that ``1,000`` is not 1000. That comparison looks in prompt and answer, this judge in the answer alone.
"""

from decimal import Decimal, DecimalException

from neuroada.tasks.judges import Judge
from neuroada.tasks.number_answers import stated_number
from neuroada.tasks.protocol import Verdict

_PHRASES = ("The answer is: ", "The answer is ", "The final answer is: ", "The final answer is ", "#### ")
"""Of these, the first that a text has; its last place counts."""
_ENDS = ".!?"
_AROUND = " .!?$%"


class MetaMathJudge(Judge):
    """The published verdict, and as the strict one whether the number that the text states is the right one."""

    def __call__(self, generation: str, answer: str) -> Verdict:
        given, gold = answer_of(generation), answer_of(answer)
        stated, gold_number = stated_number(generation), stated_number(gold or "")
        return Verdict(
            extracted=given,
            strict_extracted=None if stated is None else str(stated),
            correct=given is not None and _value(given) == _value(gold or ""),
            strict_correct=stated is not None and gold_number is not None and stated.agrees(gold_number, 0.0),
            missing_trigger=given is None,
        )

    def gold_problem(self, answer: str) -> str | None:
        problem = super().gold_problem(answer)
        if problem or answer_of(answer):
            return problem
        return f"states no answer; it must end with one, such as '{_PHRASES[-1]}42'"


def answer_of(text: str) -> str | None:
    """What a text states as its answer; None without one of the phrases."""
    text = text.strip().rstrip(_ENDS)
    phrase = next((phrase for phrase in _PHRASES if phrase in text), None)
    if phrase is None:
        return None
    behind = text.rpartition(phrase)[2].strip()
    return behind.split("\n", 1)[0].strip(_AROUND)


def _value(text: str) -> float | str:
    """A number or a fraction as a number, any other text as it is."""
    above, is_fraction, below = text.partition("/")
    try:
        value = Decimal(above.strip()) / Decimal(below.strip()) if is_fraction else Decimal(text.strip())
        return float(value)
    except (DecimalException, ValueError):
        return text
