"""An engine that tells of more tokens than there can be, and what that is to others, and to the key that asked."""

import json
from datetime import UTC, datetime

import pytest

from gateway import redis_link
from gateway.app import create_app
from gateway.limits import usage
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.limits.clocks import SECOND_US
from tests.gateway.limits.test_doors import BODY, CHAT, Door, key
from tests.gateway.raw_server import raw_server, sized
from tests.polling import eventually

# No test of this module looks at another door.
pytestmark = pytest.mark.usefixtures("no_chains_and_skills")


def tells(tokens: int) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    return sized(json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": tokens}}).encode())


@pytest.mark.parametrize("tokens", [2**63, 10**25])
async def test_it_takes_nothing_of_what_others_have_used_and_shuts_no_key(
    redis, redis_server, redis_clock, monkeypatch, caplog, tokens
):
    caplog.set_level("INFO", redis_link.__name__)
    monkeypatch.setattr(usage, "FLUSH_S", 3600)  # all at once, when the worker stops
    keys = [key("alice", tokens_per_minute=1000, cache="never"), key("bob", cache="never")]
    async with raw_server(tells(tokens)) as absurd, raw_server(tells(5)) as engine:
        upstreams = [{"model": "absurd", "url": absurd.url}, {"model": "m", "url": engine.url}]
        settings = Settings.load(redis_url=redis_server.url, upstreams=upstreams, keys=keys, workers=1)
        async with served(create_app(settings), lifespan="on") as base:
            await eventually(lambda: "connected to Redis" in caplog.text)
            door = Door(base, engine)
            assert await door.statuses(1, body=BODY | {"model": "absurd"}) == [200]
            assert await door.statuses(3, key="bob") == [200] * 3
            await redis_clock.passes(30 * SECOND_US)
            assert await door.statuses(1, CHAT) == [429]
            await redis_clock.passes(32 * SECOND_US)
            assert await door.statuses(1, CHAT) == [200]
    today = datetime.now(UTC).date()
    rows = await usage.read(redis, today, today)
    assert [(row.key, row.model, row.requests, row.prompt_tokens) for row in rows] == [
        ("alice", "absurd", 1, 1),
        ("alice", "m", 1, 1),
        ("bob", "m", 3, 3),
    ]
    assert [row.completion_tokens for row in rows] == [10**10, 5, 15]
