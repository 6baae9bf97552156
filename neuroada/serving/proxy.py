"""The server that clients talk to: OpenAI's interface, with an adapter in the field ``model``.

A request waits for its adapter's turn (``turns``) and is then answered by vLLM, whose answer is passed on as it comes.
"""

import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

import anyio
import httpx
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from neuroada.serving.served_models import ServedModels
from neuroada.serving.serving_metrics import ServingMetrics
from neuroada.serving.turns import QueueFull, Turns
from neuroada.serving.vllm_client import MODEL, EngineError, VllmClient

_GUARDED = "/v1"
_COMPLETIONS = ("/v1/completions", "/v1/chat/completions")
_CLIENT_HAS_GONE = 499
_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    429: "RateLimitError",
    503: "ServiceUnavailableError",
    504: "TimeoutError",
}


def proxy(
    models: ServedModels,
    engine: VllmClient,
    turns: Turns,
    metrics: ServingMetrics,
    *,
    timeout_seconds: float,
    keys: Sequence[str] = (),
) -> Starlette:
    """The application.

    Args:
        models: What is served.
        engine: Where answers come from.
        turns: Who may ask it.
        metrics: What is shown under ``/metrics``.
        timeout_seconds: From a request's arrival to the end of its answer.
        keys: Any of them must come with a request below ``/v1``; without keys, everyone is let in.
    """
    started = int(time.time())

    async def health(request: Request) -> Response:
        return Response(status_code=200 if await engine.is_ready() else 503)

    async def shown_metrics(request: Request) -> Response:
        return PlainTextResponse(metrics.text() + await engine.metrics(), media_type="text/plain; version=0.0.4")

    async def listed(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_card(models, name, started) for name in models.names]})

    async def described(request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(_card(models, name, started)) if name in models.names else _unknown(models, name)

    answering = _Completions(models, engine, turns, metrics, timeout_seconds)
    routes = [
        Route("/health", health),
        Route("/metrics", shown_metrics),
        Route("/v1/models", listed),
        Route("/v1/models/{name:path}", described),
        *(Route(path, answering, methods=["POST"]) for path in _COMPLETIONS),
    ]
    guards = [Middleware(_KeyGuard, keys=keys)] if keys else []
    return Starlette(routes=routes, middleware=guards, exception_handlers={HTTPException: _http_error})


class _Completions:
    """Answers both kinds of completions. Whatever ends a request gives its turn back and stops vLLM's work on it."""

    def __init__(
        self, models: ServedModels, engine: VllmClient, turns: Turns, metrics: ServingMetrics, timeout_seconds: float
    ) -> None:
        self._models, self._engine, self._turns, self._metrics = models, engine, turns, metrics
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await _read(request)
        except ClientDisconnect:
            return
        except ValueError as error:
            await _failure(400, str(error))(scope, receive, send)
            return
        name = body.get("model", self._models.base)
        if name not in self._models.names:
            await _unknown(self._models, name)(scope, receive, send)
            return
        reply = _Reply(name, scope, receive, send)
        status = _CLIENT_HAS_GONE
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_if_gone, receive, tasks.cancel_scope)
            status = await self._answer(request.url.path, body, reply)
            tasks.cancel_scope.cancel()
        self._metrics.answered(name, status)

    async def _answer(self, path: str, body: dict[str, Any], reply: "_Reply") -> int:
        """Send an answer, or what went wrong; returns the status."""
        try:
            with anyio.fail_after(self._timeout_seconds):
                async with self._turns.of(reply.name):
                    reply.is_running = True
                    content = json.dumps({**body, "model": MODEL}).encode()
                    async with self._engine.stream(path, content) as answer:
                        await reply.pass_on(answer)
                        return answer.status_code
        except QueueFull as error:
            return await reply.fail(429, str(error))
        except TimeoutError:
            where = "vLLM did not finish" if reply.is_running else "other adapters' requests were not over"
            return await reply.fail(504 if reply.is_running else 503, f"{where} after {self._timeout_seconds:g} s")
        except EngineError as error:
            return await reply.fail(503, f"the adapter could not be switched to: {error}")
        except httpx.TransportError as error:
            return await reply.fail(503, f"vLLM cannot be reached ({type(error).__name__})")


class _Reply:
    """What goes back to one client.

    Attributes:
        name: The model that it asked for.
        is_running: Whether its turn has come.
    """

    def __init__(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        self.name, self.is_running = name, False
        self._scope, self._receive, self._send = scope, receive, send
        self._has_begun = False
        self._own = json.dumps(name).encode()

    async def pass_on(self, answer: httpx.Response) -> None:
        """Send vLLM's answer, with the name that the client knows."""
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            content = self._named(await answer.aread())
            response = Response(content, answer.status_code, media_type=answer.headers.get("content-type"))
            await response(self._scope, self._receive, self._send)
            return
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await self._send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
        self._has_begun = True
        async for event in _events(answer):
            await self._send({"type": "http.response.body", "body": self._named(event), "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, status: int, message: str) -> int:
        """Say what went wrong; in an answer that has begun, as its last event."""
        if not self._has_begun:
            await _failure(status, message)(self._scope, self._receive, self._send)
            return status
        event = b"data: " + json.dumps(_error(status, message)).encode() + b"\n\ndata: [DONE]\n\n"
        await self._send({"type": "http.response.body", "body": event})
        return status

    def _named(self, content: bytes) -> bytes:
        # Only the first: it comes before any text of the model's.
        return content.replace(b'"model":"%s"' % MODEL.encode(), b'"model":' + self._own, 1)


class _KeyGuard:
    """Refuses requests below ``/v1`` that come without a key, as vLLM does."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_guarded = scope["type"] == "http" and scope["path"].startswith(_GUARDED) and scope["method"] != "OPTIONS"
        if is_guarded and not self._has_key(Headers(scope=scope).get("authorization", "")):
            response = _failure(401, "no valid key; send it as Authorization: Bearer <key>")
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _has_key(self, header: str) -> bool:
        scheme, _, key = header.partition(" ")
        given = _digest(key)
        # All are compared, each in the same time.
        fits = [secrets.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(fits)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


async def _read(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the request is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise ValueError("the request is no JSON object")
    return body


async def _cancel_if_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _events(answer: httpx.Response) -> "Any":
    """The events of a stream, each whole: the network may deliver them in other pieces."""
    rest = b""
    async for piece in answer.aiter_raw():
        *whole, rest = (rest + piece).split(b"\n\n")
        for event in whole:
            yield event + b"\n\n"
    if rest:
        yield rest


def _card(models: ServedModels, name: str, created: int) -> dict[str, Any]:
    is_base = name == models.base
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "neuroada",
        "root": models.base_place if is_base else models.folder(name),
        "parent": None if is_base else models.base,
    }


def _unknown(models: ServedModels, name: object) -> Response:
    return _failure(404, f"The model {name!r} does not exist; here are: {', '.join(models.names)}", "model")


def _failure(status: int, message: str, parameter: str | None = None) -> Response:
    headers = {"Retry-After": "1"} if status in (429, 503) else None
    return JSONResponse(_error(status, message, parameter), status, headers)


def _error(status: int, message: str, parameter: str | None = None) -> dict[str, Any]:
    kind = _TYPES.get(status, "InvalidRequestError")
    return {"error": {"message": message, "type": kind, "param": parameter, "code": status}}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _failure(error.status_code, error.detail)
