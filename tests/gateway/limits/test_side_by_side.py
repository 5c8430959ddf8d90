"""A request that makes several model calls keeps to the open answers of its own key."""

from collections.abc import AsyncIterator

import pytest

from tests.gateway.sessions.conftest import Engine, Gateway, gateway, key
from tests.gateway.sessions.conftest import engine as engine  # a fixture

LONG = {"text": "word " * 8_000}


@pytest.fixture(params=[1, 3])
async def limited(request, redis_server, engine: Engine) -> AsyncIterator[Gateway]:
    """Whose key may have so many answers open; what it asks is never in the cache."""
    keys = [key("ann", "a", concurrency=request.param, cache="never")]
    async with gateway(redis_server.url, engine, 1_024, keys=keys) as at:
        yield at


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("chat/batch", {"inputs": [{"input": str(number)} for number in range(12)]}),
        ("summarize/invoke", {"input": LONG}),
        ("summarize/stream", {"input": LONG}),
        ("summarize/batch", {"inputs": [LONG] * 4}),
    ],
)
async def test_a_chain_gets_through_with_few_answers_open(limited: Gateway, path: str, body: dict) -> None:
    answer = await limited.http("POST", f"/chains/{path}", json=body)
    assert answer.status_code == 200, answer.text
    assert "event: error" not in answer.text
    assert len(limited.engine.bodies) > 9
