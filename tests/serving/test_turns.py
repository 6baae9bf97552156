"""Requests of one adapter run together, each adapter gets its turn, and nothing runs while weights change."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from neuroada.serving.serving_metrics import ServingMetrics
from neuroada.serving.turns import QueueFull, Turns
from neuroada.serving.vllm_client import EngineError

MODELS = ["base", "a", "b"]


class Weights:
    """What is switched, and what happened while it was."""

    def __init__(self) -> None:
        self.current, self.running = "base", 0
        self.switches: list[str] = []
        self.broken: set[str] = set()

    async def switch(self, model: str) -> float:
        assert self.running == 0
        await asyncio.sleep(0)
        if model in self.broken:
            raise EngineError("device lost")
        self.current = model
        self.switches.append(model)
        return 1.0


def turns_of(weights: Weights, *, max_waiting: int = 100, max_running: int = 10, turn_seconds: float = 10.0) -> Turns:
    metrics = ServingMetrics(MODELS)
    return Turns(
        weights.switch, MODELS, metrics, max_waiting=max_waiting, max_running=max_running, turn_seconds=turn_seconds
    )


async def ask(turns: Turns, weights: Weights, model: str, seconds: float = 0.0) -> str:
    async with turns.of(model):
        assert weights.current == model
        weights.running += 1
        await asyncio.sleep(seconds)
        weights.running -= 1
        assert weights.current == model
    return model


def run(scene: Callable[[Weights], Awaitable[None]]) -> Weights:
    weights = Weights()
    asyncio.run(asyncio.wait_for(scene(weights), 20))
    return weights


def test_what_is_in_place_needs_no_switch() -> None:
    async def scene(weights: Weights) -> None:
        turns = turns_of(weights)
        await asyncio.gather(*(ask(turns, weights, "base") for _ in range(20)))

    assert run(scene).switches == []


def test_requests_that_alternate_are_grouped() -> None:
    async def scene(weights: Weights) -> None:
        turns = turns_of(weights, max_running=4)
        await asyncio.gather(*(ask(turns, weights, "ab"[number % 2], 0.001) for number in range(40)))

    assert run(scene).switches == ["a", "b"]


def test_who_waits_gets_a_turn_although_requests_for_another_never_end() -> None:
    async def scene(weights: Weights) -> None:
        turns = turns_of(weights, turn_seconds=0.05)

        async def busy() -> None:
            while True:
                await ask(turns, weights, "a", 0.004)

        crowd = [asyncio.create_task(busy()) for _ in range(6)]
        await asyncio.sleep(0.02)
        for model in ("b", "base", "b"):
            await asyncio.wait_for(ask(turns, weights, model), 2)
        for client in crowd:
            client.cancel()

    weights = run(scene)
    # Its own turns come between: nobody starves.
    assert weights.switches.count("b") == 2
    assert weights.switches.count("a") >= 2


def test_the_model_that_has_waited_longest_is_next() -> None:
    async def scene(weights: Weights) -> None:
        turns = turns_of(weights)
        first = asyncio.create_task(ask(turns, weights, "base", 0.02))
        await asyncio.sleep(0)
        later = []
        for model in ("b", "a", "b"):
            later.append(asyncio.create_task(ask(turns, weights, model)))
            await asyncio.sleep(0.002)
        await asyncio.gather(first, *later)

    assert run(scene).switches == ["b", "a"]


def test_no_more_run_than_may() -> None:
    async def scene(weights: Weights) -> None:
        turns, most = turns_of(weights, max_running=3), 0

        async def one() -> None:
            nonlocal most
            async with turns.of("a"):
                weights.running += 1
                most = max(most, weights.running)
                await asyncio.sleep(0.001)
                weights.running -= 1

        await asyncio.gather(*(one() for _ in range(10)))
        assert most == 3

    run(scene)


def test_when_the_queue_is_full_a_request_is_refused_at_once() -> None:
    async def scene(weights: Weights) -> None:
        turns = turns_of(weights, max_waiting=2, max_running=1)
        tasks = [asyncio.create_task(ask(turns, weights, model, 0.01)) for model in ("base", "a", "base", "b")]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in done] == [str, str, str, QueueFull]
        await ask(turns, weights, "b")  # there is room again

    run(scene)


def test_a_request_that_is_given_up_leaves_no_trace() -> None:
    async def scene(weights: Weights) -> None:
        turns = turns_of(weights, max_running=1)
        running = asyncio.create_task(ask(turns, weights, "base", 10))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(ask(turns, weights, "a"))
        await asyncio.sleep(0)
        waiting.cancel()
        let_in = asyncio.create_task(ask(turns, weights, "base"))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.sleep(0)  # the next one is let in now, and given up before it notices
        let_in.cancel()
        weights.running = 0
        await asyncio.wait_for(ask(turns, weights, "b"), 1)

    assert run(scene).switches == ["b"]


def test_a_switch_that_fails_is_told_to_those_who_wait_for_it_alone() -> None:
    async def scene(weights: Weights) -> None:
        turns = turns_of(weights)
        weights.broken = {"a"}
        asked = [ask(turns, weights, model) for model in ("a", "a", "b")]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(result) for result in done] == [EngineError, EngineError, str]
        weights.broken = set()
        assert await ask(turns, weights, "a") == "a"

    assert run(scene).switches == ["b", "a"]


def test_after_a_failed_switch_the_weights_are_unknown_and_switched_again() -> None:
    async def scene(weights: Weights) -> None:
        turns = turns_of(weights)
        weights.broken = {"a"}
        with pytest.raises(EngineError):
            await ask(turns, weights, "a")
        await ask(turns, weights, "base")

    assert run(scene).switches == ["base"]
