"""vLLM's HTTP interface, as the proxy uses it: on a socket that only this user can open."""

import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx

MODEL = "neuroada-engine"
"""What vLLM calls its model, whichever adapter is in its weights."""
_RESETS = 3
"""How often the cache is reset while vLLM still ends requests whose clients have gone."""


class EngineError(RuntimeError):
    """vLLM cannot be reached, or refuses what it is told; the message is for whoever runs the server."""


class VllmClient:
    """Calls of one running vLLM.

    Args:
        transport: How it is reached, see ``at_socket``.
        seconds: How long an answer to one of the proxy's own calls may take.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport, seconds: float = 120.0) -> None:
        # Requests of clients have their own limit, in the proxy.
        self._http = httpx.AsyncClient(transport=transport, base_url="http://vllm", timeout=None)
        self._seconds = seconds

    @classmethod
    def at_socket(cls, path: Path, seconds: float = 120.0) -> "VllmClient":
        """Reached through a Unix socket, by any number of requests at a time."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        return cls(httpx.AsyncHTTPTransport(uds=str(path), limits=limits), seconds)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    def stream(self, path: str, body: bytes) -> AbstractAsyncContextManager[httpx.Response]:
        """Send a client's request; the answer arrives as it is generated."""
        headers = {"Content-Type": "application/json"}
        return self._http.stream("POST", path, content=body, headers=headers)

    async def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return (await self._http.get("/health", timeout=self._seconds)).is_success
        except httpx.TransportError:
            return False

    async def metrics(self) -> str:
        """Its own metrics, as Prometheus reads them; empty if it does not answer."""
        try:
            answer = await self._http.get("/metrics", timeout=5.0)
        except httpx.TransportError:
            return ""
        return answer.text if answer.is_success else ""

    async def prepare(self, folder: str, allow_precision: bool) -> int:
        """Have every worker read an adapter; returns its number of values.

        Raises:
            EngineError: The adapter does not fit the model, or vLLM does not answer.
        """
        answers = await self._call("prepare_adapter", folder, "true" if allow_precision else "")
        return int(answers[0]["values"])

    async def switch(self, folder: str) -> float:
        """Switch every worker and forget what was computed with other weights; returns milliseconds.

        No request that matters may be running: those of clients that have gone are aborted if they are in the way.

        Args:
            folder: A prepared adapter's; empty for the base.

        Raises:
            EngineError: vLLM refuses or does not answer; whose weights it has is then unknown.
        """
        start = time.perf_counter()
        await self._call("switch", folder)
        for _ in range(_RESETS):
            if await self._forget():
                return 1000 * (time.perf_counter() - start)
        await self._post("/pause", {"mode": "abort"})
        is_empty = await self._forget()
        await self._post("/resume")
        if not is_empty:
            raise EngineError("vLLM keeps keys and values of other weights: its prefix cache cannot be reset")
        return 1000 * (time.perf_counter() - start)

    async def _forget(self) -> bool:
        return bool((await self._post("/reset_prefix_cache"))["success"])

    async def _call(self, method: str, *arguments: str) -> list[Mapping[str, Any]]:
        """What each worker answers."""
        results = (await self._post("/collective_rpc", body={"method": method, "args": arguments}))["results"]
        for result in results:
            if "error" in result:
                raise EngineError(str(result["error"]))
        return list(results)

    async def _post(
        self, path: str, parameters: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            answer = await self._http.post(path, params=parameters, json=body, timeout=self._seconds)
        except httpx.TransportError as error:
            raise EngineError(f"vLLM does not answer {path} ({type(error).__name__}: {error})") from error
        if not answer.is_success:
            raise EngineError(f"vLLM answers {path} with {answer.status_code}: {answer.text[:500]}")
        return answer.json()
