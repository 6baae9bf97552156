"""One server from its start to its end: vLLM is started, the adapters are prepared, and requests are answered."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from neuroada.config.errors import FailureElsewhere, UserError
from neuroada.config.job_schema import ServeConfig
from neuroada.runs.stop_signals import stop_signals
from neuroada.serving.proxy import proxy
from neuroada.serving.served_models import ServedModels
from neuroada.serving.serving_metrics import ServingMetrics
from neuroada.serving.turns import Turns
from neuroada.serving.vllm_client import EngineError, VllmClient
from neuroada.serving.vllm_process import VllmProcess

_SECONDS_BETWEEN_LOOKS = 0.5
Say = Callable[[str], None]


@dataclass(frozen=True)
class Server:
    """What a server needs beside vLLM.

    Attributes:
        settings: The group ``serve``.
        models: What is served.
        keys: Keys of clients; empty lets everyone in.
        allow_precision: As ``neuroada.load`` says.
        say: Shows a line to whoever started the server.
    """

    settings: ServeConfig
    models: ServedModels
    keys: Sequence[str]
    allow_precision: bool
    say: Say

    def run(self, process: VllmProcess, listening: socket.socket) -> None:
        """Answer until a signal asks to stop; requests that are under way are then finished.

        Raises:
            UserError: An adapter does not fit the model.
            FailureElsewhere: vLLM ended by itself, or was not ready in time.
        """
        asyncio.run(self._run(process, listening))

    async def _run(self, process: VllmProcess, listening: socket.socket) -> None:
        engine = VllmClient.at_socket(process.socket)
        try:
            await self._ready(engine, process)
            for name, folder in self.models.adapters.items():
                await self._prepare(engine, name, str(folder))
            await self._answer(engine, process, listening)
        finally:
            await engine.close()

    async def _ready(self, engine: VllmClient, process: VllmProcess) -> None:
        try:
            async with asyncio.timeout(self.settings.start_seconds):
                while not (process.socket.exists() and await engine.is_ready()):
                    process.require_alive()
                    await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        except TimeoutError as error:
            raise FailureElsewhere(
                f"vLLM was not ready after serve.start_seconds={self.settings.start_seconds:g}; see {process.log}"
            ) from error

    async def _prepare(self, engine: VllmClient, name: str, folder: str) -> None:
        try:
            values = await engine.prepare(folder, self.allow_precision)
        except EngineError as error:
            raise UserError(f"adapter={folder}: {error}") from error
        self.say(f"{name}: {values:,} values, ready")

    async def _answer(self, engine: VllmClient, process: VllmProcess, listening: socket.socket) -> None:
        settings, models = self.settings, self.models
        metrics = ServingMetrics(models.names)
        turns = Turns(
            lambda name: engine.switch(models.folder(name)),
            models.names,
            metrics,
            max_waiting=settings.max_waiting,
            max_running=settings.max_running,
            turn_seconds=settings.turn_seconds,
        )
        app = proxy(models, engine, turns, metrics, timeout_seconds=settings.timeout_seconds, keys=self.keys)
        host, port = listening.getsockname()[:2]
        server = _Uvicorn(
            lambda: self.say(f"serving {', '.join(models.names)} on http://{host}:{port}/v1"),
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=settings.stop_seconds,
            ),
        )
        watching = asyncio.create_task(_stop_with(process, server))
        await server.serve(sockets=[listening])
        watching.cancel()
        await turns.close()
        process.require_alive()


class _Uvicorn(uvicorn.Server):
    """Says when it listens. Stops at the signals that stop every job; a second one stops at once."""

    def __init__(self, say: Callable[[], None], config: uvicorn.Config) -> None:
        super().__init__(config)
        self._say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._say()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as long as the server runs. Having stopped is no failure, so that none is raised again."""
        earlier = {number: signal.signal(number, self._stop) for number in stop_signals()}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


async def _stop_with(process: VllmProcess, server: uvicorn.Server) -> None:
    """Stop the server when vLLM ends."""
    while True:
        await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        try:
            process.require_alive()
        except FailureElsewhere:
            server.should_exit = True
            return


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the address, but does not listen yet.

    Raises:
        UserError: Another program has the address, or it is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        raise UserError(f"serve.port={port}: {host}:{port} cannot be used ({error.strerror})") from error
    return made
