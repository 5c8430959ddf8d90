"""`llmgw gateway`: worker processes that share one port, forked after the imports and watched until told to stop.

Each worker has a listening socket of its own on the port (SO_REUSEPORT), so the kernel spreads connections over them.
The sockets are opened before the fork and stay: a connection that waits for a worker that dies or retires is taken by
the one that comes after it.
"""

import functools
import gc
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from gateway.cli import ports
from gateway.cli.reload import Reload
from gateway.cli.supervisor import Supervisor, Work
from gateway.server.leaving import RETIRE, Presence, Server
from gateway.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger("gateway")


def serve(load: Callable[[], Settings]) -> int:
    """Runs the gateway until SIGTERM or SIGINT; a second signal does not wait. Returns the exit status.

    Args:
        load: the settings, read anew; raises ConfigError.
    """
    settings = load()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    log.setLevel(logging.INFO)
    access_log = logging.getLogger("gateway.access")
    access_log.addHandler(logging.StreamHandler())  # its lines come with time and level
    access_log.propagate = False
    ports.check_free(settings.host, settings.port, "--port")
    with ExitStack() as opened:
        listeners = _listen(settings, opened)
        # prometheus_client reads this when it is imported, and `gateway.app` imports it.
        metrics = opened.enter_context(tempfile.TemporaryDirectory(prefix="llmgw-metrics-"))
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        gc.disable()  # nothing that an import makes is garbage
        work = _work(settings, listeners)
        log.info(
            "listening on http://%s:%d with %d workers", settings.host, listeners[0].getsockname()[1], settings.workers
        )
        gc.freeze()  # the workers share what is there by now
        gc.enable()
        gc.set_threshold(10_000, 20, 50)  # what a request makes dies by reference counting
        reload = Reload(settings, load, lambda anew: _work(anew, listeners), listeners)
        return Supervisor(work, settings.workers, reload).run()


def _listen(settings: Settings, opened: ExitStack) -> Sequence[socket.socket]:
    """A listening socket for each worker; the system may choose the port."""
    listeners: list[socket.socket] = []
    for _ in range(settings.workers):
        port = listeners[0].getsockname()[1] if listeners else settings.port
        listener = opened.enter_context(ports.shared(settings.host, port))
        listener.listen(2048)
        listeners.append(listener)
    return listeners


def _work(settings: Settings, listeners: Sequence[socket.socket]) -> Work:
    """What each worker does. Raises ConfigError for a chain or a skill that does not load."""
    from gateway.app import create_app

    logging.getLogger("gateway.access").setLevel(logging.INFO if settings.access_log else logging.WARNING)
    presence = Presence()
    app = create_app(settings, presence)
    if not settings.keys:
        log.warning("no API key is defined: %s", "anyone is served" if settings.insecure else "loopback only")

    def work(number: int, serving: Callable[[], None]) -> None:
        for listener in listeners:
            if listener is not listeners[number]:
                listener.close()
        _serve(app, settings, presence, listeners[number], lambda: serving() if presence.informed else None)

    return work


def _serve(
    app: "ASGIApp", settings: Settings, presence: Presence, listener: socket.socket, started: Callable[[], None]
) -> None:
    import signal

    import uvicorn

    from gateway.server.bounds import Bounds
    from gateway.server.connection import ClientConnection

    config = uvicorn.Config(
        app,
        interface="asgi3",
        loop="uvloop",
        http=functools.partial(ClientConnection, Bounds.of(settings)),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(settings.drain_timeout_s),
    )
    server = Server(config, presence, settings.drain_notice_s, started)
    signal.signal(RETIRE, server.handle_exit)
    server.run(sockets=[listener])
