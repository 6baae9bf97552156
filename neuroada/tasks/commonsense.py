"""The judge of the commonsense protocol of LLM-Adapters, as LoReFT and NeuroAda use it; conf/protocol has its prompts.

The published scoring compares everything after the first trigger with the answer. The strict scoring reads what the
first statement says, in any case and punctuation, whatever prose follows.
"""

import re

from neuroada.tasks.judges import Judge
from neuroada.tasks.protocol import Verdict

TRIGGER = "the correct answer is "
"""Precedes the answer in a completion."""

# No word boundary before it, as in the published trigger: small models write "thethe correct answer is".
_CUE = re.compile(r"the\s{1,4}correct\s{1,4}answer\s{1,4}is(?=[\s:*_\"'`(\[“‘.-])", re.IGNORECASE)
_DOUBT = re.compile(
    r"(?:\b(?:if|whether|unless|doubt|deny)|(?:\bnot|n['’]t|\bnever|\bcannot)\s(?:think|believe|say|agree|suppose|certain"
    r"|sure|clear|true|the\scase))(?:\sthat)?\s?\Z",
    re.IGNORECASE,
)
_DENIAL = re.compile(r"\W{0,8}(?:not|never|neither)\b", re.IGNORECASE)
_LEAD = re.compile(
    r"[\s:*_\"'`(\[“‘$>-]{0,12}(?:(?:indeed|definitely|clearly|certainly|probably|most likely|likely"
    r"|therefore|thus|simply)\b[\s:,]{1,3})?"
    r"[\s*_\"'`(\[“‘]{0,8}",
    re.IGNORECASE,
)
_CLOSE = re.compile(r"[\"'`”’)\]*_]{0,8}")
_BRACKET = re.compile(r"[)\]]")
_LABEL = re.compile(r"(?P<word>[A-Za-z]{2,})\s?(?P<index>\d{1,2})")
_TRUTH_VALUES = (frozenset({"true", "false"}), frozenset({"yes", "no"}))
_REJECTED = re.compile(
    r"(?:\bnot|\bnor|\bthan|\binstead\sof|\bunlike|\bexcept|n['’]t(?:\sbe)?)\s(?:the\s)?[\"'`“‘(*]{0,4}\Z",
    re.IGNORECASE,
)
_REJECTED_BEHIND = re.compile(
    r"[\"'`”’)*]{0,4}\s(?:is|was|are|would\sbe|can|could|does|do)\s?(?:not\b|n['’]t\b|incorrect|wrong|false|less|irrelevant)",
    re.IGNORECASE,
)
_END = re.compile(r"[^\w?]*\Z|</?\w|<\|")
_CLAUSE = re.compile(
    r"(?:\s?[,;:.!]|\s?[-–—]{1,2})?\s{0,3}(?:because|since|as|so|for|due to|given|which|therefore|thus|hence"
    r"|where|in this)\b",
    re.IGNORECASE,
)
_PROSE = re.compile(r"\s?[,;:.!](?=\s|[A-Z(])|\s{1,3}[-–—]{1,2}\s|\s?[—(\[]|\.{2,}")
_HEDGE = re.compile(
    r"[^\w\n]{0,6}(?:or|and/or|if|unless|only|except|but|maybe|perhaps|possibly|wait|no|actually)\b|\s?(?:,|&|\+|and)\s?\d",
    re.IGNORECASE,
)
_RETRACTION = re.compile(r"\b(?:wait|actually|sorry|correction|on second thought|I was wrong|no,)", re.IGNORECASE)
_NEARBY = 40
_MOST_PROSE = 2000
"""Characters of a line that are searched for another option."""


class CommonsenseJudge(Judge):
    """The answer follows the trigger."""

    def __call__(self, generation: str, answer: str) -> Verdict:
        _, found, tail = generation.partition(TRIGGER)
        answer, extracted = answer.strip(), tail.strip() if found else None
        stated = _statement(generation)
        strict_correct = stated is not None and _says(stated, answer)
        return Verdict(
            extracted=extracted,
            strict_extracted=answer if strict_correct else _first_line(extracted if stated is None else stated),
            correct=extracted == answer,
            strict_correct=strict_correct,
            missing_trigger=not found,
        )


def _statement(generation: str) -> str | None:
    """What follows the first cue that the text neither doubts nor denies."""
    for cue in _CUE.finditer(generation):
        ahead = generation[max(0, cue.start() - _NEARBY) : cue.start()]
        if not (_DOUBT.search(ahead) or _DENIAL.match(generation, cue.end())):
            return generation[cue.end() :]
    return None


def _first_line(text: str | None) -> str | None:
    return None if text is None else text.strip().partition("\n")[0]


def _says(stated: str, answer: str) -> bool:
    """Whether the statement is the answer and names no other one on its line."""
    if stated.strip() == answer:
        return True
    lead = _LEAD.match(stated)
    opening = stated[lead.end() :] if lead else stated
    found = _pattern(answer).match(opening)
    if found is None:
        return False
    closed = _CLOSE.match(opening, found.end())
    rest = opening[closed.end() if closed else found.end() :].partition("\n")[0][:_MOST_PROSE]
    has_ended = closed is not None and _BRACKET.search(closed.group()) is not None
    return _ends_answer(rest, answer, has_ended)


def _pattern(answer: str) -> re.Pattern[str]:
    """The answer in any case, "answer 1" for "answer1"; not a longer word or number."""
    label = _LABEL.fullmatch(answer)
    written = rf"{label['word']}\s?{label['index']}" if label else re.sub(r"(\\?\s)+", r"\\s+", re.escape(answer))
    return re.compile(rf"{written}(?!_{{0,2}}[^\W_]|%|[-'’/]\w|[.,:]\d)", re.IGNORECASE)


def _ends_answer(rest: str, answer: str, has_ended: bool) -> bool:
    """Whether the answer ends where ``rest`` of its line begins: nothing, punctuation or prose about it follows."""
    if _END.match(rest):
        return True
    if _HEDGE.match(rest) or _RETRACTION.search(rest) or _names_another(rest, answer):
        return False
    if _CLAUSE.match(rest):
        return True
    # Prose after the comma of "red, white and blue" would belong to the answer; "answer1" and "true" are complete.
    return _is_option(answer) and (has_ended or _PROSE.match(rest) is not None)


def _is_option(answer: str) -> bool:
    return bool(_LABEL.fullmatch(answer) or _alternatives(answer))


def _alternatives(answer: str) -> frozenset[str]:
    return next((values - {answer.lower()} for values in _TRUTH_VALUES if answer.lower() in values), frozenset())


def _names_another(text: str, answer: str) -> bool:
    """Whether the text names another option that it does not reject ("not answer2" does)."""
    label = _LABEL.fullmatch(answer)
    if label:
        others = re.compile(rf"\b{label['word']}\s?(?!{label['index']}(?!\d))\d{{1,2}}", re.IGNORECASE)
    elif _alternatives(answer):
        others = re.compile(rf"\b(?:{'|'.join(_alternatives(answer))})\b", re.IGNORECASE)
    else:
        return False
    return any(not _is_rejected(match) for match in others.finditer(text))


def _is_rejected(match: re.Match[str]) -> bool:
    text = match.string
    before, behind = text[max(0, match.start() - _NEARBY) : match.start()], text[match.end() : match.end() + _NEARBY]
    return bool(_REJECTED.search(before) or _REJECTED_BEHIND.match(behind))
