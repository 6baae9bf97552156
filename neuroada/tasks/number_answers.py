"""The strict parser of arithmetic answers: which number a text gives as its answer.

A wrong value is worse than none: where a careful person could not tell the number (a range, a list, ±3, a sum without
result), there is none.
"""

import re
from dataclasses import replace
from itertools import pairwise

from neuroada.tasks.plain_notation import plain_notation
from neuroada.tasks.written_numbers import Mention, Number, joined, mentions

__all__ = ["Number", "find_numbers", "stated_number"]

_STATEMENT = re.compile(r"####|\\f?boxed\s*\{|\b(?i:answer)\b[^.\n\d=:]{0,40}?(?:\b(?i:is|are|equals)\b\s*:?|[:=])")
_IN_BRACES = re.compile(r"(?:[^{}\n]|\{[^{}\n]*\})*+")
_BETWEEN_BOXES = re.compile(r"[\s,;.$}]*(?:(?:and|or)\b)?[\s$]*(?:[A-Za-z]\s?=\s?)?")
_SENTENCE_END = re.compile(r"\.(?=\s|$)")
_MARKUP = " \t*_:\"'$`"
_LEAD = re.compile(
    r"[^\w\n]*(?:(?i:about|approximately|exactly|only|just|roughly|around|simply)\b[^\w\n]*)?(?:\w\s?=[^\w\n]*)?"
)
_CLAUSE = re.compile(r"[,;]\s|\b(?:because|since|as|so|when|where|if|and|but|which|that|with|for|from)\b")
_ANOTHER = re.compile(
    r"(?:\s[a-z]+){0,2}\s?,?\s(?:and|or|&|nor)\s(?:\w\s?=\s?|the\s|even\s|maybe\s|perhaps\s)?\$?|\s?\(or\s\$?"
)
_WORD = re.compile(r"[^\W\d]+")
_NEARBY = 40
_ENDING = 400
"""Characters at the end of a text that are searched first."""
_LIST_ITEM = re.compile(r"(?:\A|\n)[^\S\n]*\Z")
_ITEM_TEXT = re.compile(r"[.)]\s+\S")


def stated_number(text: str) -> Number | None:
    """The number of the last explicit statement ("the answer is", "####", a box), else the last one in the text."""
    text = plain_notation(text)
    stated = _statement(text) or _last(text)
    return stated.number if stated else None


def find_numbers(text: str) -> list[Number]:
    """All numbers in reading order: ``1,200.50``, ``-$3``, ``3/4``, ``1 1/2``, ``50%``, ``2e3``."""
    return [found.number for found in mentions(plain_notation(text)) if found.number is not None]


def _statement(text: str) -> Mention | None:
    """What the last statement gives; None if it continues with words, and the answer is elsewhere."""
    statements = list(_STATEMENT.finditer(text))
    if not statements:
        return None
    start = statements[-1].end()
    if not statements[-1].group().endswith("{"):
        return _stated_from(text, start)
    inside = [] if _has_another_box(text, statements) else _within(text, start, _box_end(text, start))
    return _result(text, inside) if inside else Mention(start, start, number=None)


def _has_another_box(text: str, statements: list[re.Match[str]]) -> bool:
    """Whether the last two statements are boxes side by side: "\\boxed{5} or \\boxed{7}"."""
    if len(statements) < 2 or not statements[-2].group().endswith("{"):
        return False
    between = text[_box_end(text, statements[-2].end()) : statements[-1].start()]
    return len(between) < _NEARBY and _BETWEEN_BOXES.fullmatch(between) is not None


def _box_end(text: str, start: int) -> int:
    content = _IN_BRACES.match(text, start)
    return content.end() if content else start


def _stated_from(text: str, start: int) -> Mention | None:
    end = _line_end(text, start)
    if not text[start:end].strip(_MARKUP):
        return _only_mention(text, end)
    sentence_end = _SENTENCE_END.search(text, start, end)
    inside = _within(text, start, sentence_end.start() if sentence_end else end)
    if not inside or not _LEAD.fullmatch(text, start, inside[0].start):
        return None
    return _result(text, inside)


def _result(text: str, inside: list[Mention]) -> Mention:
    """The first quantity, or in an equation the one on the right side: "5 + 3 = 8" gives 8."""
    result = inside[0]
    for previous, mention in pairwise(inside):
        gap = text[previous.end : mention.start]
        if "=" in gap and not _CLAUSE.search(gap):
            result = mention if mention.number or not result.number else result
        elif not mention.is_label and _ANOTHER.fullmatch(gap):
            return replace(result, number=None)
        else:
            break
    return result


def _only_mention(text: str, start: int) -> Mention | None:
    """The quantity of the next line with text, if it contains one and at most a unit."""
    start += len(text[start:]) - len(text[start:].lstrip())
    end = _line_end(text, start)
    inside = _within(text, start, end)
    num_words = len(_WORD.findall(text, start, end))
    return inside[0] if len(inside) == 1 and num_words <= 2 else None


def _last(text: str) -> Mention | None:
    """The last quantity. To read the end of the text is enough, unless it begins within a quantity or a list."""
    for start in (max(0, len(text) - _ENDING), 0):
        found = [mention for mention in _without_list_items(text, _within(text, start)) if not mention.is_label]
        if len(found) > 1 and not _opens_item(text, found[-1]):
            break
    return found[-1] if found else None


def _without_list_items(text: str, found: list[Mention]) -> list[Mention]:
    """Without the numbers of "1. Add them" and "2. Halve that", which count the steps."""
    kept, expected = [], 1
    for mention in found:
        if mention.number and mention.number.value == expected and _opens_item(text, mention):
            expected += 1
        else:
            kept.append(mention)
    return kept if expected > 2 else found


def _opens_item(text: str, mention: Mention) -> bool:
    line = text[max(0, mention.start - 8) : mention.start]
    at_line_start = _LIST_ITEM.search(line) if mention.start else True
    return bool(at_line_start and _ITEM_TEXT.match(text, mention.end))


def _within(text: str, start: int, end: int | None = None) -> list[Mention]:
    return joined(text, mentions(text, start, end))


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end
