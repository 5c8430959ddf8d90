"""What a request may ask for in its headers, key by key: behind the gateway's own layers, on a real port."""

import asyncio
import hashlib
from dataclasses import asdict

import httpx
import orjson
import pytest
from starlette.middleware import Middleware

from gateway.context import current
from gateway.keys.ring import KeyRing
from gateway.metrics import Metrics
from gateway.middleware.asgi import exchange_of
from gateway.middleware.auth import Authentication
from gateway.middleware.errors import ErrorResponses
from gateway.middleware.request_id import RequestId
from gateway.routes.front import Gateway
from gateway.settings import Key
from tests.gateway.doors import served

NOTHING = {"policy": None, "priority": "interactive", "session": None, "left_s": None}


async def probe(scope, receive, send) -> None:
    """Answers with what the layers made of the headers."""
    context = asdict(current.get())
    until = context["until"]
    context["left_s"] = None if until is None else until - asyncio.get_running_loop().time()
    await exchange_of(scope).respond(200, (), orjson.dumps({name: context[name] for name in NOTHING}))


def key(name: str, **fields: object) -> Key:
    return Key(name=name, tenant="t", hash=f"sha256:{hashlib.sha256(name.encode()).hexdigest()}", **fields)


KEYS = (key("plain"), key("router", policies=["affinity", "balanced"]), key("slow", priority="batch"))


def front(keys: tuple[Key, ...]) -> Gateway:
    ring = KeyRing(keys, None, b"", Metrics())
    layers = [Middleware(RequestId), Middleware(ErrorResponses), Middleware(Authentication, ring, False, True)]
    return Gateway(layers, raw={"/v1/probe": probe})


@pytest.fixture(scope="module")
async def client():
    async with served(front(KEYS)) as base, httpx.AsyncClient(base_url=base) as client:
        yield client


async def ask(client: httpx.AsyncClient, key: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post("/v1/probe", headers={"x-api-key": key, **named})


@pytest.mark.parametrize(
    ("key", "headers", "expected"),
    [
        ("plain", {}, {}),
        ("slow", {}, {"priority": "batch"}),
        ("slow", {"x_llmgw_priority": "batch"}, {"priority": "batch"}),
        ("slow", {"x_session_id": "a"}, {"priority": "batch", "session": "a"}),
        ("plain", {"x_llmgw_priority": "batch"}, {"priority": "batch"}),
        ("plain", {"x_llmgw_priority": "interactive"}, {}),
        ("router", {"x_llmgw_policy": "affinity"}, {"policy": "affinity"}),
        ("router", {"X_LLMGW_Policy": "balanced", "x_session_id": "s"}, {"policy": "balanced", "session": "s"}),
        ("plain", {"x_session_id": "user:7@x_Y.z-9"}, {"session": "user:7@x_Y.z-9"}),
        ("plain", {"x_session_id": "s" * 128}, {"session": "s" * 128}),
        ("plain", {"x_llmgw_timeout_ms": "60500"}, {"left_s": pytest.approx(60.5, abs=20)}),
        ("plain", {"x_llmgw_timeout_ms": "999999999"}, {"left_s": pytest.approx(999999.999, abs=20)}),
    ],
)
async def test_what_is_asked_for_travels_with_the_request(client, key, headers, expected):
    answer = await ask(client, key, **headers)
    assert (answer.status_code, answer.json()) == (200, NOTHING | expected)


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        ("plain", {"x_llmgw_policy": "balanced"}),
        ("router", {"x_llmgw_policy": "round-robin"}),
        ("slow", {"x_llmgw_priority": "interactive"}),
    ],
)
async def test_what_the_key_does_not_allow_is_a_403(client, key, headers):
    answer = await ask(client, key, **headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "permission_denied")
    assert next(iter(headers)).replace("_", "-") in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-llmgw-policy", ""),
        ("x-llmgw-policy", "fastest"),
        ("x-llmgw-policy", "Balanced"),
        ("x-llmgw-priority", "urgent"),
        ("x-llmgw-priority", ""),
        ("x-session-id", ""),
        ("x-session-id", "a b"),
        ("x-session-id", "a/b"),
        ("x-session-id", "ä"),
        ("x-session-id", "s" * 129),
        ("x-llmgw-timeout-ms", "0"),
        ("x-llmgw-timeout-ms", "-1"),
        ("x-llmgw-timeout-ms", "1.5"),
        ("x-llmgw-timeout-ms", "1e3"),
        ("x-llmgw-timeout-ms", "²"),
        ("x-llmgw-timeout-ms", "1" * 10),
        ("x-llmgw-timeout-ms", ""),
    ],
)
async def test_what_says_nothing_known_is_a_400_that_names_its_header(client, header, value):
    answer = await client.post("/v1/probe", headers={"x-api-key": "router", header: value.encode("latin-1")})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "invalid_value", header)


async def test_a_wrong_key_is_told_before_a_wrong_header(client):
    assert (await ask(client, "nobody", x_llmgw_policy="fastest")).status_code == 401


async def test_where_no_key_is_needed_everything_may_be_asked_for():
    async with served(front(())) as base, httpx.AsyncClient(base_url=base) as client:
        asked = {"x-llmgw-policy": "round-robin", "x-llmgw-priority": "interactive"}
        answer = await client.post("/v1/probe", headers=asked)
    assert answer.json() == NOTHING | {"policy": "round-robin"}
