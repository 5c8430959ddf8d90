"""`llmgw gateway`: worker processes that share one port, forked after the imports and watched until told to stop.

Each worker has its own listening socket on the port (SO_REUSEPORT), so the kernel spreads connections over them. A
worker that dies is replaced; it takes only its own requests with it.
"""

import gc
import logging
import os
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from gateway.cli import ports
from gateway.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger("gateway")

# Workers that die this young, this many in a row, have a fault that another start does not mend.
_SHORT_LIFE_SECONDS = 5.0
_SHORT_LIVES = 5


def serve(settings: Settings) -> int:
    """Runs the gateway until SIGTERM or SIGINT; a second signal does not wait. Returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    log.setLevel(logging.INFO)
    ports.check_free(settings.host, settings.port, "--port")
    with (
        # Bound but not listening: it holds the port, also when the system chose the number.
        ports.shared(settings.host, settings.port) as reservation,
        tempfile.TemporaryDirectory(prefix="llmgw-metrics-") as metrics,
    ):
        # prometheus_client reads this when it is imported, and `gateway.app` imports it.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        from gateway.app import create_app

        app, port = create_app(settings), reservation.getsockname()[1]
        log.info("listening on http://%s:%d with %d workers", settings.host, port, settings.workers)
        if not settings.keys:
            log.warning("no API key is defined: %s", "anyone is served" if settings.insecure else "loopback only")
        gc.freeze()  # the workers share what is there by now
        return Supervisor(lambda: _work(app, settings, port), settings.workers).run()


def _work(app: "ASGIApp", settings: Settings, port: int) -> None:
    import uvicorn

    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.drain_timeout),
    )
    with ports.shared(settings.host, port) as listener:
        listener.listen(2048)
        uvicorn.Server(config).run(sockets=[listener])


class Supervisor:
    """Keeps `count` forked processes of `work` alive."""

    def __init__(self, work: Callable[[], None], count: int) -> None:
        self._work = work
        self._count = count
        self._born: dict[int, float] = {}
        self._stopping = False
        self._short_lives = 0
        self._leash = os.pipe()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        for _ in range(self._count):
            self._fork()
        mode = os.fstat(0).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):  # asyncio's pipes are sockets
            threading.Thread(target=_stop_at_end_of_stdin, daemon=True).start()
        while self._born:
            pid, status = os.wait()
            self._buried(pid, os.waitstatus_to_exitcode(status))
        return 1 if self._short_lives >= _SHORT_LIVES else 0

    def _fork(self) -> None:
        pid = os.fork()
        if pid:
            self._born[pid] = time.monotonic()
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.close(self._leash[1])
        threading.Thread(target=_stop_at_end_of, args=(self._leash[0],), daemon=True).start()
        status = 1
        try:
            self._work()
            status = 0
        finally:
            logging.shutdown()
            os._exit(status)

    def _buried(self, pid: int, code: int) -> None:
        lived = time.monotonic() - self._born.pop(pid)
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid)  # type: ignore[no-untyped-call]
        if self._stopping:
            return
        log.error("worker %d ended unexpectedly (status %d)", pid, code)
        self._short_lives = self._short_lives + 1 if lived < _SHORT_LIFE_SECONDS else 0
        if self._short_lives < _SHORT_LIVES:
            self._fork()
        else:
            self._stop(signal.SIGTERM)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._stop(signal.SIGKILL if self._stopping else signal.SIGTERM)

    def _stop(self, number: signal.Signals) -> None:
        self._stopping = True
        for pid in self._born:
            os.kill(pid, number)


def _stop_at_end_of_stdin() -> None:
    """Who started us through a pipe is gone when the pipe ends, even by kill -9."""
    _stop_at_end_of(0)


def _stop_at_end_of(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
