"""Whose turn it is: requests of one model run together, and every model that is asked for gets its turn.

A turn begins when the weights have been switched. Requests for its model start at once. When others wait and the turn
has lasted ``turn_seconds``, no more are let in; when the last one has ended, the model whose oldest request has waited
longest is next. A turn also ends as soon as nothing of it runs and others wait.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from neuroada.serving.serving_metrics import ServingMetrics
from neuroada.serving.vllm_client import EngineError


class QueueFull(RuntimeError):
    """As many requests wait as may."""


@dataclass(eq=False)
class _Waiter:
    granted: "asyncio.Future[None]"
    since: float = field(default_factory=time.monotonic)


class Turns:
    """Lets requests through to the engine.

    Args:
        switch: Puts a model's weights in place and returns milliseconds; nothing runs meanwhile.
        models: All names, the one whose weights are in place first.
        metrics: What happens is counted there.
        max_waiting: Requests that may wait, of all models together.
        max_running: Requests that run at a time.
        turn_seconds: How long a turn may last while others wait; no request is cut off.
    """

    def __init__(
        self,
        switch: Callable[[str], Awaitable[float]],
        models: list[str],
        metrics: ServingMetrics,
        *,
        max_waiting: int,
        max_running: int,
        turn_seconds: float,
    ) -> None:
        self._switch, self._metrics = switch, metrics
        self._max_waiting, self._max_running, self._turn_seconds = max_waiting, max_running, turn_seconds
        self._waiting: dict[str, deque[_Waiter]] = {name: deque() for name in models}
        self._current: str | None = models[0]
        self._began = time.monotonic()
        self._running = 0
        self._switching: asyncio.Task[None] | None = None
        metrics.is_current(models[0])

    @asynccontextmanager
    async def of(self, model: str) -> AsyncIterator[None]:
        """For as long as the block runs, the weights are this model's.

        Raises:
            QueueFull: Too many requests wait already.
            EngineError: The weights could not be switched.
        """
        await self._enter(model)
        self._metrics.running(model, +1)
        try:
            yield
        finally:
            self._metrics.running(model, -1)
            self._leave()

    async def close(self) -> None:
        """Wait for a switch that is under way."""
        if self._switching is not None:
            await asyncio.wait([self._switching])

    async def _enter(self, model: str) -> None:
        waiter = _Waiter(asyncio.get_running_loop().create_future())
        queue = self._waiting[model]
        queue.append(waiter)
        self._advance()
        if not waiter.granted.done() and sum(map(len, self._waiting.values())) > self._max_waiting:
            queue.remove(waiter)
            raise QueueFull(f"{self._max_waiting} requests wait already; try again later")
        self._metrics.waiting(model, len(queue))
        try:
            await waiter.granted
        except asyncio.CancelledError:
            if waiter in queue:
                queue.remove(waiter)
            elif waiter.granted.done() and not waiter.granted.cancelled() and not waiter.granted.exception():
                self._leave()  # it was let in, and cancelled before it noticed
            raise
        finally:
            self._metrics.waiting(model, len(queue))
        self._metrics.waited(time.monotonic() - waiter.since)

    def _leave(self) -> None:
        self._running -= 1
        self._advance()

    def _advance(self) -> None:
        """Let in who may come in now, or begin the next turn."""
        if self._switching is not None:
            return
        others = [name for name, queue in self._waiting.items() if queue and name != self._current]
        is_over = bool(others) and time.monotonic() - self._began >= self._turn_seconds
        if self._current is not None and not is_over:
            self._let_in(self._waiting[self._current])
        if others and self._running == 0:
            following = min(others, key=lambda name: self._waiting[name][0].since)
            self._switching = asyncio.get_running_loop().create_task(self._begin(following))

    def _let_in(self, queue: deque[_Waiter]) -> None:
        while queue and self._running < self._max_running:
            self._running += 1
            queue.popleft().granted.set_result(None)

    async def _begin(self, model: str) -> None:
        failure: EngineError | None = None
        try:
            self._metrics.switched(model, await self._switch(model))
            self._current = model
        except EngineError as error:
            self._current, failure = None, error
        finally:
            self._switching = None
        self._began = time.monotonic()
        self._metrics.is_current(self._current)
        if failure is not None:
            self._metrics.switch_failed()
            queue = self._waiting[model]
            while queue:
                queue.popleft().granted.set_exception(failure)
        self._advance()
