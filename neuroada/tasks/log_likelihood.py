"""Multiple choice by log-likelihood: the choice that the model finds most likely, as lm-evaluation-harness scores it.

``acc`` compares the sums of log-probabilities, ``acc_norm`` those sums divided by the choices' lengths in characters.
The first of equal choices wins.
"""

import re
from collections.abc import Sequence

from neuroada.tasks.protocol import ProtocolError, Verdict

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LABEL = re.compile(r"(?:answer|solution|ending|option)([1-9])")
"""How the commonsense files of LLM-Adapters name a choice."""
RULES = ("acc", "acc_norm")


class LogLikelihood:
    """Judges the likelihoods of a row's choices.

    Args:
        score: Which of the two rules counts as the score: acc or acc_norm. Both are reported.

    Raises:
        ProtocolError: There is no such rule.
    """

    def __init__(self, score: str = "acc") -> None:
        if score not in RULES:
            raise ProtocolError(f"judge log_likelihood: score={score}; choose acc or acc_norm")
        self.score = score

    def __call__(self, log_likelihoods: Sequence[float], choices: Sequence[str], answer: str) -> Verdict:
        """The verdict by both rules."""
        gold = gold_choice(answer, choices)
        picked = {"acc": _largest(log_likelihoods), "acc_norm": _largest(_per_character(log_likelihoods, choices))}
        rules = {rule: place == gold for rule, place in picked.items()}
        chosen, correct = choices[picked[self.score]], rules[self.score]
        return Verdict(chosen, chosen, correct, correct, missing_trigger=False, rules=rules)


def gold_choice(answer: str, choices: Sequence[str]) -> int:
    """The place of the gold answer: a choice's text, its number from 0, its letter from A, or a label such as answer1.

    Raises:
        ProtocolError: It is none of them.
    """
    stripped = answer.strip()
    texts = [choice.strip() for choice in choices]
    if stripped in texts:
        return texts.index(stripped)
    place = place_named(stripped, len(choices))
    if place is None:
        raise ProtocolError(
            f"the answer {answer!r} is none of the {len(choices)} choices; give a choice's text, its number from 0, or "
            "its letter from A"
        )
    return place


def place_named(answer: str, num_choices: int) -> int | None:
    """The place that a number from 0, a letter from A, or a label such as answer1 names; None if it is none of them."""
    if answer.isdecimal() and int(answer) < num_choices:
        return int(answer)
    if len(answer) == 1 and answer in _LETTERS[:num_choices]:
        return _LETTERS.index(answer)
    label = _LABEL.fullmatch(answer)
    return int(label[1]) - 1 if label and int(label[1]) <= num_choices else None


def _largest(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda place: values[place])


def _per_character(log_likelihoods: Sequence[float], choices: Sequence[str]) -> list[float]:
    return [total / max(len(choice), 1) for total, choice in zip(log_likelihoods, choices, strict=True)]
