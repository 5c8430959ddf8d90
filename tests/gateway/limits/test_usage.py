"""What is used: told by engines or counted, added up in a real Redis, and shown to who may see it."""

import asyncio
import csv
import hashlib
import json
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gateway.app import create_app
from gateway.cli.main import app as command
from gateway.limits import usage
from gateway.settings import Key, Settings
from gateway.upstream.usage import Usage
from tests.gateway.doors import served
from tests.gateway.raw_server import DONE, END, STREAM_HEAD, chunk, event, raw_server, sized, token
from tests.gateway.records import join
from tests.polling import eventually

ASK = {"model": "m", "messages": [{"role": "user", "content": "four words of prompt"}]}
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 7,
    "total_tokens": 18,
    "prompt_tokens_details": {"cached_tokens": 5},
}
WHOLE = json.dumps(
    {
        "choices": [
            {"index": 0, "message": {"content": '"usage":{"prompt_tokens":999}'}, "finish_reason": "stop"},
        ],
        "usage": USAGE,
    }
).encode()
LAST = event(json.dumps({"choices": [], "usage": USAGE}).encode())
TODAY = datetime.now(UTC).date().isoformat()


def stream(*parts: bytes) -> bytes:
    return STREAM_HEAD + b"".join(map(chunk, parts)) + END


@pytest.fixture
async def gateway(redis_server, monkeypatch):
    """Keys of two tenants, one of them an administrator's."""
    monkeypatch.setattr(usage, "FLUSH_S", 0.1)

    def key(name: str, tenant: str, **fields: object) -> Key:
        return Key(name=name, tenant=tenant, hash=f"sha256:{hashlib.sha256(name.encode()).hexdigest()}", **fields)

    keys = (key("ann", "a"), key("bob", "b"), key("root", "ops", admin=True))
    settings = Settings.load(redis_url=redis_server.url, keys=keys)
    async with served(create_app(settings), lifespan="on") as base, httpx.AsyncClient(base_url=base) as client:
        yield client


def as_(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


async def knows(gateway: httpx.AsyncClient) -> bool:
    return bool((await gateway.get("/v1/models", headers=as_("ann"))).json()["data"])


async def rows(gateway: httpx.AsyncClient) -> list[dict]:
    return (await gateway.get("/admin/usage", headers=as_("root"))).json()


async def counted(gateway: httpx.AsyncClient, requests: int) -> list[dict]:
    async def enough() -> bool:
        return sum(row["requests"] for row in await rows(gateway)) == requests

    await eventually(enough)
    return await rows(gateway)


def tokens(row: dict) -> tuple[int, int, int]:
    return row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"]


async def test_it_is_added_up_by_key_model_and_door(gateway, redis):
    async with raw_server(sized(WHOLE)) as engine:
        await join(redis, "m-1", url=engine.url)
        await eventually(lambda: knows(gateway))
        for name in ("ann", "ann", "bob"):
            assert (await gateway.post("/v1/chat/completions", json=ASK, headers=as_(name))).content == WHOLE
        await gateway.post("/chains/chat/invoke", json={"input": {"input": "hi"}}, headers=as_("bob"))
        found = await counted(gateway, 4)
    assert [(row["tenant"], row["key"], row["door"], row["requests"]) for row in found] == [
        ("a", "ann", "v1", 2),
        ("b", "bob", "chains", 1),
        ("b", "bob", "v1", 1),
    ]
    assert {(row["day"], row["model"]) for row in found} == {(TODAY, "m")}
    assert [tokens(row) for row in found] == [(22, 14, 10), (11, 7, 5), (11, 7, 5)]


@pytest.mark.parametrize(
    "parts",
    [
        (token("a"), token("b", "stop"), LAST, DONE),
        (token("a"), token("b", "stop") + LAST + DONE),
        (token("a") + token("b", "stop") + LAST, DONE),
    ],
    ids=["apart", "together", "all but the end"],
)
@pytest.mark.parametrize("wanted", [True, False], ids=["asked for", "not asked for"])
async def test_a_stream_is_asked_and_the_client_sees_it_only_if_it_asked(gateway, redis, parts, wanted):
    asked = ASK | {"stream": True} | ({"stream_options": {"include_usage": True}} if wanted else {})
    async with raw_server(stream(*parts)) as engine:
        await join(redis, "m-1", url=engine.url)
        await eventually(lambda: knows(gateway))
        answer = await gateway.post("/v1/chat/completions", json=asked, headers=as_("ann"))
        (row,) = await counted(gateway, 1)
    assert answer.content == token("a") + token("b", "stop") + (LAST if wanted else b"") + DONE
    assert tokens(row) == (11, 7, 5)
    sent = json.loads(engine.requests[0].partition(b"\r\n\r\n")[2])
    assert sent == asked | {"stream_options": {"include_usage": True}}


async def test_null_is_no_usage_and_the_events_are_counted(gateway, redis):
    last = token("b", "stop").replace(b"}\n\n", b',"usage":null}\n\n')
    async with raw_server(stream(token("a"), last, DONE)) as engine:
        await join(redis, "m-1", url=engine.url)
        await eventually(lambda: knows(gateway))
        await gateway.post("/v1/chat/completions", json=ASK | {"stream": True}, headers=as_("ann"))
        (row,) = await counted(gateway, 1)
    assert row["prompt_tokens"] > 0
    assert row["completion_tokens"] == 2


async def test_of_a_stream_that_is_left_what_had_come_is_counted(gateway, redis):
    async with raw_server(STREAM_HEAD + b"".join(chunk(token(str(n))) for n in range(9))) as engine:
        await join(redis, "m-1", url=engine.url)
        await eventually(lambda: knows(gateway))
        body = json.dumps(ASK | {"stream": True}).encode()
        head = f"authorization: Bearer ann\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        host, port = str(gateway.base_url).removeprefix("http://").rstrip("/").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n" + head + body)
        await reader.readuntil(token("8"))
        writer.close()
        (row,) = await counted(gateway, 1)
    prompt, completion, _ = tokens(row)
    assert prompt == len("four words of prompt") // 4
    assert 1 <= completion <= 9


async def test_a_cached_answer_costs_no_engine_anything(gateway, redis):
    async with raw_server(sized(WHOLE)) as engine:
        await join(redis, "m-1", url=engine.url)
        await eventually(lambda: knows(gateway))
        await gateway.post("/v1/chat/completions", json=ASK | {"temperature": 0}, headers=as_("ann"))

        async def hit() -> bool:
            answer = await gateway.post("/v1/chat/completions", json=ASK | {"temperature": 0}, headers=as_("ann"))
            return answer.headers["x-llmgw-cache"] == "hit"

        await eventually(hit)
        (row,) = await counted(gateway, 1 + len(engine.requests))
    assert tokens(row) == (11 * len(engine.requests), 7 * len(engine.requests), 5 * len(engine.requests) + 18)


async def test_nothing_is_lost_and_nothing_counted_twice_while_redis_is_away(gateway, redis, redis_server):
    async with raw_server(sized(WHOLE)) as engine:
        await join(redis, "m-1", url=engine.url)
        await eventually(lambda: knows(gateway))
        redis_server.kill()
        for _ in range(3):
            assert (await gateway.post("/v1/chat/completions", json=ASK, headers=as_("ann"))).status_code == 200
            await asyncio.sleep(2.5 * usage.FLUSH_S)
        answer = await gateway.get("/admin/usage", headers=as_("root"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "usage_unavailable")
        redis_server.start()

        async def back() -> bool:
            answer = await gateway.get("/admin/usage", headers=as_("root"))
            return answer.is_success and sum(row["requests"] for row in answer.json()) == 3

        await eventually(back)


async def test_only_an_administrator_sees_it(gateway):
    for name in ("ann", "bob"):
        answer = await gateway.get("/admin/usage", headers=as_(name))
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
    assert (await gateway.get("/admin/usage")).status_code == 401


@pytest.mark.parametrize("query", ["from=2026-01-02&to=2026-01-01", "from=2020-01-01&to=2026-01-01", "from=yesterday"])
async def test_days_that_make_no_sense_are_refused(gateway, query):
    assert (await gateway.get(f"/admin/usage?{query}", headers=as_("root"))).status_code in (400, 422)


async def test_as_csv_and_on_the_command_line(gateway, redis, redis_server, monkeypatch):
    async with raw_server(sized(WHOLE)) as engine:
        await join(redis, "m-1", url=engine.url)
        await eventually(lambda: knows(gateway))
        await gateway.post("/v1/chat/completions", json=ASK, headers=as_("ann"))
        await counted(gateway, 1)
    answer = await gateway.get("/admin/usage?format=csv", headers=as_("root"))
    (row,) = csv.DictReader(answer.text.splitlines())
    assert (row["day"], row["tenant"], row["prompt_tokens"]) == (TODAY, "a", "11")
    monkeypatch.setenv("LLMGW_REDIS_URL", redis_server.url)
    shown, written = [
        await asyncio.to_thread(CliRunner().invoke, command, ["usage", "--from", TODAY, *arguments])
        for arguments in ([], ["--csv"])
    ]
    assert shown.output.splitlines()[1].split()[:8] == [TODAY, "a", "ann", "m", "v1", "1", "11", "7"]
    assert written.output == answer.text.replace("\r\n", "\n")


async def test_without_redis_nobody_counts():
    async with served(create_app(Settings.load())) as base, httpx.AsyncClient(base_url=base) as client:
        answer = await client.get("/admin/usage")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "usage_unavailable")


COUNTS = st.one_of(st.integers(0, 10**9), st.integers(0, 10**25))


@given(st.text(st.characters(codec="utf-8")), COUNTS, COUNTS)
def test_no_content_is_taken_for_the_usage_and_no_number_is_too_large_to_add_up(content, prompt, completion):
    body = {"choices": [{"message": {"content": content + '"usage":{"prompt_tokens":1}'}}]}
    told = {"usage": {"prompt_tokens": prompt, "completion_tokens": completion}}
    found = Usage(min(prompt, 10**10), min(completion, 10**10))
    assert Usage.find(json.dumps(body | told).encode()) == found
    assert Usage.find(json.dumps(told | body, separators=(",", ":")).encode()) == found
    assert Usage.find(json.dumps(body).encode()) is None
    assert Usage.find(json.dumps(body | {"usage": None}).encode()) is None
