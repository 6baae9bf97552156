"""The speed of a loop and the time that is left."""

import torch

from neuroada.training.callbacks.pace import Pace, shown_time


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_follows_from_the_steps_after_the_first() -> None:
    clock = Clock()
    pace = Pace(total=10, clock=clock)
    assert pace.seconds_left() is None
    clock.now += 60  # the first step compiles
    pace.reach(1)
    assert pace.seconds_left() == 9 * 60
    for done in (2, 3):
        clock.now += 2
        pace.reach(done)
    assert pace.seconds_left() == 7 * 2
    clock.now += 1  # in the middle of a step
    assert pace.seconds_left() == 7 * 2


def test_a_resumed_loop_counts_only_its_own_steps() -> None:
    clock = Clock()
    pace = Pace(total=1000, done=990, clock=clock)
    clock.now += 3
    pace.reach(991)
    clock.now += 1
    pace.reach(992)
    assert pace.seconds_left() == 8


def test_tokens_count_from_the_first_micro_batch_on() -> None:
    clock = Clock()
    pace = Pace(total=4, clock=clock)
    assert pace.tokens_per_second() is None
    clock.now += 10
    pace.add(50)
    assert pace.tokens_per_second() == 5
    pace.reach(1)
    clock.now += 1
    pace.add(torch.tensor(70))
    pace.reach(2)
    assert pace.tokens_per_second() == 70


def test_times_are_shown_as_people_write_them() -> None:
    assert shown_time(3723.4) == "1:02:03"
    assert shown_time(None) == "-:--:--"
