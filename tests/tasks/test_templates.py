"""The filter that templates have beside Jinja's own."""

import pytest

from neuroada.tasks.protocol import ProtocolError
from neuroada.tasks.templates import Expression, Template

COLUMNS = {"text": "Is it? A: yes B: no"}


def test_regex_findall_gives_all_matches() -> None:
    assert Expression("choices", r"text | regex_findall('[A-Z]: (\\w+)')")(COLUMNS) == ["yes", "no"]
    assert Template("prompt", "{{ text | regex_findall('[A-Z]:') | join }}")(COLUMNS) == "A:B:"


def test_a_mistake_in_a_pattern_is_named_with_the_expression() -> None:
    with pytest.raises(ProtocolError, match=r"^choices: .*unterminated.*; correct \"text"):
        Expression("choices", "text | regex_findall('(')")(COLUMNS)
