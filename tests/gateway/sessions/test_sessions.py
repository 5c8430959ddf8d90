"""What a chain remembers: over calls and gateways, for its tenant alone, within bounds, and never in silence not."""

import asyncio
import json

import httpx
import pytest

from gateway.sessions import store
from tests.gateway.chains_door.door import hashed
from tests.gateway.doors import sse
from tests.gateway.sessions.conftest import gateway
from tests.polling import eventually

SESSION = {"configurable": {"session_id": "a"}}


async def streamed(chat, text: str) -> str:
    return "".join([chunk async for chunk in chat.astream({"input": text}, SESSION)])


async def test_a_remote_runnable_has_a_memory_over_calls_and_gateways(two, engine):
    one, other = two
    assert await one.say("first", "a") == "answer 1"
    assert await other.say("second", "a") == "answer 2"
    assert engine.asked == ["first", "answer 1", "second"]
    assert [message["role"] for message in engine.bodies[-1]["messages"]] == ["system", "user", "assistant", "user"]
    assert await streamed(one.chat(), "third") == "answer 3"
    assert await streamed(other.chat(), "fourth") == "answer 4"
    assert engine.asked == ["first", "answer 1", "second", "answer 2", "third", "answer 3", "fourth"]


@pytest.mark.parametrize("run", ["invoke", "batch", "stream", "stream_log", "stream_events"])
async def test_every_run_remembers(two, engine, run):
    one, other = two
    body = {"inputs": [{"input": "hi"}]} if run == "batch" else {"input": {"input": "hi"}}
    answer = await one.http("POST", f"/chains/chat/{run}", json=body | {"config": SESSION})
    assert answer.status_code == 200
    assert await other.said("a") == ["hi", "answer 1"]
    assert (await other.http("POST", f"/chains/chat/c/{hashed(SESSION)}/{run}", json=body)).status_code == 200
    assert engine.asked == ["hi", "answer 1", "hi"]


async def test_without_a_session_nothing_is_remembered(two, engine):
    for config in ({}, {"configurable": {"session_id": ""}}):
        assert await two[0].chat().ainvoke({"input": "hi"}, config)
        assert engine.asked == ["hi"]
    assert await two[0].sessions() == []


async def test_what_was_said_comes_before_the_history_that_is_sent(two, engine):
    await two[0].say("first", "a")
    turn = {"input": "now", "history": [{"type": "human", "content": "sent"}]}
    await two[0].http("POST", "/chains/chat/invoke", json={"input": turn, "config": SESSION})
    assert engine.asked == ["first", "answer 1", "sent", "now"]
    assert await two[1].said("a") == ["first", "answer 1", "now", "answer 2"]


async def test_the_schema_names_the_session(two):
    schema = (await two[0].http("GET", "/chains/chat/config_schema")).json()
    assert {"session_id", "model"} <= set(schema["$defs"]["Configurable"]["properties"])


async def test_sessions_are_listed_read_and_deleted_by_whoever_shares_the_tenant(two, redis):
    one, other = two
    await one.say("first", "a")
    await one.say("other", "user:7@x")
    assert sorted(await other.sessions("alex")) == ["a", "user:7@x"]
    shown = (await other.http("GET", "/sessions/user:7@x", "alex")).json()
    said = [{"role": "user", "content": "other"}, {"role": "assistant", "content": "answer 2"}]
    assert shown == {"id": "user:7@x", "messages": said}
    deleted = await other.http("DELETE", "/sessions/a", "alex")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert await one.sessions() == ["user:7@x"]
    for method in ("GET", "DELETE"):
        gone = await one.http(method, "/sessions/a")
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "session_not_found")
    assert len(await redis.keys("{llmgw}:session:*")) == 1


async def test_it_ends_when_nothing_is_said(redis_server, redis, engine):
    async with gateway(redis_server.url, engine, session_ttl_s=1) as one:
        await one.say("first", "a")
        (index,) = await redis.keys("{llmgw}:sessions:*")
        await redis.persist(index)  # as it is while another session goes on

        async def over() -> bool:
            return await one.sessions() == [] and not await redis.keys("{llmgw}:session:*")

        await eventually(over)
        assert (await one.http("GET", "/sessions/a")).status_code == 404
        await one.say("again", "a")
        assert engine.asked == ["again"]


async def test_a_turn_renews_it(two, redis):
    await two[0].say("first", "a")
    keys = [*await redis.keys("{llmgw}:session:*"), *await redis.keys("{llmgw}:sessions:*")]
    for key in keys:
        assert 86_000 < await redis.ttl(key) <= 86_400
        await redis.expire(key, 100)
    await two[1].say("second", "a")
    assert all([await redis.ttl(key) > 86_000 for key in keys])


# Bounds


async def test_the_oldest_turns_go_where_there_are_too_many(redis_server, engine):
    async with gateway(redis_server.url, engine, session_max_messages=4) as one:
        for text in ("first", "second", "third"):
            await one.say(text, "a")
        assert await one.said("a") == ["second", "answer 2", "third", "answer 3"]


async def test_the_oldest_turns_go_where_they_are_too_long(two, monkeypatch):
    monkeypatch.setattr(store, "MAX_BYTES", 100)
    for text in ("a" * 20, "b" * 20, "c" * 20, "d" * 200):
        await two[0].say(text, "a")
        said = await two[0].said("a")
        assert said[-2] == text
        assert len(said) == {"a": 2, "b": 4, "c": 4, "d": 2}[text[0]]


async def test_a_tenant_has_so_many_sessions_and_no_more(two, engine, monkeypatch):
    monkeypatch.setattr(store, "MAX_SESSIONS", 1)
    one, other = two
    await one.say("first", "a")
    refused = await other.http(
        "POST", "/chains/chat/invoke", json={"input": {"input": "hi"}, "config": other_session()}
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "too_many_sessions")
    assert await other.say("still", "a") == "answer 2"
    assert await one.say("elsewhere", "b", "bob") == "answer 3"
    await one.http("DELETE", "/sessions/a")
    assert await other.say("now", "b") == "answer 4"


def other_session() -> dict:
    return {"configurable": {"session_id": "b"}}


@pytest.mark.parametrize(("text", "kept"), [("word" * 30, 2), ("a " * 40, 1)], ids=["by estimate", "by the verdict"])
async def test_a_session_longer_than_the_model_s_context_goes_on(redis_server, engine, text, kept):
    async with gateway(redis_server.url, engine, max_model_len=100) as one:
        for number in range(5):
            assert await one.say(text, "a") == f"answer {number + 1}"
        assert len(engine.asked) == 2 * kept + 1
        assert len(await one.said("a")) == 10


async def test_a_turn_too_long_to_keep_is_refused_before_it_is_asked(two, engine):
    turn = {"input": "x" * (store.MAX_BYTES + 1)}
    answer = await two[0].http("POST", "/chains/chat/invoke", json={"input": turn, "config": SESSION})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "input")
    assert engine.server.requests == []


async def test_turns_at_once_are_all_kept_whole(two):
    await asyncio.gather(*(two[number % 2].say(f"q{number}", "a") for number in range(10)))
    said = await two[0].said("a")
    assert sorted(said[::2]) == sorted(f"q{number}" for number in range(10))
    assert sorted(said[1::2]) == sorted(f"answer {number + 1}" for number in range(10))


# What does not go well


@pytest.mark.parametrize("name", ["a b", "a/b", "é", "x" * 129, "{a}", "a\n", "../x", ".", ".."])
async def test_a_name_that_is_none_is_refused(two, engine, name):
    config = {"configurable": {"session_id": name}}
    answer = await two[0].http("POST", "/chains/chat/invoke", json={"input": {"input": "hi"}, "config": config})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "session_id")
    assert engine.server.requests == []


async def test_a_name_that_is_none_is_refused_in_a_path(two):
    for name in ("a%20b", "x" * 129, "%7Ba%7D"):
        for method in ("GET", "DELETE"):
            assert (await two[0].http(method, f"/sessions/{name}")).status_code == 400


async def test_a_turn_that_failed_is_not_kept(two, engine):
    await two[0].say("first", "a")
    engine.fails = True
    with pytest.raises(httpx.HTTPStatusError):
        await two[0].say("second", "a")
    assert await two[1].said("a") == ["first", "answer 1"]


async def test_a_turn_whose_client_leaves_is_not_kept(two, engine):
    engine.hold = True
    body = {"input": {"input": "hi"}, "config": SESSION}
    async with httpx.AsyncClient(headers={"x-api-key": "ann"}, timeout=30) as client:
        async with client.stream("POST", f"{two[0].base}/chains/chat/stream", json=body) as answer:
            async for text in answer.aiter_text():
                if "answer" in text:
                    break
    await engine.server.cut.wait()
    assert await two[1].sessions() == []


async def test_without_redis_who_asks_for_a_session_is_told(engine):
    async with gateway(None, engine) as one:
        await refuses(one, engine)
        assert await one.chat().ainvoke({"input": "hi"}) == "answer 1"


async def test_with_redis_gone_who_asks_for_a_session_is_told_and_others_go_on(redis_server, engine):
    async with gateway(redis_server.url, engine) as one:
        await one.say("first", "a")
        redis_server.kill()
        asked = len(engine.server.requests)
        await refuses(one, engine, asked)
        assert await one.chat().ainvoke({"input": "hi"}) == f"answer {asked + 1}"
        redis_server.start()

        async def back() -> bool:
            return (await one.http("GET", "/sessions")).status_code == 200

        await eventually(back)
        assert await one.say("again", "a") == f"answer {asked + 2}"


async def refuses(one, engine, asked: int = 0) -> None:
    for run in ("invoke", "stream", "stream_log", "stream_events"):
        body = {"input": {"input": "hi"}, "config": SESSION}
        answer = await one.http("POST", f"/chains/chat/{run}", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "sessions_unavailable")
    for method, path in (("GET", "/sessions"), ("GET", "/sessions/a"), ("DELETE", "/sessions/a")):
        answer = await one.http(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "sessions_unavailable")
        assert answer.headers["retry-after-ms"] == "1000"
    assert len(engine.server.requests) == asked


async def test_a_stream_whose_turn_cannot_be_kept_does_not_end_well(two, redis):
    await two[0].say("first", "a")
    (key,) = await redis.keys("{llmgw}:session:*")
    await redis.config_set("maxmemory", 1)  # reads go on, writes are refused
    body = {"input": {"input": "hi"}, "config": SESSION}
    answer = await two[0].http("POST", "/chains/chat/stream", json=body)
    await redis.config_set("maxmemory", 0)
    name, data = sse(answer.text)[-1]
    assert (name, json.loads(data)["status_code"]) == ("error", 503)
    assert await redis.llen(key) == 1
