"""Applications that fail: the client can always tell, and the connection's framing stays right."""

import asyncio
import logging

import pytest

from tests.gateway.server.wire import (
    FAREWELL,
    GET,
    assert_error,
    hello,
    post,
    read,
    reply,
    serving,
    start,
    write,
)

OTHER = b"GET /other HTTP/1.1\r\nhost: h\r\n\r\n"


def logged(caplog) -> list[tuple[str, str]]:
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return lines


async def outcome(app, caplog, request: bytes = GET + OTHER) -> tuple[bytes, list[tuple[str, str]]]:
    """All that comes to a client whose next request waits behind the failing one; and what the log says."""

    async def first_fails(scope, receive, send):
        await (hello if scope["path"] == "/other" else app)(scope, receive, send)

    async with serving(first_fails) as served, served.client() as client:
        await client.send(request)
        raw = await client.rest()
        async with served.client() as next_client:
            assert (await next_client.ask(OTHER)).body == b"/other"
    return raw, logged(caplog)


def head_and_body(raw: bytes) -> tuple[str, bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    return head.decode(), body


async def raises(scope, receive, send):
    raise ValueError("a defect")


async def raises_after_start(scope, receive, send):
    await start(send)
    raise ValueError("a defect")


async def starts_only(scope, receive, send):
    await start(send)


async def returns(scope, receive, send):
    return


async def body_first(scope, receive, send):
    await write(send, b"body")


async def starts_twice(scope, receive, send):
    await start(send)
    await start(send)


async def speaks_nonsense(scope, receive, send):
    await send({"type": "websocket.accept"})


async def splits_the_response(scope, receive, send):
    await reply(send, headers=[(b"x", b"a\r\nset-cookie: evil=1\r\n\r\n<html>")])


async def breaks_a_line(scope, receive, send):
    await reply(send, headers=[(b"x", b"a\nset-cookie: evil=1")])


async def breaks_a_name(scope, receive, send):
    await reply(send, headers=[(b"x: a\r\ny", b"b")])


async def has_no_length(scope, receive, send):
    await start(send, headers=[(b"content-length", b"many")])
    await write(send, b"body")


async def cancels_itself(scope, receive, send):
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    "app",
    [raises, raises_after_start, starts_only, returns, body_first, starts_twice, speaks_nonsense, splits_the_response,
     breaks_a_line, breaks_a_name, has_no_length],
)  # fmt: skip
async def test_a_fault_before_anything_was_sent_is_a_500(app, caplog):
    raw, lines = await outcome(app, caplog)
    head, body = head_and_body(raw)
    assert head.startswith("HTTP/1.1 500 ")
    assert "connection: close" in head
    assert b'"internal_error"' in body
    assert b"evil" not in raw
    assert b"defect" not in raw
    assert b"/other" not in raw
    assert [level for level, _ in lines] == ["ERROR"]


async def test_an_application_that_is_cancelled_is_a_503_that_may_be_tried_again(caplog):
    raw, _ = await outcome(cancels_itself, caplog)
    assert raw.startswith(b"HTTP/1.1 503 ")
    assert b"x-should-retry: true" in raw


@pytest.mark.parametrize("ending", [raises, returns])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("sized", [True, False])
async def test_a_fault_after_the_first_byte_is_a_cut_that_shows(ending, version, sized, caplog):
    async def app(scope, receive, send):
        await start(send, headers=[(b"content-length", b"100")] if sized else [])
        await write(send, b"begun", more=True)
        await ending(scope, receive, send)

    raw, lines = await outcome(app, caplog, GET.replace(b"1.1", version))
    head, body = head_and_body(raw)
    assert head.startswith("HTTP/1.1 200 ")
    if sized:
        assert body == b"begun"
    elif version == b"1.1":
        assert body == b"5\r\nbegun\r\n"  # without the last chunk
    assert [level for level, _ in lines] == ["ERROR"]


async def test_a_second_start_within_a_body_is_a_cut(caplog):
    async def app(scope, receive, send):
        await start(send)
        await write(send, b"begun", more=True)
        await start(send, 500)

    raw, _ = await outcome(app, caplog)
    assert raw.endswith(b"\r\n\r\n5\r\nbegun\r\n")


async def test_a_fault_after_the_answer_costs_nobody_anything(caplog):
    async def app(scope, receive, send):
        await reply(send)
        raise ValueError("a defect in the cleanup")

    async with serving(app) as served, served.client() as client:
        assert (await client.ask()).body == b"ok"
        assert (await client.ask()).body == b"ok"
    assert [level for level, _ in logged(caplog)] == ["ERROR", "ERROR"]


async def test_a_body_after_the_last_one_is_not_sent(caplog):
    async def app(scope, receive, send):
        await reply(send)
        await write(send, b"more")

    raw, _ = await outcome(app, caplog, GET + OTHER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    assert b"more" not in raw
    assert raw.endswith(b"/other")


@pytest.mark.parametrize(
    "parts", [[b"too long"], [b"too", b" long"], [b"abc", b"d"], [b"", b"abcd"], [b"abc", b"", b"d"]]
)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_body_longer_than_declared_never_runs_into_the_next_response(parts, method, caplog):
    async def app(scope, receive, send):
        await start(send, headers=[(b"content-length", b"3")])
        for part in parts:
            await write(send, part, more=True)
        await write(send)

    raw, lines = await outcome(app, caplog, GET.replace(b"GET", method) + OTHER)
    head, body = head_and_body(raw)
    if head.startswith("HTTP/1.1 200 "):
        assert len(body) <= 3
    else:
        assert head.startswith("HTTP/1.1 500 ")
        assert b"/other" not in body
    assert [level for level, _ in lines] == ["ERROR"]


@pytest.mark.parametrize("farewell", [True, False], ids=["the last request", "kept alive"])
async def test_a_body_longer_than_declared_is_not_sent_whole(farewell, caplog):
    async def app(scope, receive, send):
        await start(send, headers=[(b"content-length", b"3")])
        await write(send, b"abc<injected>")

    raw, _ = await outcome(app, caplog, FAREWELL if farewell else GET + OTHER)
    assert b"<injected>" not in raw


@pytest.mark.parametrize("parts", [[], [b""], [b"ab"], [b"a", b"b"]])
async def test_a_body_shorter_than_declared_is_a_cut(parts, caplog):
    async def app(scope, receive, send):
        await start(send, headers=[(b"content-length", b"3")])
        for part in parts:
            await write(send, part, more=True)
        await write(send)

    raw, lines = await outcome(app, caplog)
    head, body = head_and_body(raw)
    assert b"/other" not in body
    if head.startswith("HTTP/1.1 200 "):
        assert body == b"".join(parts)
    else:
        assert head.startswith("HTTP/1.1 500 ")
    assert [level for level, _ in lines] == ["ERROR"]


async def test_the_body_of_a_head_request_may_have_any_length():
    async def app(scope, receive, send):
        await start(send, headers=[(b"content-length", b"3")])
        await write(send, b"" if scope["path"] == "/" else b"longer")

    async with serving(app) as served, served.client() as client:
        await client.send(GET.replace(b"GET", b"HEAD") + OTHER.replace(b"GET", b"HEAD"))
        assert (await client.response(bodiless=True)).all("content-length") == ["3"]
        assert (await client.response(bodiless=True)).all("content-length") == ["3"]


async def test_two_may_wait_for_the_end_of_an_exchange():
    ends = asyncio.Queue()

    async def app(scope, receive, send):
        async def listen():
            ends.put_nowait(await receive())

        await read(receive)
        listeners = [asyncio.create_task(listen()) for _ in range(2)]
        await asyncio.sleep(0)
        await reply(send)
        await asyncio.gather(*listeners)

    async with serving(app) as served, served.client() as client:
        assert (await client.ask(post(b"abc"))).body == b"ok"
        assert [(await ends.get())["type"], (await ends.get())["type"]] == ["http.disconnect"] * 2


async def test_a_typed_error_of_the_body_that_nobody_catches_is_a_500(caplog):
    async def app(scope, receive, send):
        await read(receive)

    async with serving(app, body_bytes=2) as served, served.client() as client:
        response = await client.ask(post(b"abc"))
        assert_error(response, 500, "internal_error")
    assert [level for level, _ in logged(caplog)] == [logging.getLevelName(logging.ERROR)]
