"""Which of the letters A to E a text settles on, read carefully: the strict parser of multiple-choice answers."""

import re

_STATEMENT = re.compile(
    r"\b(?i:answer|option|choice)(?:\s+(?i:choice|option))?"
    r"\s*(?:(?i:is|would\s+be|must\s+be|should\s+be)\b)?\s*[:=]?\s*(?:(?i:option|choice)\s+)?"
    r"[(\[*\"'$]*(?P<letter>[A-E])\b(?!['’\-])(?=(?P<rest>[^\n]*))"
)
_ALTERNATIVE = re.compile(r"[)\]*\"'.]*\s*(?:or|and|/|,|&)\s*[(\[]?[A-E]\b")
_BRACKETED = re.compile(r"(?<!not )\((?P<letter>[A-E])\)")
_ALONE = re.compile(r"[\s(\[*\"'.]*(?P<letter>[A-E])[\s)\]*\"'.:]*")
# A bare letter inside prose. "A" before a word is an article, and "A:" opens an answer in these data sets.
_BARE = re.compile(r"(?<![\w'’(.\-])(?:A(?!\s+[a-z]|:)|[B-E])(?![\w'’\-(]|\.\w)")


def stated_letter(text: str) -> str | None:
    """The letter the text settles on, None when it settles on none.

    An explicit statement ("the answer is (C)", "Answer: C", "option C") beats a bracketed letter, which beats a bare
    one; within a kind the last wins. A statement that names two letters ("A or B") is unclear.
    """
    alone = _ALONE.fullmatch(text)
    if alone:
        return alone["letter"]
    statements = list(_STATEMENT.finditer(text))
    if statements:
        last = statements[-1]
        return None if _ALTERNATIVE.match(last["rest"]) else last["letter"]
    bracketed = _BRACKETED.findall(text)
    if bracketed:
        return str(bracketed[-1])
    bare = _BARE.findall(text)
    return str(bare[-1]) if bare else None
