"""Judges by name, and functions that grade."""

import pytest

from neuroada.tasks.judges import Graded, Judge
from neuroada.tasks.log_likelihood import LogLikelihood, gold_choice
from neuroada.tasks.protocol import Example, ProtocolError
from neuroada.tasks.protocols import JUDGES, made, named_judge
from neuroada.tasks.scoring import benchmark_score, judge, judge_again, judge_choices, summarise


def verdict(name: object, generation: str, answer: str) -> bool:
    found = named_judge(name)
    assert isinstance(found, Judge)
    return found(generation, answer).correct


@pytest.mark.parametrize(
    ("name", "generation", "answer", "correct"),
    [
        ("exact", " Paris\n", "Paris", True),
        ("exact", "paris", "Paris", False),
        ("normalised", "The  Paris!", "paris", True),
        ("normalised", "Paris, France", "Paris", False),
        ("normalised", "１２", "12", True),
        ("letter", "The answer is (B).", "B", True),
        ("letter", "A or B", "B", False),
        ("number", "so it is 1,200.", "1200", True),
        ({"name": "number", "tolerance": 0.5}, "3.4", "3", True),
        ("number", "none", "3", False),
    ],
)
def test_judges(name: object, generation: str, answer: str, correct: bool) -> None:
    assert verdict(name, generation, answer) == correct


def test_graded_judges_score_between_0_and_1() -> None:
    scores = {}
    for name in ("f1", "rouge", "chrf"):
        found = named_judge(name)
        assert isinstance(found, Judge)
        assert found("the cat sat", "the cat sat").score == pytest.approx(1)
        assert found("dogs", "the cat sat").score == pytest.approx(0, abs=0.1)
        scores[name] = found("the cat ran", "the cat sat").score
    assert scores["f1"] == pytest.approx(1 / 2), "the article does not count"
    assert scores["rouge"] == pytest.approx(2 / 3)


def test_a_graded_benchmark_has_the_mean_score_and_its_interval() -> None:
    protocol = made("own", {"prompt": "{{ q }}", "completion": "{{ answer }}", "judge": "f1"})
    texts = ["red fish", "red fish blue", "dog"]
    rows = [judge(Example(place, "q", "", "red fish"), text, protocol) for place, text in enumerate(texts)]
    score = benchmark_score(rows)
    assert score["protocol"] == pytest.approx((1 + 0.8 + 0) / 3)
    assert score["correct"] == 1
    low, high = score["ci95"]
    assert low < score["protocol"] < high
    assert summarise({"a": score})["micro"] == pytest.approx(score["protocol"])


def test_choices_are_scored_by_sum_and_by_length() -> None:
    found = LogLikelihood("acc")(log_likelihoods=[-3.0, -4.0], choices=["no", "yes, it is"], answer="yes, it is")
    assert (found.extracted, found.correct, found.rules) == ("no", False, {"acc": False, "acc_norm": True})
    by_length = LogLikelihood("acc_norm")([-3.0, -4.0], ["no", "yes, it is"], "1")
    assert by_length.correct


def test_a_choice_prediction_can_be_judged_again() -> None:
    definition = {"prompt": "{{ q }}", "completion": " {{ answer }}", "choices": ["no", "yes"]}
    protocol = made("own", definition | {"judge": "log_likelihood"})
    example = Example(0, "q", "", "yes", {"q": "?"})
    row = judge_choices(example, [-2.0, -1.0], ["no", "yes"], protocol)
    assert row["correct"]
    assert judge_again(example, row, protocol) == row
    assert benchmark_score([row])["acc_norm"] == 1


@pytest.mark.parametrize(("answer", "place"), [("b", 1), ("1", 1), ("B", 1), (" a ", 0), ("0", 0), ("C", 2)])
def test_a_gold_choice_is_a_text_a_number_or_a_letter(answer: str, place: int) -> None:
    assert gold_choice(answer, ["a", "b", "c"]) == place


@pytest.mark.parametrize("answer", ["d", "3", "D", ""])
def test_an_answer_that_is_no_choice_is_refused(answer: str) -> None:
    with pytest.raises(ProtocolError, match="is none of the 3 choices"):
        gold_choice(answer, ["a", "b", "c"])


@pytest.mark.parametrize("grade", [2.0, -1, "yes", None])
def test_a_grade_out_of_range_is_refused(grade: object) -> None:
    with pytest.raises(ProtocolError, match="it must be a bool or a number from 0 to 1"):
        Graded(lambda *_: grade, "mine")("a", "b")  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"judge": "exakt"}, f"judge=exakt: no such judge; valid: {', '.join(JUDGES)}"),
        ({"judge": {"name": "rouge", "kind": "x"}}, "judge.kind: rouge takes no such argument"),
        ({"judge": {"name": "rouge", "variant": "rougeX"}}, "use rouge1, rouge2, rougeL or rougeLsum"),
        ({"judge": "log_likelihood"}, "choices and judge=log_likelihood belong together"),
        ({"choices": ["a", "b"]}, "choices and judge=log_likelihood belong together"),
        ({"choices": ["a"]}, "choices=\\['a'\\]: give a column or expression with a list, or a list of templates"),
        ({"prompt": "{% for %}"}, "prompt: not a Jinja template"),
        ({"completion": None}, "completion=None: give a template"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: must be a whole number of at least 1"),
        ({"stop": "a"}, "stop=a: give a list of texts"),
        ({"promt": "a"}, "promt: no such key; valid: prompt"),
    ],
)
def test_a_wrong_key_is_named(definition: dict[str, object], message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        made("own", {"prompt": "{{ q }}", "completion": "{{ a }}"} | definition)


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    protocol = made("own", {"prompt": "{{ question }}", "completion": "{{ a }}"})
    with pytest.raises(ProtocolError, match=r"prompt: there is no column 'question' \(there are .*, q, answer\)"):
        protocol.prompt(Example(0, "", "", "", {"q": "?"}))


def test_templates_run_in_a_sandbox() -> None:
    protocol = made("own", {"prompt": "{{ q.__class__.__mro__ }}", "completion": "x"})
    with pytest.raises(ProtocolError, match="unsafe"):
        protocol.prompt(Example(0, "", "", "", {"q": "?"}))


def test_choices_may_be_an_expression_over_columns() -> None:
    definition = {"prompt": "{{ q }}", "completion": " {{ answer }}", "judge": "log_likelihood"}
    row = {"q": "Which? a/b", "options": {"text": ["x", "y"]}}
    for source, choices in (("q.split('? ')[1].split('/')", ["a", "b"]), ("options.text", ["x", "y"])):
        assert made("own", definition | {"choices": source}).choices(Example(0, "", "", "", row)) == choices
    with pytest.raises(ProtocolError, match=r"choices: must be a list of at least two, not 'Which\? a/b'"):
        made("own", definition | {"choices": "q"}).choices(Example(0, "", "", "", row))
    with pytest.raises(ProtocolError, match="choices: 'nothing' is undefined"):
        made("own", definition | {"choices": "nothing"}).choices(Example(0, "", "", "", row))
