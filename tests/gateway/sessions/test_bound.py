"""How many sessions a tenant has, where several begin at the same time."""

import json

import pytest

from gateway.sessions import store
from tests.gateway.doors import sse
from tests.gateway.raw_server import raw_server
from tests.gateway.sessions.conftest import Engine, gateway


@pytest.mark.parametrize("run", ["invoke", "stream"])
async def test_of_sessions_that_begin_at_once_no_more_are_kept_than_there_may_be(redis_server, monkeypatch, run):
    monkeypatch.setattr(store, "MAX_SESSIONS", 1)
    engine = Engine()

    async def answers(reader, writer) -> None:
        asked = engine.server.requests
        if len(asked) == 1:
            await one.say("meanwhile", "a")
            asked.reverse()  # the engine answers the last one
        await engine.answer(reader, writer)

    async with raw_server(answers) as engine.server, gateway(redis_server.url, engine) as one:
        body = {"input": {"input": "hi"}, "config": {"configurable": {"session_id": "b"}}}
        answer = await one.http("POST", f"/chains/chat/{run}", json=body)
        assert await one.sessions() == ["a"]
        assert await one.say("again", "a") == "answer 3"
    if run == "invoke":
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "too_many_sessions")
    else:
        name, data = sse(answer.text)[-1]
        assert (name, json.loads(data)["status_code"]) == ("error", 403)
