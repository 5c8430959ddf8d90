"""However the network cuts a client's bytes, the requests are the same."""

import hashlib
import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.server.wire import Served, chunked_head, chunks, post, serving, typed_seen

BODIES = st.binary(max_size=300)
TOKEN = st.text("abcXYZ019-_.!#$%&'*+^`|~", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
# Not what frames a message, or what changes how it is served.
SPECIAL = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"}
FIELDS = st.lists(st.tuples(TOKEN.filter(lambda name: name.lower() not in SPECIAL), VALUE), max_size=5)
TARGETS = st.text("abc/019-._~!$&'()*+,;=:@", max_size=30).map("/".__add__)
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def requests(draw) -> tuple[bytes, dict]:
    """A request's bytes, and what the application has to see of it."""
    target, fields = draw(TARGETS), draw(FIELDS)
    lines = [f"{name}: {value}".encode() for name, value in fields]
    if draw(st.booleans()):
        body = draw(BODIES)
        data = post(body, *lines, target=target.encode())
        framing = ["content-length", str(len(body))]
    else:
        parts = draw(st.lists(st.binary(min_size=1, max_size=100), max_size=5))
        body = b"".join(parts)
        data = chunked_head(*lines).replace(b"POST / ", f"POST {target} ".encode(), 1) + chunks(*parts) + b"0\r\n\r\n"
        framing = ["transfer-encoding", "chunked"]
    headers = [["host", "h"], *([name.lower(), value] for name, value in fields), framing]
    expected = {"method": "POST", "version": "1.1", "path": target, "query": "", "headers": headers, "size": len(body)}
    return data, expected | {"sha": hashlib.sha256(body).hexdigest(), "body": body[:100].decode("latin-1")}


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [*sorted({place % len(data) for place in places} | {0}), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


@pytest.fixture(scope="module")
async def served() -> AsyncIterator[Served]:
    async with serving(typed_seen) as running:
        yield running


@FEW
@given(requests(), st.lists(st.integers(0, 10_000), max_size=12))
async def test_a_request_is_the_same_however_it_is_cut(served, request_and_meaning, places):
    data, meaning = request_and_meaning
    async with served.client() as client:
        await client.send(*cut(data, places))
        response = await client.response()
        assert (response.status, response.json()) == (200, meaning)


@FEW
@given(st.lists(requests(), min_size=2, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
async def test_a_pipeline_is_the_same_however_it_is_cut(served, pipeline, places):
    async with served.client() as client:
        await client.send(*cut(b"".join(data for data, _ in pipeline), places))
        for _, meaning in pipeline:
            response = await client.response()
            assert (response.status, response.json()) == (200, meaning)


@settings(FEW, max_examples=10)
@given(requests())
async def test_a_request_is_the_same_byte_by_byte(served, request_and_meaning):
    data, meaning = request_and_meaning
    async with served.client() as client:
        await client.send(*[bytes([byte]) for byte in data])
        assert (await client.response()).json() == meaning


@FEW
@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=5))
async def test_no_bytes_stop_the_server(served, garbage, places):
    async with served.client() as client:
        try:
            await client.send(*cut(garbage + b"\r\n\r\n", places))
            client.writer.write_eof()
        except OSError:
            pass
        raw = await client.rest()
        assert raw == b"" or raw.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
    assert await served.serves()


@FEW
@given(requests(), st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
async def test_a_request_with_foreign_bytes_in_it_never_stops_the_server(served, request_and_meaning, place, foreign):
    data, _ = request_and_meaning
    at = place % len(data)
    async with served.client() as client:
        try:
            await client.send(data[:at] + foreign + data[at + 1 :])
            client.writer.write_eof()
        except OSError:
            pass
        await client.rest()
    assert await served.serves()
