"""A stand-in for vLLM: the same HTTP interface, and answers that say whose weights were in place as they were made.

As a program, ``stand_in_engine.py --uds <socket> ...``, it is a server of its own.
"""

import argparse
import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route


class StandInEngine:
    """What happens inside.

    Attributes:
        current: Folder of the adapter whose weights are in place; empty for the base.
        switches: All folders that were switched to.
        running: Requests that are being answered now.
        seconds: How long an answer takes.
        refused: Folders that cannot be prepared or switched to.
        cached: Whether keys and values are held that cannot be forgotten until generation is paused.
        asked: Bodies of all requests for completions.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.current, self.seconds = "", seconds
        self.running, self.most_running = 0, 0
        self.cached = False
        self.switches: list[str] = []
        self.refused: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self.app = Starlette(
            routes=[
                Route("/health", lambda request: Response()),
                Route("/metrics", lambda request: PlainTextResponse("vllm:requests 1\n")),
                Route("/collective_rpc", self._call, methods=["POST"]),
                Route("/reset_prefix_cache", self._reset, methods=["POST"]),
                Route("/pause", self._pause, methods=["POST"]),
                Route("/resume", lambda request: JSONResponse({}), methods=["POST"]),
                Route("/v1/completions", self._complete, methods=["POST"]),
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _call(self, request: Request) -> Response:
        asked = await request.json()
        folder = asked["args"][0]
        assert self.running == 0, "weights may not change below a request"
        if folder in self.refused:
            return JSONResponse({"results": [{"error": f"{folder}: not those the adapter was trained on"}]})
        if asked["method"] == "prepare_adapter":
            return JSONResponse({"results": [{"values": 12}]})
        await asyncio.sleep(0.001)
        self.current = folder
        self.switches.append(folder)
        return JSONResponse({"results": [{"milliseconds": 1.0}]})

    async def _reset(self, request: Request) -> Response:
        return JSONResponse({"success": not self.cached})

    async def _pause(self, request: Request) -> Response:
        assert request.query_params["mode"] == "abort"
        self.cached = False
        return JSONResponse({})

    async def _complete(self, request: Request) -> Response:
        asked = await request.json()
        self.asked.append(asked)
        if "prompt" not in asked and "messages" not in asked:
            return JSONResponse({"error": {"message": "prompt is missing", "code": 400}}, 400)
        if asked.get("stream"):
            return StreamingResponse(self._events(asked), media_type="text/event-stream")
        return JSONResponse({"model": asked["model"], "choices": [{"text": await self._answer(asked)}]})

    async def _answer(self, asked: dict[str, Any]) -> str:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            before = self.current
            await asyncio.sleep(asked.get("seconds", self.seconds))
            return before if before == self.current else f"{before} mixed with {self.current}"
        finally:
            self.running -= 1

    async def _events(self, asked: dict[str, Any]) -> AsyncIterator[bytes]:
        text = await self._answer(asked)
        for piece in (text, '"model":"neuroada-engine"'):  # a model may write anything
            event = {"model": asked["model"], "choices": [{"text": piece}]}
            yield f"data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
        yield b"data: [DONE]\n\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--uds")
    known, _ = parser.parse_known_args()
    uvicorn.run(StandInEngine().app, uds=known.uds, log_level="error")
