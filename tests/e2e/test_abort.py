"""A client that goes away stops its generation in the engine, however it asked and wherever the engine stands.

An undisturbed run of these requests takes many seconds; that the engine is idle again soon after is told by the engine
itself. benchmarks/abort.py measures how soon.
"""

import asyncio

import httpx
import pytest

from tests.e2e.stack import CHAT_MODEL
from tests.polling import eventually

LONG_ANSWER = {
    "messages": [{"role": "user", "content": "Tell a very long story."}],
    "max_tokens": 3000,
    "ignore_eos": True,
}
LONG_PROMPT = {"messages": [{"role": "user", "content": "alpha beta gamma delta " * 700}], "max_tokens": 3000}


async def leave(base: str, path: str, body: dict, until, clients: int = 1) -> None:
    """Sends the request from `clients` connections, and closes them once `until` holds."""
    async with httpx.AsyncClient(base_url=base, timeout=120) as client:
        calls = [asyncio.create_task(client.post(path, json=body)) for _ in range(clients)]
        try:
            await eventually(until, within=30)
        finally:
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("body", [LONG_ANSWER, LONG_PROMPT], ids=["generating", "in prefill"])
async def test_one_request(stack, stream, body):
    body = body | {"model": CHAT_MODEL, "stream": stream, "cache_prompt": False}
    await leave(stack.url, "/v1/chat/completions", body, lambda: stack.busy() == 1)
    await eventually(lambda: stack.busy() == 0, within=5)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_running_and_waiting_requests(stack, stream):
    """Some wait at the engine, and some at the gateway, for a place at the engine."""
    body = LONG_ANSWER | {"model": CHAT_MODEL, "stream": stream}
    slots = 4

    async def all_here() -> bool:
        async with httpx.AsyncClient(base_url=stack.url) as client:
            text = (await client.get("/metrics")).text
        name = "llmgw_requests_in_flight "
        open_ = next(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))
        return stack.busy() >= slots and open_ >= 10

    await leave(stack.url, "/v1/chat/completions", body, all_here, clients=10)
    await eventually(lambda: stack.busy() == 0, within=5)


@pytest.mark.parametrize("operation", ["invoke", "stream", "stream_events"])
async def test_through_a_chain(stack, operation):
    body = {"input": {"input": "Count from one to a thousand in words.", "system": "Never stop."}}
    await leave(stack.url, f"/chains/chat/{operation}", body, lambda: stack.busy() == 1)
    await eventually(lambda: stack.busy() == 0, within=5)


async def test_through_a_skill(stack):
    body = {"text": "A long story about rivers. " * 60, "language": "French"}
    await leave(stack.url, "/skills/text/translate", body, lambda: stack.busy() == 1)
    await eventually(lambda: stack.busy() == 0, within=5)
