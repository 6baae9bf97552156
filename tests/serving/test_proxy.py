"""What clients see: OpenAI's interface, with adapters as models."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx import ASGITransport, AsyncClient

from neuroada.serving.proxy import proxy
from neuroada.serving.served_models import ServedModels
from neuroada.serving.serving_metrics import ServingMetrics
from neuroada.serving.turns import Turns
from neuroada.serving.vllm_client import EngineError, VllmClient

from .stand_in_engine import StandInEngine

MODELS = ServedModels("base", "org/base", {"a": Path("/adapters/a"), "b": Path("/adapters/b")})


def serve(
    scene: Callable[[AsyncClient, StandInEngine], Awaitable[None]],
    *,
    keys: tuple[str, ...] = (),
    timeout_seconds: float = 10.0,
    max_waiting: int = 1000,
    transport: httpx.AsyncBaseTransport | None = None,
) -> StandInEngine:
    """Play a scene with a client, the proxy and an engine."""
    engine = StandInEngine()

    async def play() -> None:
        vllm = VllmClient(transport or ASGITransport(engine.app))
        metrics = ServingMetrics(MODELS.names)
        turns = Turns(
            lambda name: vllm.switch(MODELS.folder(name)),
            MODELS.names,
            metrics,
            max_waiting=max_waiting,
            max_running=32,
            turn_seconds=0.05,
        )
        app = proxy(MODELS, vllm, turns, metrics, timeout_seconds=timeout_seconds, keys=keys)
        async with AsyncClient(transport=ASGITransport(app), base_url="http://proxy") as client:
            await asyncio.wait_for(scene(client, engine), 20)
        await vllm.close()

    asyncio.run(play())
    return engine


async def complete(client: AsyncClient, model: str, **more: Any) -> httpx.Response:
    return await client.post("/v1/completions", json={"model": model, "prompt": "Hello", **more})


def test_the_base_and_all_adapters_are_listed() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        models = (await client.get("/v1/models")).json()
        assert models["object"] == "list"
        assert [(one["id"], one["root"], one["parent"]) for one in models["data"]] == [
            ("base", "org/base", None),
            ("a", "/adapters/a", "base"),
            ("b", "/adapters/b", "base"),
        ]
        assert (await client.get("/v1/models/a")).json() == models["data"][1]
        assert (await client.get("/v1/models/c")).status_code == 404

    serve(scene)


def test_a_request_is_answered_with_the_adapter_that_it_names() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        for model, folder in (("a", "/adapters/a"), ("base", ""), ("b", "/adapters/b")):
            answer = (await complete(client, model, temperature=0.5)).json()
            assert answer == {"model": model, "choices": [{"text": folder}]}
        chat = await client.post("/v1/chat/completions", json={"model": "a", "messages": []})
        assert chat.json()["choices"] == [{"text": "/adapters/a"}]
        # Everything but the name goes on as it came; vLLM knows its model by one name.
        assert engine.asked[0] == {"model": "neuroada-engine", "prompt": "Hello", "temperature": 0.5}

    assert serve(scene).switches == ["/adapters/a", "", "/adapters/b", "/adapters/a"]


def test_without_a_model_the_base_answers() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        assert (await client.post("/v1/completions", json={"prompt": "Hello"})).json()["model"] == "base"

    serve(scene)


def test_a_stream_is_passed_on_under_the_adapters_name() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        answer = await complete(client, "a", stream=True)
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = answer.text.removesuffix("\n\n").split("\n\n")
        assert events[-1] == "data: [DONE]"
        first, second = (json.loads(event.removeprefix("data: ")) for event in events[:-1])
        assert first == {"model": "a", "choices": [{"text": "/adapters/a"}]}
        assert second == {"model": "a", "choices": [{"text": '"model":"neuroada-engine"'}]}

    serve(scene)


def test_many_clients_that_mix_adapters_get_their_own() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        engine.seconds = 0.001
        chance = random.Random(0)

        async def ask() -> None:
            for _ in range(10):
                model = chance.choice(MODELS.names)
                answer = (await complete(client, model)).json()
                assert answer == {"model": model, "choices": [{"text": MODELS.folder(model)}]}

        await asyncio.gather(*(ask() for _ in range(16)))

    engine = serve(scene)
    assert engine.most_running > 1
    assert len(engine.switches) < 80  # one by one, it would be about 107 of 160


@pytest.mark.parametrize(
    ("content", "status", "kind", "message"),
    [
        (b'{"model": "c", "prompt": ""}', 404, "NotFoundError", "The model 'c' does not exist; here are: base, a, b"),
        (b'{"model": ["a"]}', 404, "NotFoundError", "does not exist"),
        (b"{", 400, "BadRequestError", "the request is no JSON"),
        (b"[]", 400, "BadRequestError", "the request is no JSON object"),
        (b"[" * 100000, 400, "BadRequestError", "the request is no JSON"),
        (b'{"model": "a"}', 400, None, "prompt is missing"),  # vLLM's own answer
    ],
)
def test_mistakes_are_answered_in_json(content: bytes, status: int, kind: str | None, message: str) -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        answer = await client.post("/v1/completions", content=content)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error.get("type")) == (status, status, kind)
        assert message in error["message"]

    serve(scene)


def test_what_is_not_there_is_answered_in_json() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        assert (await client.post("/v1/embeddings")).json()["error"]["code"] == 404
        assert (await client.get("/v1/completions")).json()["error"]["code"] == 405

    serve(scene)


def test_a_key_is_asked_for_below_v1_alone() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right"}):
            refused = await client.get("/v1/models", headers=headers)
            assert (refused.status_code, refused.json()["error"]["type"]) == (401, "AuthenticationError")
        allowed = {"Authorization": "Bearer right"}
        assert (await client.get("/v1/models", headers=allowed)).status_code == 200
        assert (await client.post("/v1/completions", headers=allowed, json={"prompt": ""})).status_code == 200
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/metrics")).status_code == 200

    serve(scene, keys=("other", "right"))


def test_too_many_waiting_requests_are_refused() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        first = asyncio.create_task(complete(client, "base", seconds=0.05))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(complete(client, "a"))
        await asyncio.sleep(0.01)
        third = await complete(client, "a")
        assert (third.status_code, third.json()["error"]["type"]) == (429, "RateLimitError")
        assert third.headers["retry-after"] == "1"
        assert [(await task).status_code for task in (first, second)] == [200, 200]

    serve(scene, max_waiting=1)


def test_an_answer_that_takes_too_long_is_given_up_and_the_next_turn_comes() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        slow = asyncio.create_task(complete(client, "base", seconds=10))
        await asyncio.sleep(0.05)
        waiting = await complete(client, "a")  # has waited for less than its own time when the slow one is given up
        assert waiting.status_code == 200
        ended = await slow
        assert (ended.status_code, ended.json()["error"]["message"]) == (504, "vLLM did not finish after 0.1 s")

    serve(scene, timeout_seconds=0.1)


def test_a_turn_that_does_not_come_in_time_is_no_fault_of_vllm() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        slow = asyncio.create_task(complete(client, "base", seconds=10))
        late = asyncio.create_task(complete(client, "a"))
        await asyncio.sleep(0)
        assert sorted([(await slow).status_code, (await late).status_code]) in ([503, 504], [200, 504])

    serve(scene, timeout_seconds=0.1)


def test_a_client_that_goes_gives_its_turn_back() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        gone = asyncio.create_task(complete(client, "base", seconds=10))
        await asyncio.sleep(0.02)
        gone.cancel()
        assert (await complete(client, "a")).status_code == 200

    serve(scene)


def test_keys_and_values_of_other_weights_are_forgotten_even_if_vllm_still_holds_some() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        engine.cached = True  # as after a client has gone
        assert (await complete(client, "a")).status_code == 200
        assert not engine.cached

    serve(scene)


def test_an_adapter_that_vllm_refuses_is_an_error_of_its_requests_alone() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        engine.refused = {"/adapters/a"}
        failed = await complete(client, "a")
        assert (failed.status_code, failed.json()["error"]["type"]) == (503, "ServiceUnavailableError")
        assert "could not be switched to: /adapters/a: not those" in failed.json()["error"]["message"]
        assert (await complete(client, "b")).status_code == 200
        assert "neuroada_switch_failures_total 1.0" in (await client.get("/metrics")).text

    serve(scene)


def test_without_vllm_every_request_is_answered_with_503() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("gone")

    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        assert (await complete(client, "base")).json()["error"]["message"] == "vLLM cannot be reached (ConnectError)"
        assert (await complete(client, "a")).status_code == 503
        assert (await client.get("/health")).status_code == 503
        assert (await client.get("/metrics")).status_code == 200

    serve(scene, transport=httpx.MockTransport(refuse))


def test_metrics_count_switches_and_queues_of_each_adapter() -> None:
    async def scene(client: AsyncClient, engine: StandInEngine) -> None:
        for model in ("a", "b", "a", "unknown"):
            await complete(client, model)
        text = (await client.get("/metrics")).text
        for line in (
            'neuroada_switches_total{model="a"} 2.0',
            'neuroada_switches_total{model="b"} 1.0',
            "neuroada_switch_milliseconds_count 3.0",
            'neuroada_requests_waiting{model="a"} 0.0',
            'neuroada_requests_running{model="a"} 0.0',
            'neuroada_requests_total{model="a",status="200"} 2.0',
            'neuroada_current_model{model="a"} 1.0',
            'neuroada_current_model{model="b"} 0.0',
            "vllm:requests 1",
        ):
            assert line in text.splitlines()
        assert "unknown" not in text  # what clients make up is no label

    serve(scene)


def test_an_adapter_is_prepared_or_refused_with_vllms_reason() -> None:
    engine = StandInEngine()
    engine.refused = {"/adapters/b"}

    async def prepare(folder: str) -> int:
        return await VllmClient(ASGITransport(engine.app)).prepare(folder, allow_precision=False)

    assert asyncio.run(prepare("/adapters/a")) == 12
    with pytest.raises(EngineError, match="/adapters/b: not those the adapter was trained on"):
        asyncio.run(prepare("/adapters/b"))
