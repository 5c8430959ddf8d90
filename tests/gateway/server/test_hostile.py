"""What is no HTTP/1.1, or only looks like it: a typed answer and the end of that connection, and of nothing else."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.app import create_app
from gateway.settings import Settings
from tests.gateway.server.wire import (
    FAREWELL,
    GET,
    Served,
    assert_error,
    chunked_head,
    chunks,
    post,
    read,
    reply,
    serving,
    typed_seen,
)
from tests.polling import eventually

HEAD = b"POST / HTTP/1.1\r\nhost: h\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving(typed_seen) as running:
        yield running


async def refusal(served: Served, data: bytes, code: str = "invalid_http", status: int = 400) -> None:
    async with served.client() as client:
        await client.send(data)
        response = await client.response()
        assert_error(response, status, code)
        assert response.all("connection") == ["close"]
        assert await client.rest() == b""
    assert await served.serves()


@pytest.mark.parametrize(
    "fields",
    [
        b"content-length: 3\r\ntransfer-encoding: chunked",
        b"transfer-encoding: chunked\r\ncontent-length: 3",
        b"content-length: 3\r\ncontent-length: 4",
        b"content-length: 3\r\ncontent-length: 3",
        b"content-length: 3, 3",
        b"content-length: -3",
        b"content-length: +3",
        b"content-length: 0x3",
        b"content-length: 3.0",
        b"content-length: 1 2",
        b"content-length: three",
        b"content-length: ",
        b"content-length: \xc2\xb3",
        b"content-length: 18446744073709551616",
        b"content-length: 99999999999999999999999999999999",
        b"transfer-encoding: gzip",
        b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: identity",
        b"transfer-encoding: xchunked",
        b"transfer-encoding: chunked, gzip",
        b"transfer-encoding: chunked, chunked",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        b"transfer-encoding: \x0bchunked",
        b"transfer-encoding : chunked",
        b"transfer-encoding\x00: chunked",
    ],
)
async def test_framing_that_could_be_read_in_two_ways_is_refused(served, fields):
    await refusal(served, HEAD + fields + b"\r\n\r\n" + b"0\r\n\r\n" + SMUGGLED)


@pytest.mark.parametrize(
    "line",
    [b"a : b", b" a: b", b"a: b\r\n c", b"a: b\r\n\tc", b": b", b"abc", b"a b: c", b"a(b): c", b"a\xe9: b", b"a\0: b",
     b"a: b\0c", b"a: b\x01c", b"a: b\x7fc", b"a: b\rc", b"a: b\nc: d", b"a: b\n"],
)  # fmt: skip
async def test_broken_header_lines_are_refused(served, line):
    await refusal(served, b"GET / HTTP/1.1\r\nhost: h\r\n" + line + b"\r\n\r\n")


@pytest.mark.parametrize(
    "line",
    [b"GET / HTTP/1.1\n", b"get / HTTP/1.1\r\n", b"FOO / HTTP/1.1\r\n", b"GET\t/ HTTP/1.1\r\n", b"GET / HTTP/1.1 \r\n",
     b"GET /a b HTTP/1.1\r\n", b"GET /\0 HTTP/1.1\r\n", b"GET /\x7f HTTP/1.1\r\n", b"GET /\xe9 HTTP/1.1\r\n",
     b"GET / HTTP/1.2\r\n", b"GET / HTTP/3.0\r\n", b"GET / HTTP/11\r\n", b"GET / http/1.1\r\n", b"GET / HTTX/1.1\r\n",
     b"GET foo HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"\0\0\0\0\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"{}\r\n",
     b"CONNECT h:443 HTTP/1.1\r\n", b"GET h:443 HTTP/1.1\r\n", b"GET http:// HTTP/1.1\r\n",
     b"GET http://h:99999/ HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n"],
)  # fmt: skip
async def test_broken_request_lines_are_refused(served, line):
    await refusal(served, line + b"host: h\r\n\r\n")


@pytest.mark.parametrize("version", [b" HTTP/0.9", b" HTTP/2.0", b" RTSP/1.0", b" ICE/1.0", b""])
async def test_other_protocols_and_versions_are_refused(served, version):
    method = b"SOURCE" if b"ICE" in version else b"DESCRIBE" if b"RTSP" in version else b"GET"
    await refusal(served, method + b" /" + version + b"\r\nhost: h\r\n\r\n" if version else b"GET /\r\n\r\n")


@pytest.mark.parametrize("hosts", [b"", b"host: a\r\nhost: b\r\n", b"host: a\r\nhost: a\r\n"])
async def test_a_request_names_one_host(served, hosts):
    """RFC 9112, 3.2: a 400 for a request without a Host, or with more than one."""
    await refusal(served, b"GET / HTTP/1.1\r\n" + hosts + b"\r\n")


async def test_http_1_0_needs_no_host(served):
    async with served.client() as client:
        assert (await client.ask(b"GET / HTTP/1.0\r\n\r\n")).status == 200


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [(b"http://other/a?b", "/a", "b"), (b"http://other", "/", ""), (b"http://other?b", "/", "b"),
     (b"//a/b", "//a/b", ""), (b"/a?b?c", "/a", "b?c"),
     (b"/%00%0d%0a", "/\0\r\n", ""), (b"/%zz", "/%zz", ""), (b"/../a", "/../a", "")],
)  # fmt: skip
async def test_unusual_targets_have_their_path(served, target, path, query):
    async with served.client() as client:
        answer = (await client.ask(b"GET " + target + b" HTTP/1.1\r\nhost: h\r\n\r\n")).json()
        assert (answer["path"], answer["query"]) == (path, query)


@pytest.mark.parametrize("request_line", [b"OPTIONS * HTTP/1.1", b"OPTIONS / HTTP/1.1", b"CONNECT / HTTP/1.1"])
async def test_unusual_methods_and_targets_are_answered_by_the_whole_gateway(request_line):
    app = create_app(Settings.load(upstreams=[{"model": "m", "url": "http://127.0.0.1:9"}]))
    async with serving(app) as gateway, gateway.client() as client:
        response = await client.ask(request_line + b"\r\nhost: localhost\r\n\r\n")
        assert 400 <= response.status < 500
        assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
async def test_an_upgrade_is_served_as_what_it_is_and_closed(served, upgrade):
    fields = b"connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\nupgrade: " + upgrade
    async with served.client() as client:
        await client.send(
            b"GET /up HTTP/1.1\r\nhost: h\r\n" + fields + b"\r\n\r\n" + b"PRI * HTTP/2.0\r\n\r\n" + SMUGGLED
        )
        response = await client.response()
        assert (response.status, response.json()["path"], response.all("connection")) == (200, "/up", ["close"])
        assert await client.rest() == b""


async def test_http_2_and_tls_are_refused(served):
    await refusal(served, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0")
    hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(range(256)) * 2
    await refusal(served, hello)


@pytest.mark.parametrize("lines", [b"\r\n", b"\r\n\r\n\r\n"])
async def test_empty_lines_before_a_request_are_ignored(served, lines):
    async with served.client() as client:
        assert (await client.ask(lines + GET)).status == 200
        assert (await client.ask(lines + GET)).status == 200


@pytest.mark.parametrize(
    "rest",
    [b"zz\r\nabc\r\n", b"-3\r\nabc\r\n", b"0x3\r\nabc\r\n", b"3 \r\nabc\r\n", b" 3\r\nabc\r\n", b"\r\n", b"3\nabc\r\n",
     b"3\r\nabcX\r\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n", b"3;\0\r\nabc\r\n",
     b"3\r\nabc\r\n0\r\nno trailer\r\n\r\n", b"3\r\nabc\r\n0\r\na : b\r\n\r\n"],
)  # fmt: skip
@pytest.mark.parametrize("together", [True, False], ids=["with the head", "later"])
async def test_garbage_in_a_body_is_a_typed_400(served, rest, together):
    async with served.client() as client:
        await client.send(*([chunked_head() + rest] if together else [chunked_head() + chunks(b"good"), rest]))
        response = await client.response()
        assert_error(response, 400, "invalid_http")
        assert response.all("connection") == ["close"]
        assert await client.rest() == b""
    assert await served.serves()


@pytest.mark.parametrize("garbage", [b"\0garbage", b"GET / HTTP/1.1\r\na : b\r\n\r\n", b"\x16\x03\x01" * 1000])
@pytest.mark.parametrize("together", [True, False], ids=["with it", "later"])
async def test_garbage_behind_a_request_leaves_its_answer_whole(served, garbage, together):
    async with served.client() as client:
        request = post(b"abc", target=b"/good")
        await client.send(*([request + garbage] if together else [request, garbage]))
        response = await client.response()
        assert (response.status, response.json()["path"], response.json()["body"]) == (200, "/good", "abc")
        rest = await client.rest()
        assert rest == b"" or rest.startswith(b"HTTP/1.1 400 ")
    assert await served.serves()


async def test_garbage_behind_an_answer_is_a_400(served):
    async with served.client() as client:
        assert (await client.ask()).status == 200
        await client.send(b"\0garbage\r\n\r\n")
        assert_error(await client.response(), 400, "invalid_http")
        assert await client.rest() == b""


async def test_garbage_in_a_body_that_was_already_answered_gets_no_second_answer():
    async def app(scope, receive, send):
        await reply(send)

    async with serving(app) as served, served.client() as client:
        assert (await client.ask(chunked_head())).body == b"ok"
        await client.send(b"zz\r\n")
        assert await client.rest() == b""


async def test_data_behind_the_last_request_is_not_served(served):
    async with served.client() as client:
        await client.send(FAREWELL + SMUGGLED)
        assert (await client.response()).json()["path"] == "/"
        assert await client.rest() == b""


async def test_garbage_does_not_cut_a_long_answer_short():
    release, begun = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        begun.set()
        await read(receive)
        await release.wait()
        await reply(send)

    async with serving(app, head_s=0.2, idle_s=0.2) as served, served.client() as client:
        await client.send(GET)
        await begun.wait()
        await client.send(b"\0garbage")
        assert await stays(client, 0.6)
        release.set()
        assert (await client.response()).body == b"ok"
        await eventually(lambda: not served.connections)


async def stays(client, seconds: float) -> bool:
    for _ in range(round(seconds / 0.05)):
        if not await client.silent():
            return False
    return True
