"""Cuts a client's bytes into request heads and bodies: httptools, with what it leaves to its user.

Source: https://www.rfc-editor.org/rfc/rfc9112
"""

from typing import Protocol

import httptools

from gateway.errors import GatewayError, HeadTooLarge, InvalidHTTP
from gateway.server.request_head import RequestHead


class Sink(Protocol):
    """Where requests go."""

    def head_begun(self) -> None: ...
    def head_complete(self, head: RequestHead, keep_alive: bool) -> None: ...
    def body_received(self, data: bytes) -> None: ...
    def body_complete(self) -> None: ...


class RequestParser:
    """Parses the requests of one connection.

    Args:
        max_head_bytes: of a request line with its headers, and of what is no part of head or body between the parts
            of a body: trailers, which are dropped, and chunk extensions.

    Attributes:
        in_head: a request has begun whose head is not complete.
    """

    __deletable__ = ("_parser",)  # mypyc's word for it

    def __init__(self, sink: Sink, max_head_bytes: int) -> None:
        self.in_head = False
        self._sink = sink
        self._max_head_bytes = max_head_bytes
        self._parser: httptools.HttpRequestParser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._read_bytes = 0
        self._head_bytes = 0  # at most
        self._head: RequestHead | None = None
        self._refused: GatewayError | None = None  # what httptools' error is about, where we have raised it ourselves
        self._in_body = False
        self._body_skipped = False
        self._overhead_bytes = 0

    def feed(self, data: bytes) -> None:
        """Raises InvalidHTTP or HeadTooLarge; nothing that follows can be understood then."""
        self._read_bytes = len(data)
        self._head_bytes += len(data)
        self._overhead_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            refused, self._refused = self._refused, None
            if refused is not None:
                raise refused from None
            raise InvalidHTTP(f"This is not a valid HTTP/1.1 request: {error}.") from error
        if self._overhead_bytes > self._max_head_bytes and (self.in_head or self._in_body):
            raise self._too_large()

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        else:
            return
        self._decline_upgrade(rest)

    def close(self) -> None:
        del self._parser  # it and this keep each other alive

    # httptools callbacks

    def on_message_begin(self) -> None:
        self.in_head = True
        self._target, self._headers, self._head_bytes = b"", [], self._read_bytes
        self._sink.head_begun()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:  # otherwise a trailer
            self._headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        try:
            self._head_complete()
        except GatewayError as error:
            self._refused = error
            raise

    def on_body(self, data: bytes) -> None:
        self._overhead_bytes = 0
        self._sink.body_received(data)

    def on_message_complete(self) -> None:
        if not self._body_skipped:
            self._in_body = False
            self._sink.body_complete()

    def _head_complete(self) -> None:
        parser = self._parser
        self.in_head, self._in_body, self._overhead_bytes = False, True, 0
        if self._head_bytes > self._max_head_bytes:  # with what came along with it
            size = len(self._target) + sum([len(name) + len(value) + 4 for name, value in self._headers])
            if size > self._max_head_bytes:
                raise self._too_large()
        self._head = head = RequestHead(parser.get_method(), self._target, parser.get_http_version(), self._headers)
        upgrade = parser.should_upgrade()
        self._body_skipped = upgrade and head.has_body
        self._sink.head_complete(head, parser.should_keep_alive() and not upgrade)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Serves the request as what it is; the protocol stays HTTP/1.1.

        httptools takes an upgrade for the end of HTTP and skips the body, which a request that only offers one (as
        Java's client does) has. So another parser, which is told of nothing else, goes on where the body begins.
        """
        if self._body_skipped and self._head is not None:
            self._body_skipped = False
            self._parser = httptools.HttpRequestParser(_BodyOnly(self))
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + self._head.framing() + b"\r\n")
            self._feed(rest)

    def _too_large(self) -> HeadTooLarge:
        return HeadTooLarge(f"The request's headers are larger than {self._max_head_bytes} bytes.")


class _BodyOnly:
    def __init__(self, parser: RequestParser) -> None:
        self.on_body = parser.on_body
        self.on_message_complete = parser.on_message_complete
