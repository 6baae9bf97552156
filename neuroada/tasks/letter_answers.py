"""The strict parser of multiple-choice answers: which of the letters A to E a text gives as its answer."""

import re

_STATEMENT = re.compile(
    r"\b(?i:answer|option|choice)(?:\s+(?i:choice|option))?"
    r"\s*(?:(?i:is|would\s+be|must\s+be|should\s+be)\b)?\s*[:=]?\s*(?:(?i:option|choice)\s+)?"
    r"[(\[*\"'$]*(?P<letter>[A-E])\b(?!['’\-])"
)
_ALTERNATIVE = re.compile(r"[)\]*\"'.]*\s*(?:or|and|/|,|&)\s*[(\[]?[A-E]\b")
_BRACKETED = re.compile(r"\((?P<letter>[A-E])\)")
_ALONE = re.compile(r"[\s(\[*\"'.]*(?P<letter>[A-E])[\s)\]*\"'.:]*")
# A bare letter inside prose. "A" before a word is an article, "A:" opens an answer in these data sets,
# and "D =" is a variable.
_BARE = re.compile(r"(?<![\w'’(.\-])(?P<letter>A(?!\s+[a-z]|:)|[B-E])(?![\w'’\-(]|\.\w|\s?=)")
_LISTED = re.compile(r"\b[A-E][)\]*\"'.]*\s*(?:\b(?:or|and|nor)\b|/|,|&)\s*(?:(?:or|and|nor)\s+)?[(\[]?\Z")
"""The text before the last letter of "A or B"."""
_DENIED_BEFORE = re.compile(r"\b(?i:not|neither|nor|instead\s+of|rather\s+than)\s+(?:(?i:option|choice)\s+)?\Z")
_DENIED_BEHIND = re.compile(
    r"[)\]*\"']*\s+(?:is|was|can|could|would|does)\s*(?:not\b|n['’]t\b|incorrect|wrong|false)|[)\]*\"']*\s+cannot\b"
)
_NEARBY = 30
"""Characters that are read before and after a letter."""


def stated_letter(text: str) -> str | None:
    """The letter that the text gives as its answer; None if there is none.

    An explicit statement ("the answer is (C)", "Answer: C", "option C") beats a bracketed letter, which beats a bare
    one; within a kind the last wins. A statement with two letters ("A or B") is ambiguous.
    """
    alone = _ALONE.fullmatch(text)
    if alone:
        return alone["letter"]
    statements = _not_denied(_STATEMENT, text)
    if statements:
        last = statements[-1]
        return None if _ALTERNATIVE.match(_behind(last)) else last["letter"]
    found = _not_denied(_BRACKETED, text) or _not_denied(_BARE, text)
    if not found or _LISTED.search(_before(found[-1])):
        return None
    return found[-1]["letter"]


def _not_denied(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """Matches without those that the text rejects: "not (A)", "option B is wrong"."""
    return [
        match
        for match in pattern.finditer(text)
        if not _DENIED_BEFORE.search(_before(match)) and not _DENIED_BEHIND.match(_behind(match))
    ]


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - _NEARBY) : match.start()]


def _behind(match: re.Match[str]) -> str:
    return match.string[match.end() : match.end() + _NEARBY].partition("\n")[0]
