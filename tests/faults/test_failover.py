"""Who is asked after whom, how often, and what the answer says of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from gateway.app import create_app
from tests.faults.conftest import settings, upstreams
from tests.faults.faults import answers, closes, closes_after
from tests.faults.upstream import PROMPT_TOKENS, TEXT, TOKENS, Cluster, Fault, Reply, cluster, well
from tests.gateway.doors import served
from tests.gateway.raw_server import DONE, END, chunk, event

# No test of this module looks at another door.
pytestmark = pytest.mark.usefixtures("no_chains_and_skills")

CHAT = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "Tell me."}]}
STREAM = ASK | {"stream": True, "stream_options": {"include_usage": True}}
TOO_LONG = answers("400 Bad Request", b'{"error":{"message":"too long","code":"context_length_exceeded"}}')
FAILS = answers("500 Internal Server Error")


@asynccontextmanager
async def gateway(engines: Cluster, *more: dict[str, Any], **fields: Any) -> AsyncIterator[httpx.AsyncClient]:
    """`m` on all engines."""
    replicas = [*upstreams(engines, m={"continues": True, "max_model_len": 1000}), *more]
    async with served(create_app(settings(upstreams=replicas, **fields))) as base:
        async with httpx.AsyncClient(base_url=base, timeout=30) as client:
            yield client


async def post(client: httpx.AsyncClient, body: dict[str, Any], model: str = "m", path: str = CHAT) -> httpx.Response:
    return await client.post(path, json={"model": model} | body)


def text_of(answer: httpx.Response) -> str:
    events = [json.loads(line[6:]) for line in answer.text.split("\n\n") if line.startswith("data: {")]
    choices = [choice for event in events for choice in event.get("choices", ())]
    return "".join(
        (choice["delta"].get("content") or "") if "delta" in choice else choice["text"] for choice in choices
    )


@pytest.fixture
async def two() -> AsyncIterator[Cluster]:
    async with cluster() as engines:
        yield engines


@pytest.fixture
async def spare() -> AsyncIterator[Cluster]:
    async with cluster(engines=1) as engines:
        yield engines


# Another engine


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["whole", "stream"])
async def test_the_headers_tell_who_answered_and_after_how_many(two: Cluster, body: dict[str, Any]) -> None:
    async with gateway(two) as client:
        plain = await post(client, body)
        two.expect(FAILS)
        second = await post(client, body)
    assert (plain.headers["x-llmgw-attempts"], second.headers["x-llmgw-attempts"]) == ("1", "2")
    assert second.headers["x-llmgw-replica"].endswith(two.urls[two.asked[1][0]].removeprefix("http://"))
    assert 0 < float(second.headers["x-llmgw-overhead-ms"]) < 30_000
    assert "x-llmgw-fallback-model" not in second.headers


async def test_the_requests_own_fault_goes_back_at_once(two: Cluster) -> None:
    two.expect(answers("400 Bad Request", b'{"error":{"message":"no","code":"content_filter"}}'))
    async with gateway(two) as client:
        answer = await post(client, STREAM)
    assert (answer.status_code, answer.json()["error"]["message"], len(two.asked)) == (400, "no", 1)


@pytest.mark.parametrize("fault", [FAILS, answers("503 Service Unavailable"), answers("429 Too Many Requests")])
async def test_the_only_engine_is_asked_again_after_a_moment(spare: Cluster, fault: Fault) -> None:
    async with gateway(spare, fallbacks={"m": ["gone"]}) as client:
        spare.expect(fault)
        answer = await post(client, STREAM)
        assert (text_of(answer), answer.headers["x-llmgw-attempts"]) == (TEXT, "2")
        spare.expect(fault, fault)
        assert (await post(client, STREAM)).headers["x-llmgw-attempts"] == "3"


async def test_an_engine_that_stays_overloaded_is_a_503(spare: Cluster) -> None:
    spare.expect(*[answers("503 Service Unavailable")] * 9)
    async with gateway(spare) as client:
        answer = await post(client, STREAM)
    assert (answer.status_code, answer.json()["error"]["code"], len(spare.asked)) == (503, "upstream_busy", 3)
    assert answer.headers["x-llmgw-attempts"] == "3"


async def test_an_outage_does_not_multiply_the_load(two: Cluster) -> None:
    requests = 60
    two.expect(*[FAILS] * 1000)
    async with gateway(two) as client:
        began = asyncio.get_running_loop().time()
        answers_ = [await post(client, ASK) for _ in range(requests)]
        seconds = asyncio.get_running_loop().time() - began
        metrics = (await client.get("/metrics")).text
    assert {answer.status_code for answer in answers_} == {502}
    assert requests < len(two.asked) <= requests * 1.2 + 10 + seconds
    assert 'llmgw_upstream_errors_total{code="upstream_failed",model="m"}' in metrics


def in_a_minute() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)


@pytest.mark.parametrize("when", [lambda: 60, in_a_minute], ids=["seconds", "date"])
async def test_who_wants_to_be_asked_later_is_asked_later(two: Cluster, when: Callable[[], object]) -> None:
    async with gateway(two) as client:
        two.expect(answers("429 Too Many Requests", retry_after=when()))
        for _ in range(5):
            assert (await post(client, ASK)).status_code == 200
        busy, rested = two.asked[0][0], two.asked[1][0]
        assert [number for number, _ in two.asked] == [busy] + [rested] * 5
        two.expect(answers("429 Too Many Requests", retry_after=when()))
        for _ in range(2):
            answer = await post(client, ASK)
            assert (answer.status_code, answer.json()["error"]["type"]) == (429, "overloaded_error")
            assert 30 < int(answer.headers["retry-after"]) <= 60
        assert len(two.asked) == 1


async def test_a_request_that_ends_engines_is_not_given_to_another_model(two: Cluster, spare: Cluster) -> None:
    two.expect(closes, closes)
    other = upstreams(spare, other={})
    async with gateway(two, *other, fallbacks={"m": ["other"]}) as client:
        answer = await post(client, ASK)
    assert (answer.status_code, len(two.asked), len(spare.asked)) == (502, 2, 0)


@pytest.mark.parametrize("ends", [(closes,), (closes_after(3),)], ids=["before", "within"])
async def test_the_engines_of_a_machine_that_goes_are_asked_last(ends: tuple[Fault]) -> None:
    async with cluster(engines=3) as machine, cluster(engines=1, host="127.0.0.2") as elsewhere:
        other = upstreams(elsewhere, m={"continues": True})
        async with gateway(machine, *other, routing_policy="round-robin") as client:
            for _ in range(2):  # before one of them has been silent so often that it is left out
                machine.expect(*ends, closes, closes, closes)
                answer = await post(client, STREAM)
                assert (text_of(answer), len(machine.asked)) == (TEXT, 1)
        assert len(elsewhere.asked) == 2


# Another model


@pytest.mark.parametrize("body", [ASK, STREAM], ids=["whole", "stream"])
async def test_another_model_takes_over_and_is_named(two: Cluster, spare: Cluster, body: dict[str, Any]) -> None:
    two.expect(FAILS, FAILS)
    other = upstreams(spare, other={})
    async with gateway(two, *other, fallbacks={"m": ["gone", "other"]}) as client:
        answer = await post(client, body)
        metrics = (await client.get("/metrics")).text
    assert (answer.status_code, answer.headers["x-llmgw-fallback-model"]) == (200, "other")
    assert answer.headers["x-llmgw-attempts"] == "3"
    assert b'"model": "other"' in answer.content
    assert 'llmgw_fallbacks_total{fallback="other",model="m"} 1.0' in metrics


@pytest.mark.parametrize("words", [5, 1500], ids=["as the engine counts", "as anybody can tell"])
async def test_a_prompt_that_is_too_long_goes_to_a_larger_model(two: Cluster, spare: Cluster, words: int) -> None:
    two.expect(TOO_LONG)
    others = [*upstreams(two, small={"max_model_len": 900}), *upstreams(spare, large={"max_model_len": 9000})]
    body = {"messages": [{"role": "user", "content": "word " * words}]}
    async with gateway(two, *others, fallbacks={"m": ["small", "large"]}) as client:
        answer = await post(client, body)
    assert (answer.status_code, answer.headers["x-llmgw-fallback-model"]) == (200, "large")
    assert len(spare.asked) == 1


# The rest of a stream


@pytest.mark.parametrize("fields", [{}, {"max_completion_tokens": 1}], ids=["plain", "with a chat's bound"])
async def test_a_text_completion_is_gone_on_with(two: Cluster, fields: dict[str, Any]) -> None:
    two.expect(closes_after(6))
    async with gateway(two) as client:
        answer = await post(client, {"prompt": "Tell me.|", "stream": True} | fields, path="/v1/completions")
        metrics = (await client.get("/metrics")).text
    assert text_of(answer) == TEXT
    assert answer.content.endswith(DONE)
    assert answer.text.count(": llmgw-resumed\n\n") == 1
    assert two.asked[1][1].body["prompt"] == "Tell me.|" + "".join(TOKENS[:6])
    assert 'llmgw_resumes_total{model="m"} 1.0' in metrics


async def test_a_stream_outlives_two_engines(spare: Cluster) -> None:
    async with cluster(engines=3) as engines, gateway(engines) as client:
        engines.expect(closes_after(3), closes_after(4))
        answer = await post(client, STREAM)
        assert text_of(answer) == TEXT
        assert answer.text.count('"role"') == 1
        assert sorted(number for number, _ in engines.asked) == [0, 1, 2]
        engines.expect(closes_after(3), closes_after(4), closes_after(2))
        answer = await post(client, STREAM)
        assert text_of(answer) == "".join(TOKENS[:9])
        assert "upstream_failed" in answer.text


async def test_only_who_can_go_on_is_asked_to_and_who_refuses_after_all_is_passed_over() -> None:
    refuses = answers("400 Bad Request", b'{"error":{"message":"the last message must be the user\'s"}}')
    async with cluster(engines=4) as engines:
        *able, plain = engines.urls
        replicas = [{"model": "n", "url": url, "continues": True} for url in able] + [{"model": "n", "url": plain}]
        async with gateway(engines, *replicas, routing_policy="round-robin") as client:
            for _ in range(2):  # before one of them has broken off so often that it is left out
                engines.expect(closes_after(3), refuses)
                answer = await post(client, STREAM, "n")
                assert (text_of(answer), len(engines.asked)) == (TEXT, 3)
                assert answer.content.endswith(DONE)
                _, *offered = [number for number, _ in engines.asked]
                assert len(able) not in offered


@pytest.mark.parametrize("limit", [4, 6])
async def test_no_more_is_said_than_was_asked_for(two: Cluster, limit: int) -> None:
    """At the limit only the end is missing, at another place a part."""
    two.expect(closes_after(4))
    async with gateway(two) as client:
        answer = await post(client, STREAM | {"max_tokens": limit})
    last = json.loads(answer.text.split("\n\n")[-3].removeprefix("data: "))
    assert text_of(answer) == "".join(TOKENS[:limit])
    assert '"finish_reason":"length"' in answer.text
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == (PROMPT_TOKENS, limit)


async def half_a_tool_call(reply: Reply) -> None:
    reply.begin(0)
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a'}}
    reply.writer.write(chunk(reply.event(delta={"tool_calls": [call]})) + END)


async def half_a_thought(reply: Reply) -> None:
    reply.begin(0)
    reply.writer.write(chunk(reply.event(delta={"reasoning_content": "Well"})) + END)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, half_a_tool_call),
        ({}, half_a_thought),
        ({"n": 2}, closes_after(3)),
        ({"logprobs": True}, closes_after(3)),
        ({"response_format": {"type": "json_object"}}, closes_after(3)),
        ({"tool_choice": "required", "tools": []}, closes_after(3)),
    ],
    ids=["tool call", "reasoning", "n", "logprobs", "structured", "forced tool"],
)
async def test_what_cannot_be_joined_ends_in_an_error(two: Cluster, fields: dict[str, Any], fault: Any) -> None:
    two.expect(fault, well)
    async with gateway(two) as client:
        answer = await post(client, STREAM | fields)
    assert '"type":"upstream_error"' in answer.text
    assert b"[DONE]" not in answer.content
    assert len(two.asked) == 1


async def test_pings_of_a_slow_prefill_are_no_event(two: Cluster) -> None:
    async def pings_then_speaks(reply: Reply) -> None:
        reply.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            reply.send(b": ping\n\n")
            await reply.writer.drain()
            await asyncio.sleep(0.05)
        reply.send(reply.said("Hi") + event(b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}') + DONE)
        reply.writer.write(END)

    two.expect(pings_then_speaks)
    async with gateway(two) as client:
        answer = await post(client, STREAM)
    assert (text_of(answer), len(two.asked)) == ("Hi", 1)
