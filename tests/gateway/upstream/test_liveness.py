"""A machine that is gone closes nothing: tests/cluster pulls a cable. Here: what the kernel is told for that case."""

import os
import socket
from pathlib import Path

import pytest

from gateway.upstream.liveness import GONE_S
from tests.gateway.raw_server import raw_server, sized
from tests.gateway.upstream.clients import fetch

pytestmark = pytest.mark.asyncio(loop_scope="module")


def connections_to(port: int) -> list[socket.socket]:
    """This process's own ends, each as one more descriptor."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if not os.readlink(entry).startswith("socket:"):
                continue
            end = socket.socket(fileno=os.dup(int(entry.name)))
            if end.family == socket.AF_INET and end.getpeername()[1] == port:
                found.append(end)
            else:
                end.close()
        except OSError:
            continue
    return found


def told(end: socket.socket) -> tuple[int, bool, int]:
    with end:
        return (
            end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < GONE_S,
            end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        )


async def test_the_kernel_gives_up_a_machine_that_is_silent(client):
    async with raw_server(sized(b"one")) as server:
        await fetch(client, server)
        # Another test may have left an end of its own, to a server that had this port before.
        ends = connections_to(int(server.url.rpartition(":")[2]))
        assert (1, True, GONE_S * 1000) in [told(end) for end in ends]
