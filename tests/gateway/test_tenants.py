"""What is kept for one tenant, and who else comes upon it: every door that keeps something, and every other caller.

Each row is a door: somebody leaves something there, through one gateway, and then a stranger, a colleague and the same
caller look for it, in this order, through another gateway. The stranger's key has the same name as the caller's.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from gateway.redis_cluster import TAG
from tests.gateway.sessions.conftest import Engine, Gateway, gateway, key
from tests.gateway.sessions.conftest import engine as engine  # a fixture
from tests.gateway.sessions.conftest import patient as patient
from tests.polling import eventually

CALLER, COLLEAGUE, STRANGER = "a-one", "a-two", "b-one"
MESSAGES = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 100}
SESSION = {"configurable": {"session_id": "s"}}


def keys(**limits: int) -> list[dict]:
    everyone = [(CALLER, "a", "one"), (COLLEAGUE, "a", "two"), (STRANGER, "b", "one")]
    return [
        *(key(secret, tenant, name=name, **limits) for secret, tenant, name in everyone),
        key("root", "ops", admin=True),
    ]


Act = Callable[[Gateway, str], Awaitable[bool]]


@dataclass
class Door:
    """
    Attributes:
        leave: somebody leaves something; whatever it returns.
        found: whether a caller comes upon it.
        colleague, caller: whether these should; a stranger never should.
        limits: of every key.
    """

    name: str
    leave: Act
    found: Act
    colleague: bool = True
    caller: bool = True
    limits: dict[str, int] = field(default_factory=dict)


# The exact cache


def cached(path: str, **body: object) -> Door:
    async def ask(at: Gateway, who: str) -> bool:
        answer = await at.http("POST", path, who, json={"model": "m", **body})
        assert answer.status_code == 200, answer.text
        return answer.headers["x-llmgw-cache"] == "hit"

    return Door(f"{path}{' streamed' if body.get('stream') else ''}", ask, ask)


# Sessions


async def chat(at: Gateway, who: str) -> bool:
    """Whether the engine was told what had been said before."""
    body = {"input": {"input": "now"}, "config": SESSION}
    assert (await at.http("POST", "/chains/chat/invoke", who, json=body)).status_code == 200
    return "secret" in at.engine.asked


async def chat_streamed(at: Gateway, who: str) -> bool:
    body = {"input": {"input": "now"}, "config": SESSION}
    assert (await at.http("POST", "/chains/chat/stream", who, json=body)).status_code == 200
    return "secret" in at.engine.asked


async def confide(at: Gateway, who: str) -> bool:
    return bool(await at.say("secret", "s", who))


async def listed(at: Gateway, who: str) -> bool:
    return "s" in await at.sessions(who)


async def read(at: Gateway, who: str) -> bool:
    return "secret" in (await at.http("GET", "/sessions/s", who)).text


async def deleted(at: Gateway, who: str) -> bool:
    return (await at.http("DELETE", "/sessions/s", who)).status_code == 204


# Limits: an answer that goes on holds what was reserved for it


async def begin(at: Gateway, who: str) -> bool:
    at.engine.hold = True
    client = httpx.AsyncClient(base_url=at.base, headers={"x-api-key": who}, timeout=30)
    request = client.build_request("POST", "/v1/chat/completions", json={"model": "m", "stream": True, **MESSAGES})
    at.held = await client.send(request, stream=True)
    assert at.held.status_code == 200
    at.engine.hold = False
    return True


async def counted(at: Gateway, who: str) -> bool:
    asked = MESSAGES | {"messages": [{"role": "user", "content": who}]}
    return (await at.http("POST", "/v1/chat/completions", who, json={"model": "m", **asked})).status_code == 429


def limited(**limits: int) -> Door:
    return Door(*limits, begin, counted, colleague=False, limits=limits)


# What was used


async def use(at: Gateway, who: str) -> bool:
    return await counted(at, who)


async def usage(at: Gateway, who: str) -> bool:
    answer = await at.http("GET", "/admin/usage", who)
    return answer.status_code != 403 or "one" in answer.text


DOORS = [
    cached("/v1/chat/completions", **MESSAGES),
    cached("/v1/chat/completions", stream=True, **MESSAGES),
    cached("/v1/completions", prompt="hi", temperature=0),
    cached("/v1/completions", prompt="hi", temperature=0, stream=True),
    cached("/v1/embeddings", input="hi"),
    cached("/v1/score", text_1="hi", text_2="ho"),
    cached("/v1/rerank", query="hi", documents=["ho"]),
    Door("a chain's memory", confide, chat),
    Door("a chain's memory, streamed", confide, chat_streamed),
    Door("the list of sessions", confide, listed),
    Door("a session", confide, read),
    Door("the end of a session", confide, deleted, caller=False),  # a colleague has ended it
    limited(requests_per_minute=1),
    limited(tokens_per_minute=110),
    limited(concurrency=1),
    limited(tokens_per_day=150),
    limited(tokens_per_month=150),
    Door("usage", use, usage, colleague=False, caller=False),
]


@asynccontextmanager
async def two(redis_url: str, engine: Engine, **limits: int) -> AsyncIterator[tuple[Gateway, Gateway]]:
    settings = {"keys": keys(**limits), "session_max_messages": 10}
    async with gateway(redis_url, engine, **settings) as one, gateway(redis_url, engine, **settings) as other:
        yield one, other


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
async def test_who_comes_upon_what_one_caller_has_left(redis_server, redis, engine, door):
    async with two(redis_server.url, engine, **door.limits) as (one, other):
        await door.leave(one, CALLER)
        if door.name.startswith("/v1"):
            await eventually(lambda: redis.keys("{llmgw}:cache:*"))  # it is written once the answer is there
        found = [await door.found(other, who) for who in (STRANGER, COLLEAGUE, CALLER)]
        if one.held is not None:
            await one.held.aclose()
    assert found == [False, door.colleague, door.caller]


async def test_what_is_used_is_added_up_by_tenant_and_key(redis_server, engine):
    async with two(redis_server.url, engine) as (one, other):
        for times, who in enumerate((CALLER, COLLEAGUE, STRANGER), 1):
            for number in range(times):
                assert not await counted((one, other)[number % 2], who)

        async def rows() -> dict[tuple[str, str], int]:
            found = (await one.http("GET", "/admin/usage", "root")).json()
            return {(row["tenant"], row["key"]): row["requests"] for row in found}

        expected = {("a", "one"): 1, ("a", "two"): 2, ("b", "one"): 3}

        async def complete() -> bool:
            return await rows() == expected

        await eventually(complete)


async def test_every_door_that_keeps_something_has_its_row(redis_server, redis, engine):
    """A kind of key in Redis that no row knows wants one."""
    async with two(redis_server.url, engine, requests_per_minute=100, tokens_per_minute=10_000, concurrency=5) as (
        one,
        _,
    ):
        for door in DOORS:
            if door.leave is not begin:
                await door.leave(one, CALLER)
        names = [name.decode().split(":") for name in await redis.keys()]
    assert {tag for tag, *_ in names} == {TAG}  # or a Redis Cluster would not take them together
    assert {kind for _, kind, *_ in names} <= {"cache", "session", "sessions", "limit", "used", "usage"}
