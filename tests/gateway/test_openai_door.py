"""The OpenAI door in front of a scripted upstream, where bytes, faults and order must be exact."""

import asyncio
import json

import httpx
import pytest

from gateway.app import create_app
from gateway.server.bounds import Bounds
from gateway.settings import Settings
from tests.gateway.doors import raw_post, served
from tests.gateway.raw_server import DONE, END, STREAM_HEAD, chunk, event, raw_server, sized, token
from tests.polling import eventually

# No test of this module looks at another door.
pytestmark = pytest.mark.usefixtures("no_chains_and_skills")

CHAT = "/v1/chat/completions"
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = BODY | {"stream": True}
ANSWER = b'{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"\\u2028"},"finish_reason":"stop"}]}'


def settings(*urls: str, **values) -> Settings:
    upstream = {"model": "m", "key": "upstream-key", "max_model_len": 100}
    return Settings.load(upstreams=[upstream | {"url": url} for url in urls], **values)


def gateway(*urls: str, **values):
    chosen = settings(*urls, **values)
    return served(create_app(chosen), Bounds.of(chosen))


def stream(*parts: bytes) -> bytes:
    return STREAM_HEAD + b"".join(map(chunk, parts)) + END


async def post(base: str, body: object, path: str = CHAT, **options) -> httpx.Response:
    async with httpx.AsyncClient(base_url=base) as client:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await client.post(path, content=content, **options)


async def ask(upstream: bytes, body: object = BODY, **values) -> httpx.Response:
    async with raw_server(upstream) as server, gateway(server.url, **values) as base:
        return await post(base, body)


async def test_passes_the_bytes_of_request_and_answer_through_unchanged():
    sent = b'{ "model":"m", "x_unknown":[1.0], "messages":[{"role":"user","content":"\\u00e9"}] }'
    async with raw_server(sized(ANSWER)) as server, gateway(server.url) as base:
        answer = await post(base, sent)
    assert (answer.status_code, answer.content) == (200, ANSWER)
    assert server.requests[0].partition(b"\r\n\r\n")[2] == sent


async def test_the_engine_sees_its_own_key_and_never_the_clients():
    async with raw_server(sized(ANSWER)) as server, gateway(server.url) as base:
        await post(base, BODY, headers={"authorization": "Bearer the-clients", "cookie": "c=1", "x-api-key": "k"})
    head = server.requests[0].partition(b"\r\n\r\n")[0]
    assert b"authorization: Bearer upstream-key" in head
    assert b"the-clients" not in head
    assert b"cookie" not in head
    assert b"x-api-key" not in head


async def test_a_served_name_takes_the_place_of_the_public_one():
    async with raw_server(sized(ANSWER)) as server:
        upstream = {"model": "m", "url": server.url + "/base/", "served_name": "org/m-7b"}
        async with served(create_app(Settings.load(upstreams=[upstream]))) as base:
            await post(base, BODY)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /base/v1/chat/completions HTTP/1.1")
    assert json.loads(body) == BODY | {"model": "org/m-7b"}


async def test_relays_a_stream_and_ends_it_once():
    frames = token("a") + b": ping\n\n" + token("b", "stop")
    answer = await ask(stream(frames, DONE), STREAM)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.content == frames + DONE


@pytest.mark.parametrize("http_client", ["native", "aiohttp"])
@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_either_client_may_speak_to_the_engines(http_client, body):
    upstream = stream(token("a"), token("b", "stop"), DONE) if body is STREAM else sized(ANSWER)
    async with raw_server(upstream) as server:
        app = create_app(settings(server.url, http_client=http_client))
        async with served(app, lifespan="on") as base:  # whose end closes the client
            answer = await post(base, body)
    assert answer.content == (token("a") + token("b", "stop") + DONE if body is STREAM else ANSWER)


async def test_a_client_that_does_not_read_holds_the_engine_back_and_not_the_memory():
    sent = 0

    async def flood(reader, writer):
        nonlocal sent
        writer.write(STREAM_HEAD)
        while sent < 4_000:
            writer.write(chunk(token("x" * 16_384)))
            await writer.drain()
            sent += 1
        writer.write(chunk(token("", "stop") + DONE) + END)

    async with raw_server(flood) as server, gateway(server.url) as base:
        _, writer = await raw_post(base, CHAT, json.dumps(STREAM).encode())
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 4_000  # 64 MB
        writer.close()
        await asyncio.wait_for(server.cut.wait(), 5.0)


@pytest.mark.parametrize("size", [1, 7, 50])
async def test_frames_arrive_whole_however_they_were_cut(size):
    text = (token("a") + token("b", "stop") + DONE).replace(b"\n", b"\r\n")
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    answer = await ask(stream(*pieces), STREAM)
    assert answer.content == token("a") + token("b", "stop") + DONE


async def test_each_token_is_relayed_before_the_next_is_made():
    seen = asyncio.Event()

    async def hold_second_back(reader, writer):
        writer.write(STREAM_HEAD + chunk(token("first")))
        await seen.wait()
        writer.write(chunk(token("second", "stop")) + chunk(DONE) + END)

    async with raw_server(hold_second_back) as server, gateway(server.url) as base, httpx.AsyncClient() as client:
        async with client.stream("POST", base + CHAT, json=STREAM) as answer:
            parts = answer.aiter_bytes()
            assert await anext(parts) == token("first")
            seen.set()
            assert b"".join([part async for part in parts]) == token("second", "stop") + DONE


@pytest.mark.parametrize(
    "upstream",
    [
        stream(token("a")),
        stream(token("a"), DONE),
        STREAM_HEAD + chunk(token("a")) + b"zz\r\n",
        stream(token("a"), event(b'{"error":{"message":"out of memory","code":500}}'), DONE),
        stream(token("a"), b"event: error\n" + event(b"{}"), DONE),
    ],
    ids=["no end", "end without a finish_reason", "broken framing", "error event, then [DONE]", "named error event"],
)
async def test_a_stream_that_failed_ends_in_an_error_and_never_in_done(upstream):
    answer = await ask(upstream, STREAM)
    assert answer.status_code == 200
    assert answer.content.startswith(token("a"))
    last = json.loads(answer.content.strip().rpartition(b"data: ")[2])
    assert last["error"]["type"] == "upstream_error"
    assert b"[DONE]" not in answer.content


@pytest.mark.parametrize(
    ("indices", "whole"), [([0], False), ([0, 0], False), ([0, 2], False), ([0, -1], False), ([1, 0], True)]
)
async def test_every_choice_has_to_finish(indices, whole):
    ends = [token("", "stop", index) for index in indices]
    answer = await ask(stream(token("a"), *ends, DONE), STREAM | {"n": 2})
    assert (b"[DONE]" in answer.content, b"stream_interrupted" in answer.content) == (whole, not whole)


async def test_content_that_looks_like_the_end_is_content():
    text = token('\\"finish_reason\\": \\"stop\\" data: [DONE]')
    answer = await ask(stream(text), STREAM)
    assert answer.content.startswith(text)
    assert b"stream_interrupted" in answer.content


async def test_a_finished_stream_without_done_is_whole():
    assert (await ask(stream(token("a", "stop")), STREAM)).content == token("a", "stop") + DONE


@pytest.mark.parametrize(
    ("upstream", "body"),
    [
        (stream(), STREAM),
        (stream(event(b'{"error":{"message":"x"}}')), STREAM),
        (sized(b'{"choices":[]}'), STREAM),
        (sized(b'{"error":{"message":"x"}}'), BODY),
        (sized(b'{"error":{"message":"x"}}', "500 Internal Server Error"), BODY),
        (sized(b"<html>", "502 Bad Gateway", "text/html"), STREAM),
        (sized(b'{"error":{"message":"Invalid API Key"}}', "401 Unauthorized"), BODY),
        (sized(b'{"error":{"message":"no such model"}}', "404 Not Found"), BODY),
        (b"nonsense\r\n\r\n", BODY),
    ],
    ids=["empty", "error first", "no stream", "error in 200", "500", "html", "our key", "our model", "no HTTP"],
)
async def test_a_failure_before_the_first_event_is_a_502(upstream, body):
    answer = await ask(upstream, body)
    assert answer.status_code == 502
    assert answer.json()["error"]["type"] == "upstream_error"
    assert "API Key" not in answer.text


@pytest.mark.parametrize("status", ["400 Bad Request", "422 Unprocessable Entity", "429 Too Many Requests"])
async def test_the_engines_own_refusals_are_passed_on(status):
    answer = await ask(sized(b'{"error":{"message":"temperature is too high"}}', status))
    assert answer.status_code == int(status[:3])
    assert answer.json()["error"]["message"] == "temperature is too high"


async def test_an_engines_retry_headers_are_passed_on():
    answer = await ask(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\n{}")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize(
    "error",
    [
        b'{"error":{"code":400,"message":"exceeds","type":"exceed_context_size_error"}}',
        b'{"object":"error","message":"This model\'s maximum context length is 9 tokens","type":"BadRequestError"}',
        b'{"error":{"message":"too long","code":"context_length_exceeded"}}',
    ],
    ids=["llama.cpp", "vLLM", "OpenAI"],
)
async def test_the_engines_verdict_on_the_context_has_one_form(error):
    answer = await ask(sized(error, "400 Bad Request"))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


async def test_replicas_take_turns_and_stand_in_for_each_other():
    async with raw_server() as dead:
        pass
    async with raw_server(sized(ANSWER)) as one, raw_server(sized(ANSWER)) as two:
        async with gateway(one.url, dead.url, two.url, routing_policy="round-robin") as base:
            answers = [(await post(base, BODY)).status_code for _ in range(6)]
    assert answers == [200] * 6
    assert len(one.requests) + len(two.requests) == 6
    assert min(len(one.requests), len(two.requests)) >= 2


async def test_a_request_that_ends_engines_does_not_get_to_try_them_all():
    async def close_unanswered(reader, writer):
        raise ConnectionError

    async with raw_server(close_unanswered) as a, raw_server(close_unanswered) as b, raw_server(close_unanswered) as c:
        async with gateway(a.url, b.url, c.url) as base:
            answer = await post(base, BODY)
    assert (answer.status_code, answer.headers["x-should-retry"]) == (502, "false")
    assert sum(len(server.requests) for server in (a, b, c)) == 2


async def test_a_late_end_of_the_stream_is_waited_for_and_no_disconnect():
    async def end_late(reader, writer):
        writer.write(STREAM_HEAD + chunk(token("a", "stop")) + chunk(DONE))
        await writer.drain()
        await asyncio.sleep(0.005)
        writer.write(END)

    async with raw_server(end_late) as server, gateway(server.url) as base, httpx.AsyncClient(base_url=base) as client:
        for _ in range(20):
            assert (await client.post(CHAT, json=STREAM)).content.endswith(DONE)
        metrics = (await client.get("/metrics")).text
    assert server.connections < 15  # a next request may come before the last ones have ended
    assert "llmgw_client_disconnects_total 0.0" in metrics


async def test_an_answer_that_ends_with_its_connection_has_to_be_whole():
    async def half(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + ANSWER[:40])
        raise ConnectionError

    async with raw_server(half) as server, gateway(server.url) as base:
        assert (await post(base, BODY)).status_code == 502


@pytest.mark.parametrize(
    "rest", [b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n", b""], ids=["pipelined", "alone"]
)
async def test_a_client_that_leaves_is_seen_behind_a_pipelined_request(rest):
    async with raw_server(b"") as server, gateway(server.url) as base:
        _, writer = await raw_post(base, CHAT, json.dumps(BODY).encode())
        await eventually(lambda: server.requests)
        writer.write(rest)
        await writer.drain()
        writer.close()
        await asyncio.wait_for(server.cut.wait(), 5.0)


async def test_a_ping_is_no_first_event():
    answer = await ask(stream(b": hello\n\n", event(b'{"error":{"message":"x"}}')), STREAM)
    assert answer.status_code == 502


async def test_an_embeddings_request_is_never_a_stream():
    async with raw_server(sized(b'{"data":[]}')) as server:
        upstream = {"model": "m", "url": server.url, "tasks": ["embeddings"]}
        async with served(create_app(Settings.load(upstreams=[upstream]))) as base:
            answer = await post(base, {"model": "m", "input": "x", "stream": True}, "/v1/embeddings")
    assert answer.status_code == 200


async def test_nobody_reachable_is_a_503_that_says_when_to_come_back():
    async with raw_server() as dead:
        pass
    async with gateway(dead.url) as base:
        answer = await post(base, STREAM)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert (answer.headers["retry-after-ms"], answer.headers["x-should-retry"]) == ("1000", "true")
    assert answer.json()["error"]["code"] == "no_replica"


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("begun", [b"", STREAM_HEAD + chunk(token("a"))], ids=["before the first byte", "within"])
async def test_a_client_that_leaves_ends_the_call_to_the_engine(body, begun):
    async with raw_server(begun) as server, gateway(server.url) as base:
        reader, writer = await raw_post(base, CHAT, json.dumps(body).encode())
        while not server.requests:
            await asyncio.sleep(0)
        if begun and body is STREAM:
            await reader.readuntil(b"data:")
        writer.close()
        await asyncio.wait_for(server.cut.wait(), 2.0)
        metrics = (await httpx.AsyncClient().get(base + "/metrics")).text
    assert "llmgw_client_disconnects_total 1.0" in metrics


BAD = {
    "no JSON": (b"{", "invalid_json", None),
    "nothing": (b"", "invalid_json", None),
    **{
        f"{depth} deep": (b'{"model":"m","messages":' + b"[" * depth + b"]" * depth + b"}", "invalid_json", None)
        for depth in (65, 300, 1_000, 100_000)
    },
    "not UTF-8": (b'{"model":"\xff"}', "invalid_json", None),
    "a list": ([], "invalid_value", None),
    "no model": ({"messages": BODY["messages"]}, "invalid_value", "model"),
    "no messages": ({"model": "m"}, "invalid_value", "messages"),
    "empty messages": ({"model": "m", "messages": []}, "invalid_value", "messages"),
    "message a string": ({"model": "m", "messages": ["hi"]}, "invalid_value", "messages.0"),
    "no role": ({"model": "m", "messages": [{"content": "hi"}]}, "invalid_value", "messages.0.role"),
    "content a number": (
        {"model": "m", "messages": [{"role": "user", "content": 3}]},
        "invalid_value",
        "messages.0.content",
    ),
    "stream a string": (BODY | {"stream": "yes"}, "invalid_value", "stream"),
    "max_tokens a string": (BODY | {"max_tokens": "9"}, "invalid_value", "max_tokens"),
    "a million wrong messages": ({"model": "m", "messages": [0] * 1_000_000}, "invalid_value", "messages.0"),
    "a million wrong prompts": (
        b'{"model":"m","messages":[{"role":"u"}],"stop":[' + b"0," * 999_999 + b"0]}",
        "invalid_value",
        "stop",
    ),
    "too many logprobs": (BODY | {"logprobs": True, "top_logprobs": 1000}, "invalid_value", "top_logprobs"),
    "negative max_tokens": (BODY | {"max_tokens": -1}, "invalid_value", "max_tokens"),
    "too long": (BODY | {"messages": [{"role": "user", "content": "a " * 101}]}, "context_length_exceeded", "messages"),
    "too long in parts": (
        BODY | {"messages": [{"role": "user", "content": [{"type": "text", "text": "a " * 60}] * 2}]},
        "context_length_exceeded",
        "messages",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_told_once_clearly_and_reaches_no_engine(name, caplog):
    body, code, param = BAD[name]
    async with raw_server(sized(ANSWER)) as server, gateway(server.url) as base:
        answer = await post(base, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"], error["param"]) == (
        400, "invalid_request_error", code, param,
    )  # fmt: skip
    assert error["message"].endswith(".")
    assert server.requests == []
    assert [record for record in caplog.records if record.levelname not in {"DEBUG", "INFO"}] == []


async def test_an_unknown_model_is_a_404_that_lists_nothing():
    answer = await ask(sized(ANSWER), BODY | {"model": "nope"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "'m'" not in answer.text


async def test_a_model_is_only_asked_what_it_can_do():
    async with raw_server(sized(ANSWER)) as server, gateway(server.url) as base:
        answer = await post(base, {"model": "m", "input": "hi"}, "/v1/embeddings")
    assert (answer.status_code, answer.json()["error"]["param"], server.requests) == (400, "model", [])


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "counted"])
async def test_a_body_over_the_limit_is_a_413(chunked):
    body = json.dumps(BODY | {"x": "y" * 2000}).encode()

    async def pieces():
        yield body

    async with raw_server(sized(ANSWER)) as server, gateway(server.url, max_body_bytes=1000) as base:
        async with httpx.AsyncClient() as client:
            answer = await client.post(base + CHAT, content=pieces() if chunked else body)
    assert (answer.status_code, answer.json()["error"]["code"], server.requests) == (413, "body_too_large", [])


async def test_a_body_that_never_comes_is_a_408():
    async with raw_server() as server, gateway(server.url, body_timeout_s=0.2) as base:
        reader, writer = await raw_post(base, CHAT, b"")
        writer.close()
        host, port = base.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{")
        assert b" 408 " in await reader.readline()
        writer.close()


async def test_no_response_starts_twice_when_the_client_pipelines():
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{{}}".encode()
    async with raw_server() as server, gateway(server.url) as base:
        host, port = base.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head * 3)
        for _ in range(3):
            assert b" 400 " in await reader.readline()
            headers = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in headers.split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
        writer.close()


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("a b", False), ("x" * 200, False)])
async def test_the_request_id_is_the_clients_if_it_is_harmless(given, kept):
    async with raw_server(sized(ANSWER)) as server, gateway(server.url) as base:
        answer = await post(base, BODY, headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) is kept
    assert f"x-request-id: {answer.headers['x-request-id']}".encode() in server.requests[0]


async def test_lists_models_and_tells_of_one():
    async with raw_server() as server, gateway(server.url) as base, httpx.AsyncClient(base_url=base) as client:
        listed = (await client.get("/v1/models")).json()
        one, unknown = await client.get("/v1/models/m"), await client.get("/v1/models/org/other")
    assert listed == {"object": "list", "data": [one.json()]}
    assert one.json()["tasks"] == ["chat", "completions"]
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_unknown_routes_and_methods_speak_the_same_language():
    async with raw_server() as server, gateway(server.url) as base, httpx.AsyncClient(base_url=base) as client:
        missing, wrong = await client.get("/v1/nothing"), await client.get(CHAT)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_no_path_can_forge_a_line_of_the_access_log(caplog):
    caplog.set_level("INFO", "gateway.access")
    async with raw_server() as server, gateway(server.url) as base, httpx.AsyncClient(base_url=base) as client:
        await client.get("/x%0a2026-01-01 INFO gateway.access FORGED")
        await eventually(lambda: "FORGED" in caplog.text)
    (record,) = (record for record in caplog.records if "FORGED" in record.getMessage())
    assert "\n" not in record.getMessage()


async def test_ready_means_that_every_configured_model_has_a_replica():
    async with raw_server() as server:
        for models, status in ((["m"], 200), (["m", "other"], 503)):
            async with gateway(server.url, models=models) as base, httpx.AsyncClient(base_url=base) as client:
                answer = await client.get("/health/ready")
            assert (answer.status_code, answer.json()["models_without_replica"]) == (status, len(models) - 1)


async def test_a_configured_model_without_a_replica_is_a_503_and_not_unknown():
    async with raw_server() as server, gateway(server.url, models=["m", "other"]) as base:
        answer = await post(base, BODY | {"model": "other"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_replica")
