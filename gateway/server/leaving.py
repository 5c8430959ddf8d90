"""How a worker stops taking requests, so that none is lost on the way.

First it says so for a while, and serves on: `/health/ready` turns to 503, which load balancers look at, and every
answer ends its connection, so that clients come back on another one. Then it listens no more, finishes what is open,
and ends: within bounds when the gateway stops, and in its own time when another worker has taken its place.
"""

import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

# Another worker takes over: leave as on SIGTERM, but the gateway as a whole is ready all the time.
RETIRE = signal.SIGUSR1


class Presence:
    """What a worker says about itself.

    Attributes:
        leaving: the gateway stops.
        informed: what is in Redis was read when it began to listen; also where there is none.
    """

    def __init__(self) -> None:
        self.leaving = False
        self.informed = False


class Server(uvicorn.Server):
    """uvicorn's server, which leaves in two steps. A SIGINT comes from a person, and has no first one.

    Args:
        notice_s: how long it says that it leaves.
        started: called once it listens.
    """

    def __init__(
        self, config: uvicorn.Config, presence: Presence, notice_s: float, started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._presence = presence
        self._notice_s = notice_s
        self._started = started
        self._drain_s = config.timeout_graceful_shutdown or 0
        self._retires = False
        self._leaves_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == RETIRE:
            self._retires = True
            self.config.timeout_graceful_shutdown = None
            self._give_notice()
        elif sig == signal.SIGTERM and self._leaves_at is None:
            self._presence.leaving = True
            self._give_notice()
        else:
            self.should_exit = True
            if self._retires:
                signal.alarm(self._drain_s + 1)  # the gateway stops after all: what is open then ends with the process

    def _give_notice(self) -> None:
        self._leaves_at = time.monotonic() + self._notice_s
        last_answer = [(b"connection", b"close")]
        self.config.encoded_headers = [*self.config.encoded_headers, *last_answer]
        self.server_state.default_headers = [*self.server_state.default_headers, *last_answer]

    async def on_tick(self, counter: int) -> bool:
        told = await super().on_tick(counter)
        return told or (self._leaves_at is not None and time.monotonic() >= self._leaves_at)
