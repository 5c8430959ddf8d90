"""The requests that have ended: counted, timed and written to the access log, many at once.

To change a value that other processes can read costs a microsecond, and a request changes eight; a line through
`logging` costs seven. So ended requests are noted and worked off together: every FLUSH_S, or at MAX_NOTED.

In the access log bodies, keys and query strings stay out, and a path is written as it was sent, still encoded:
decoded, it could forge lines. The logger's handler must not add a prefix of its own.
"""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from select import PIPE_BUF

from gateway.context import RequestContext
from gateway.metrics import Metrics

log = logging.getLogger("gateway.access")

FLUSH_S = 0.25
MAX_NOTED = 400  # more at once would hold the other requests up


@dataclass(slots=True)
class RequestRecord:
    """One ended request.

    Attributes:
        path: as it was sent.
        first_byte_s: None when there was no answer.
        at: when it ended, seconds since the epoch.
    """

    method: str
    path: bytes
    status: int
    seconds: float
    first_byte_s: float | None
    client_left: bool
    context: RequestContext
    at: float

    def line(self, stamp: str) -> str:
        milliseconds, path, context = int(self.at % 1 * 1000), self.path.decode("latin-1"), self.context
        return (
            f"{stamp},{milliseconds:03d} INFO gateway.access {self.method} {path} {self.status} "
            f"{self.seconds * 1000:.1f} ms tenant={context.tenant} id={context.request_id}"
        )


class RequestLog:
    """Takes note of a worker's requests."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._open = 0
        self._ended: list[RequestRecord] = []
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        self._open += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._on_timer)

    def end(self, record: RequestRecord) -> None:
        self._open -= 1
        self._ended.append(record)
        if len(self._ended) >= MAX_NOTED:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._on_timer)

    def flush(self) -> None:
        ended, self._ended = self._ended, []
        self._metrics.in_flight.set(self._open)
        self._metrics.write_noted()
        self._count(ended)
        if ended and log.isEnabledFor(logging.INFO):
            stamps = {second: _stamp(second) for second in {int(record.at) for record in ended}}
            for part in _parts([record.line(stamps[int(record.at)]) for record in ended]):
                log.info("%s", part)

    def _on_timer(self) -> None:
        self._timer = None
        self.flush()

    def _count(self, ended: list[RequestRecord]) -> None:
        metrics = self._metrics
        by_door: dict[str, list[RequestRecord]] = defaultdict(list)
        for record in ended:
            by_door[record.context.door].append(record)
        for door, records in by_door.items():
            for (status, tenant), count in Counter([(r.status, r.context.tenant) for r in records]).items():
                metrics.requests.labels(door, status, tenant).inc(count)
            metrics.request_seconds.labels(door).observe_all([r.seconds for r in records])
            metrics.first_byte_seconds.labels(door).observe_all(
                [r.first_byte_s for r in records if r.first_byte_s is not None]
            )
        if left := sum([r.client_left for r in ended]):
            metrics.disconnects.inc(left)


def _parts(lines: list[str]) -> Iterator[str]:
    """The lines in pieces that go into a pipe whole: the workers share one."""
    part: list[str] = []
    size = 0
    for line in lines:
        size += len(line) + 1
        if part and size > PIPE_BUF:
            yield "\n".join(part)
            part, size = [], len(line) + 1
        part.append(line)
    yield "\n".join(part)


def _stamp(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
