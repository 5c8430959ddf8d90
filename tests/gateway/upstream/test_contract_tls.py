"""What `gateway.upstream.client` promises, kept by both clients: over TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import trustme

from gateway.errors import DeadlineExceeded, ReplicaUnreachable, UpstreamFailed
from gateway.upstream.client import UpstreamClient
from tests.gateway.raw_server import END, STREAM_HEAD, chunk, in_pieces, raw_server, sized, then_close
from tests.gateway.upstream.clients import CLIENTS, HASTY, LIMIT, PATIENT, fetch, happens, open_sockets, post
from tests.polling import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest_asyncio.fixture(loop_scope="module")
async def trusting(kind: str, authority: trustme.CA) -> AsyncIterator[UpstreamClient]:
    client = CLIENTS[kind](PATIENT, client_context(authority))
    yield client
    await client.aclose()


async def test_a_private_authority_is_trusted_when_it_was_given(trusting, authority):
    whole = STREAM_HEAD + chunk(b"hel") + chunk(b"lo") + END
    pieces = in_pieces(*(bytes([byte]) for byte in whole))
    async with raw_server(sized(b"one"), pieces, sized(b"three"), tls=server_context(authority)) as server:
        assert [await fetch(trusting, server) for _ in range(3)] == [b"one", b"hello", b"three"]
        assert server.connections == 1


async def test_a_certificate_for_another_host_is_unreachable(trusting, authority):
    before = open_sockets()
    async with raw_server(sized(b"one"), tls=server_context(authority, "other.example")) as server:
        with pytest.raises(ReplicaUnreachable):
            await fetch(trusting, server)
        assert server.requests == []
        await eventually(lambda: open_sockets() == before + 1)  # the listener is left


async def test_an_authority_that_nobody_trusts_is_unreachable(client, trusting):
    async with raw_server(sized(b"one"), tls=server_context(trustme.CA())) as server:
        for each in (client, trusting):
            with pytest.raises(ReplicaUnreachable):
                await fetch(each, server)
        assert server.requests == []


async def test_a_server_without_tls_is_unreachable(trusting):
    async def plain(reader, writer):
        writer.write(sized(b"one"))
        writer.close()

    listener = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with raw_server() as server:
        server.scheme, server.port = "https", listener.sockets[0].getsockname()[1]
        with pytest.raises(ReplicaUnreachable):
            await fetch(trusting, server)
    listener.close()


async def test_a_handshake_that_nobody_answers_is_unreachable(kind):
    async def silent(reader, writer):
        await reader.read()
        gone.set()
        writer.close()

    gone = asyncio.Event()
    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    client = CLIENTS[kind](HASTY)
    async with raw_server() as server:
        server.scheme, server.port = "https", listener.sockets[0].getsockname()[1]
        with pytest.raises(ReplicaUnreachable):
            await fetch(client, server)
    await happens(gone)
    listener.close()
    await client.aclose()


async def test_a_kept_connection_that_was_closed_is_replaced(trusting, authority):
    answers = (sized(b"one"), then_close(b""), sized(b"three"))
    async with raw_server(*answers, tls=server_context(authority)) as server:
        assert [await fetch(trusting, server), await fetch(trusting, server)] == [b"one", b"three"]
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_cut_is_not_an_end(trusting, authority):
    async with raw_server(then_close(STREAM_HEAD + chunk(b"half")), tls=server_context(authority)) as server:
        with pytest.raises(UpstreamFailed):
            await fetch(trusting, server)


async def test_closing_aborts_the_connection(trusting, authority):
    before = open_sockets()
    async with raw_server(STREAM_HEAD + chunk(b"one"), tls=server_context(authority)) as server:
        response = await post(trusting, server)
        assert await response.read() == b"one"
        response.close()
        await happens(server.cut)
        await eventually(lambda: open_sockets() == before + 1)  # the listener is left


async def test_cancelling_aborts_the_connection(trusting, authority):
    before = open_sockets()
    async with raw_server(b"", tls=server_context(authority)) as server:
        task = asyncio.create_task(post(trusting, server))
        await eventually(lambda: server.requests)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await happens(server.cut)
        await eventually(lambda: open_sockets() == before + 1)  # the listener is left


async def test_a_silent_server_runs_into_its_deadline(kind, authority):
    client = CLIENTS[kind](HASTY, client_context(authority))
    async with raw_server(STREAM_HEAD, tls=server_context(authority)) as server:
        response = await post(client, server)
        with pytest.raises(DeadlineExceeded):
            await response.body(LIMIT)
        response.close()
        await happens(server.cut)
    await client.aclose()
