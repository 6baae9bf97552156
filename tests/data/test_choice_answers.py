"""The gold answer of a row with choices: a number is a place, and a text that could be one is not guessed."""

from typing import Any

import pytest

from neuroada.config.errors import UserError
from neuroada.data.rows import examples_of
from neuroada.tasks.protocols import PROTOCOLS

CHOICE = PROTOCOLS["choice"]
NUMBERS = ["1", "2", "3", "4"]


def row(answer: Any, choices: list[str] = NUMBERS) -> dict[str, Any]:
    return {"question": "How many?", "choices": choices, "answer": answer}


def completions(*rows: dict[str, Any], scored: bool = True) -> list[str]:
    """What is trained on, and what counts as right."""
    examples = examples_of("mmlu.jsonl", dict(enumerate(rows)), CHOICE, scored)
    return [CHOICE.completion(example) for example in examples]


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize("place", range(4))
def test_a_number_is_a_place_also_where_choices_are_numbers(place: int, scored: bool) -> None:
    assert completions(row(place), scored=scored) == [f" {NUMBERS[place]}"]
    (example,) = examples_of("mmlu.jsonl", {0: row(place)}, CHOICE, scored)
    likelihoods = [float(at == place) for at in range(4)]
    assert CHOICE.choose(likelihoods, NUMBERS, example.answer).correct


def test_texts_are_texts_where_all_answers_are() -> None:
    assert completions(row("2"), row("heat", ["cold", "heat"])) == [" 2", " heat"]
    assert completions(row("C", ["C", "A", "B"])) == [" C"]


@pytest.mark.parametrize("other", [row("1", ["cold", "heat"]), row("B", ["cold", "heat"])])
def test_a_text_that_also_names_a_place_is_refused_where_others_name_places(other: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"row 2, field 'answer': '2' is the text of one choice and names the place of"):
        completions(other, row("2"))
    assert completions(other, row(1), row("C")) == [" heat", " 2", " 3"]


@pytest.mark.parametrize("place", [4, -1])
def test_a_place_beyond_the_choices_is_refused(place: int) -> None:
    with pytest.raises(UserError, match=rf"row 1, field 'answer': is {place}, but there are 4 choices"):
        completions(row(place))
