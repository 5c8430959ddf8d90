"""Requests for another protocol, one behind the other: the first is served as HTTP/1.1, and is the last."""

import pytest

from tests.gateway.server.wire import serving, typed_seen

UPGRADE = b" / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: h2c\r\n"
WITH_A_BODY = b"POST" + UPGRADE + b"content-length: 3\r\n\r\nabc"


@pytest.mark.parametrize(
    "second",
    [b"GET" + UPGRADE + b"\r\n", WITH_A_BODY, b"CONNECT h:443 HTTP/1.1\r\nhost: h\r\n\r\n"],
    ids=["upgrade", "upgrade with a body", "CONNECT"],
)
async def test_what_comes_behind_an_upgrade_with_a_body_leaves_it_its_answer(second):
    async with serving(typed_seen) as served, served.client() as client:
        await client.send(WITH_A_BODY + second)
        response = await client.response()
        assert (response.status, response.json()["body"]) == (200, "abc")
        assert await client.rest() == b""
