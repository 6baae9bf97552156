"""Drafts: which tokens are drafted after earlier completions, and when none are."""

from hypothesis import given
from hypothesis import strategies as st

from neuroada.decoding.drafts import Drafts

END = 1


def test_expected_opening_is_drafted_first() -> None:
    drafts = Drafts([5, 6, 7], [END])
    assert drafts.after([], most=9) == [5, 6, 7]
    assert drafts.after([5], most=9) == [6, 7]
    assert drafts.after([5], most=1) == [6]
    assert drafts.after([8], most=9) == []


def test_draft_ends_where_it_is_more_likely_wrong_than_right() -> None:
    drafts = Drafts([5, 6], [END])
    for answer in (10, 11, 12):
        drafts.learn([5, 6, answer, END])
    assert drafts.after([], most=9) == [5, 6]
    for _ in range(4):
        drafts.learn([5, 6, 10, END])
    assert drafts.after([], most=9) == [5, 6, 10]


def test_end_token_is_never_drafted() -> None:
    drafts = Drafts([], [END])
    drafts.learn([5, END])
    assert drafts.after([], most=9) == [5]
    assert drafts.after([5], most=9) == []


def test_opening_that_the_model_does_not_write_is_soon_given_up() -> None:
    drafts = Drafts([5, 6, 7], [END])
    for first in (20, 21, 22):
        drafts.learn([first, 30, END])
    assert drafts.after([], most=9) == []


@given(st.lists(st.lists(st.integers(2, 4), max_size=6), max_size=8), st.lists(st.integers(2, 4), max_size=3))
def test_drafts_continue_something_that_was_seen(completions: list[list[int]], written: list[int]) -> None:
    drafts = Drafts([], [END])
    for completion in completions:
        drafts.learn([*completion, END])
    draft = drafts.after(written, most=4)
    together = [*written, *draft]
    assert len(draft) <= 4
    assert not draft or any(completion[: len(together)] == together for completion in completions)
