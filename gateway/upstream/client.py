"""The seam between the completion path and whatever speaks HTTP to the engines.

`http1.HttpClient` and `aiohttp_client.AiohttpClient` both fill it; tests/gateway/upstream holds them to the same
contract. A client knows nothing of completions, of replicas' health or of failover: it gives one answer or one typed
error, and it never

- gives bytes that do not belong to the answer, or a part of an answer as if it were the whole,
- uses a connection again after anything went wrong on it, or before its answer has come to its end,
- decompresses, follows a redirect, keeps a cookie or looks at the environment's proxies.

The errors, all of them GatewayErrors:

    ReplicaUnreachable   no connection: refused, timed out, or TLS not to be trusted; nothing was sent
    ReplicaSilent        the connection was closed before any of the answer had come
    UpstreamFailed       the answer broke off, broke the protocol, or is of a kind that was not asked for
    DeadlineExceeded     nothing came for as long as `Timeouts` say, or the whole was not there by `until`
"""

import asyncio
from typing import Protocol

from gateway.errors import DeadlineExceeded, UpstreamFailed
from gateway.origin import Origin
from gateway.upstream.timeouts import NEVER, Timeouts

# Whoever closes a kept connection later than this after a request was sent there has had that request, and does not get
# it again.
STALE_S = 1.0


class Sink(Protocol):
    """Takes an answer's bytes as they arrive.

    Attributes:
        done: it wants no more.
        full: while it should be given no more: done once it can take some again.
    """

    @property
    def done(self) -> bool: ...
    @property
    def full(self) -> "asyncio.Future[None] | None": ...
    def write(self, data: bytes) -> bool:
        """Returns whether it is neither done nor full now."""


class UpstreamResponse(Protocol):
    """One answer being received. Who got it closes it, in every case, and is the only one to read it.

    Reading slower than the server sends pauses its socket: what is held does not grow with the answer.

    Attributes:
        status: the final status; interim answers (1xx) are passed over.
        headers: names in lower case, values without surrounding space; of a repeated name the last. Trailers are not
            among them.
    """

    status: int
    headers: dict[bytes, bytes]

    @property
    def complete(self) -> bool:
        """Whether the whole answer has arrived, even if it has not been read yet."""

    async def read(self) -> bytes:
        """The bytes that have arrived, at least one; `b""` once the answer is complete, and then again.

        Raises:
            UpstreamFailed: the answer broke off, or was closed. What had arrived and was not read may be lost.
            DeadlineExceeded: nothing came for `Timeouts.first_token` at first, or for `Timeouts.idle` later.
        """

    async def body(self, max_bytes: int) -> bytes:
        """The rest of the answer.

        Raises:
            UpstreamFailed: as `read`, and when it is longer than `max_bytes`.
            DeadlineExceeded: as `read`.
        """
        parts, size = [], 0
        while data := await self.read():
            parts.append(data)
            size += len(data)
            if size > max_bytes:
                raise UpstreamFailed(f"The engine's answer is longer than {max_bytes} bytes.")
        return b"".join(parts)

    async def relay(self, sink: Sink) -> None:
        """Hands on to `sink` what arrives, as it arrives, until the answer is complete or the sink is done.

        Raises:
            GatewayError: as `read`; what had arrived before was handed on. What `sink.write` raises ends it, too.
        """
        while not sink.done and (data := await self.read()):
            if not sink.write(data) and sink.full is not None:
                await asyncio.shield(sink.full)

    async def drain(self, seconds: float) -> None:
        """Reads what is left of an answer whose content is known to be over, so that its connection can be kept.

        Gives up silently after `seconds`, or when the answer fails; `close` then ends the connection.
        """
        try:
            async with asyncio.timeout(seconds):
                while await self.read():
                    pass
        except (TimeoutError, UpstreamFailed, DeadlineExceeded):
            return

    def close(self) -> None:
        """Gives the connection back when the answer is complete, and aborts it at once otherwise.

        The abort is how an engine learns that nobody listens any more. Idempotent, and never waits.
        """


class UpstreamClient(Protocol):
    """Sends requests over kept connections. May be built before a process forks; it opens nothing until it is used."""

    async def post(
        self,
        origin: Origin,
        path: str,
        headers: dict[str, str],
        body: bytes,
        timeouts: Timeouts | None = None,
        until: float = NEVER,
        fresh: bool = False,
    ) -> UpstreamResponse:
        """POSTs `body` and returns once status and headers are there. The caller closes the answer.

        It is held to `timeouts`, or the client's own, and to the loop's time `until`. Where `fresh`, it goes over a new
        connection: a server that has gone by then has surely not got it.

        `host` and `content-length` are added, and nothing else. A kept connection that the server closed at once,
        before one byte of the answer, is replaced by a new one, once; where there is no new one, that was
        ReplicaSilent. A call that is cancelled leaves no connection behind.

        Raises:
            ReplicaUnreachable, ReplicaSilent, UpstreamFailed, DeadlineExceeded: see above.
            ValueError: a header that cannot be sent as it is, such as one with a line break; nothing was sent.
        """

    async def aclose(self) -> None:
        """Closes the kept connections. Answers still open are their owners' business, and may break off."""
