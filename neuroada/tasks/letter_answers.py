"""The strict parser of multiple-choice answers: which of the letters A to E a text gives as its answer.

A wrong letter is worse than none. A small letter counts only where nothing else is meant: alone, in brackets, or right
after a cue such as "answer:"; "a" before a word is an article.
"""

import re
from collections.abc import Callable

_SPACE = r"\s{0,4}"
_OPEN = r"(?:\\boxed\s?\{|\\(?:text|math)\w*\s?\{|\\[(\[]|[(\[{*_\"'“‘`$]){0,8}"
_CLOSE = r"[)\]}*_\"'”’`$]{0,8}"
_VERB = r"(?:is|are|was|would\s+be|must\s+be|should\s+be|has\s+to\s+be|will\s+be)"
_ADVERB = (
    r"(?:(?:therefore|thus|hence|clearly|definitely|probably|likely|most\s+likely|indeed|simply|just|actually)\b,?\s+)?"
)
_NOUN = r"(?:(?:the\s+)?(?:option|choice|letter)\s+)?"
_LETTER = rf"{_OPEN}(?P<letter>[A-Ea-e])(?!\w|['’]\w|-\w|\.[A-Za-z]\b)"
_LINK = rf"{_CLOSE}{_SPACE}(?:{_VERB}\b)?{_SPACE}(?:[:=]|->|→|[-–—](?=\s))?\s?{_CLOSE}{_SPACE}{_ADVERB}{_NOUN}"
_ANSWER = re.compile(
    rf"\b(?:answer|ans\.?)(?:\s+(?:choice|option|key|letter))?{_LINK}{_LETTER}"
    rf"|\b(?:correct|right|best)\s+(?:option|choice|letter){_LINK}{_LETTER.replace('letter>', 'named>')}"
    rf"|\b(?:option|choice|letter)\s+{_VERB}{_SPACE}:?{_SPACE}{_LETTER.replace('letter>', 'called>')}"
    rf"|\\boxed\s?\{{{_LETTER.replace('letter>', 'boxed>')}",
    re.IGNORECASE,
)
_CORRECT = re.compile(
    rf"(?<![\w'’.(\-])(?:option\s+|choice\s+)?{_LETTER}{_CLOSE}\s+is\s+(?:(?:the|therefore|thus|indeed)\s+)?(?:correct|right\b|best|answer)",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"\b(?:option|choice){_LINK}{_LETTER}", re.IGNORECASE)
_CHOSEN = re.compile(
    rf"\b(?:it['’]?s|it\s+is|that['’]s|choose|chose|pick|select|go(?:ing)?\s+with|went\s+with|guess|opt\s+for|say|mark)\s+"
    rf"(?:is\s+)?{_ADVERB}{_NOUN}{_LETTER}",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"\((?P<letter>[A-E])\)")
_BRACKETED_SMALL = re.compile(r"(?<![\w\\^])\((?P<letter>[a-e])\)")
_ALONE = re.compile(rf"{_OPEN}(?P<letter>[A-Ea-e])[.,:!]?{_CLOSE}[.:!]?{_CLOSE}")
_OPENING = re.compile(rf"{_OPEN}(?P<letter>[a-e])(?:{_CLOSE}[)\]]|(?<!a):|\.(?=\s[0-9$A-Z])){_CLOSE}\s\S")
_ANOTHER_OPENING = re.compile(r"(?<!\w)[a-e]\)")
# A bare letter inside prose. "A" before a word is an article, "A:" opens an answer in these data sets,
# and "D =" is a variable.
_BARE = re.compile(r"(?<![\w'’(.\-])(?P<letter>A(?!\s+[a-z]|:)|[B-E])(?![\w'’\-(]|\.\w|\s?=)")

_ANOTHER = r"[(\[*\"'$]*(?:option\s+|choice\s+)?[(\[*\"'$]*[A-Ea-e](?![\w'’])"
_ALTERNATIVE = re.compile(
    rf"{_CLOSE}\.?\s*(?:,?\s*\(?\s*\b(?:or|nor|and/or)\b(?:\s+(?:maybe|possibly|perhaps|even))?|\band\b|[/,&;+|])\s*(?:(?:or|and)\s+)?{_ANOTHER}"
    # "A B" and "(A) (B)"; but "E) A, B and C" is an option with its text.
    r"|[^\S\n]+(?:[B-E]|A(?![^\S\n]+[a-z]))(?![\w'’])(?=\s*(?:$|[,.;A-E(]))|[)\]]\s?[(\[][A-E][)\]]"
)
_LISTED = re.compile(r"\b[A-E][)\]*\"'.]*\s*(?:\b(?:or|and|nor)\b|/|,|&)\s*(?:(?:or|and|nor)\s+)?[(\[]?\Z")
"""The text before the last letter of "A or B"."""
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|cannot\s+be|instead\s+of|rather\s+than|other\s+than|except(?:\s+for)?|but\s+not"
    r"|eliminat(?:e|ed|es|ing)|exclud(?:e|ed|es|ing)|rul(?:e|ed|es|ing)\s+out|reject(?:ed|ing|s)?)|n['’]t(?:\s+be)?)"
    r"\s+(?:(?:the\s+)?(?:option|choice)\s+)?[(\[*]*\Z",
    re.IGNORECASE,
)
_DENIED_BEHIND = re.compile(
    rf"{_CLOSE}\s+(?:is|was|can|could|would|does)\s*(?:not\b|n['’]t\b|incorrect|wrong|false|out\b|never)"
    rf"|{_CLOSE}\s+cannot\b|{_CLOSE}\s?\?",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(
    r"(?:\b(?:if|whether|suppose|assume|assuming|unless)\b|n['’]t\s+think|not\s+think)(?:\s+that)?(?:\s+the)?(?:\s+correct)?\s+\Z",
    re.IGNORECASE,
)
_CALCULATES = re.compile(r"\s*(?:[+/^×÷<>≤≥]|\*\s?\w|=|-\s*\w)|\s*_?\d")
_IS_VALUE = re.compile(r"\s?=\s*[$\d]")
# What may follow "a" if it is a letter: a clause, not a noun.
_CLAUSE = re.compile(
    r"[^\S\n]*(?:\n|\Z|[).,:;!\]}*_\"'”’`$>]|[-–—]\s|\((?!s\))"
    r"|\s(?:because|since|as|is|was|with|which|but|and|so|not|due|where|given|for|in\s+this)\b(?!-))",
    re.IGNORECASE,
)
_HEADING = re.compile(r"\s(?:(?:The|None|Explanation|Rationale|Reason|Note|All)\b|[$\d])")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,40}>")
_CLOSED = re.compile(r"\s?[).,:;!\]}*_\"'”’`$]")
_NEARBY = 40
"""Characters that are read before and after a letter."""
_FULL_WIDTH = str.maketrans({chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {"\u00a0": " "})


def stated_letter(text: str) -> str | None:
    """The letter that the text gives as its answer; None if there is none.

    An explicit statement ("the answer is (C)", "C is correct") beats "option C", which beats a bracketed letter, which
    beats a bare one; within a kind the last wins. A statement with two letters ("A or B") is ambiguous.
    """
    text = _TAG.sub(" ", text.translate(_FULL_WIDTH)).strip()
    alone = _ALONE.fullmatch(text) or _opening(text)
    if alone:
        return alone["letter"].upper()
    for patterns in ((_ANSWER, _CORRECT), (_OPTION,), (_CHOSEN,)):
        stated = _last_of(patterns, text, _is_stated)
        if stated:
            return None if _ALTERNATIVE.match(_behind(stated)) else _letter(stated)
    found = _last_of((_BRACKETED,), text) or _last_of((_BARE,), text)
    if found:
        return None if _LISTED.search(_before(found)) else _letter(found)
    return _only_small(text)


def _opening(text: str) -> re.Match[str] | None:
    """The small letter of a text of one line, such as "b) 12"."""
    match = _OPENING.match(text) if "\n" not in text else None
    return match if match and not _ANOTHER_OPENING.search(text, match.end("letter") + 2) else None


def _only_small(text: str) -> str | None:
    """The small letter in brackets, if there is no other."""
    letters = {match["letter"] for match in _BRACKETED_SMALL.finditer(text) if not _is_denied(match)}
    return letters.pop().upper() if len(letters) == 1 else None


def _last_of(
    patterns: tuple[re.Pattern[str], ...], text: str, holds: Callable[[re.Match[str]], bool] = lambda _: True
) -> re.Match[str] | None:
    """The last match of any pattern that the text does not reject: "not (A)", "option B is wrong"."""
    found = [
        match for pattern in patterns for match in pattern.finditer(text) if not _is_denied(match) and holds(match)
    ]
    return max(found, key=_position, default=None)


def _is_denied(match: re.Match[str]) -> bool:
    return bool(_DENIED_BEFORE.search(_before(match)) or _DENIED_BEHIND.match(_behind(match)))


def _is_stated(match: re.Match[str]) -> bool:
    """Whether the letter after a cue is an option, not an article ("a bird"), a variable or a supposition."""
    written, behind = match.string[_position(match)], _behind(match)
    ahead = match.string[max(0, match.start() - _NEARBY) : match.start()]
    if _SUPPOSED.search(ahead):
        return False
    if written in "BCDE":
        return bool(_IS_VALUE.match(behind) or not _CALCULATES.match(behind))
    if written == "A" and _HEADING.match(behind):
        return True
    if _CALCULATES.match(behind) or (written == "a" and match.re is _CHOSEN and not _CLOSED.match(behind)):
        return False
    return _CLAUSE.match(behind) is not None


def _letter(match: re.Match[str]) -> str:
    return match.string[_position(match)].upper()


def _position(match: re.Match[str]) -> int:
    """Where the letter stands: it is the one group that took part."""
    return match.start(match.lastgroup or 0)


def _before(match: re.Match[str]) -> str:
    position = _position(match)
    return match.string[max(0, position - _NEARBY) : position]


def _behind(match: re.Match[str]) -> str:
    end = match.end(match.lastgroup or 0)
    return match.string[end : end + _NEARBY].partition("\n")[0]
