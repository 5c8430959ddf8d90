"""Before anything is measured: one request of each kind to each system, and the whole answer is looked at."""

import socket
import urllib.error
import urllib.request
from dataclasses import dataclass

from benchmarks.gateway import load
from benchmarks.gateway.dialect import PACED, STREAM, WHOLE, WrongAnswer, check_text, check_tokens
from benchmarks.gateway.load import Load
from benchmarks.gateway.server import Server, raw_request


@dataclass(frozen=True)
class Shape:
    """What one right stream looks like from outside.

    Attributes:
        marks: how often "data:" stands in it.
        wire_bytes: of one paced stream: what the load generator's count of bytes is divided by.
    """

    marks: int
    wire_bytes: int


def ask(server: Server, kind: str) -> bytes:
    request = urllib.request.Request(server.url(kind), server.system.dialect.body(kind), server.headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        raise WrongAnswer(f"{kind}: HTTP {error.code}: {error.read(300)!r}") from error
    except OSError as error:
        raise WrongAnswer(f"{kind}: {error}") from error


def wire_bytes(server: Server, kind: str) -> int:
    """How many bytes the answer is on the wire, headers and framing included."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(raw_request(server, kind, close=True))
        return sum(len(data) for data in iter(lambda: connection.recv(65536), b""))


def check(server: Server) -> Shape:
    """Raises WrongAnswer. Afterwards every stream of a short load was complete too."""
    dialect = server.system.dialect
    try:
        check_text(dialect.text(ask(server, WHOLE)))
        for kind in (STREAM, PACED):
            streamed = ask(server, kind)
            check_tokens(dialect.tokens(streamed))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise WrongAnswer(f"not an answer: {type(error).__name__}: {error}") from error
    marks = streamed.count(b"data:")
    counted = load.run(server, Load(STREAM, connections=4, seconds=2, marks=marks))
    if counted["errors"] or not counted["requests"]:
        raise WrongAnswer(f"under load: {counted['requests']} streams, {counted['errors']}")
    return Shape(marks, wire_bytes(server, PACED))
