"""`llmgw gateway`: worker processes that share one port, forked after the imports and watched until told to stop.

Each worker has its own listening socket on the port (SO_REUSEPORT), so the kernel spreads connections over them.
"""

import functools
import gc
import logging
import os
import tempfile
from typing import TYPE_CHECKING

from gateway.cli import ports
from gateway.cli.supervisor import Supervisor
from gateway.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger("gateway")


def serve(settings: Settings) -> int:
    """Runs the gateway until SIGTERM or SIGINT; a second signal does not wait. Returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    log.setLevel(logging.INFO)
    access_log = logging.getLogger("gateway.access")
    access_log.addHandler(logging.StreamHandler())  # its lines come with time and level
    access_log.propagate = False
    access_log.setLevel(logging.INFO if settings.access_log else logging.WARNING)
    ports.check_free(settings.host, settings.port, "--port")
    with (
        # Bound but not listening: it holds the port, also when the system chose the number.
        ports.shared(settings.host, settings.port) as reservation,
        tempfile.TemporaryDirectory(prefix="llmgw-metrics-") as metrics,
    ):
        # prometheus_client reads this when it is imported, and `gateway.app` imports it.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = metrics
        gc.disable()  # nothing that an import makes is garbage
        from gateway.app import create_app

        app, port = create_app(settings), reservation.getsockname()[1]
        log.info("listening on http://%s:%d with %d workers", settings.host, port, settings.workers)
        if not settings.keys:
            log.warning("no API key is defined: %s", "anyone is served" if settings.insecure else "loopback only")
        gc.freeze()  # the workers share what is there by now
        gc.enable()
        gc.set_threshold(10_000, 20, 50)  # what a request makes dies by reference counting
        return Supervisor(lambda: _work(app, settings, port), settings.workers).run()


def _work(app: "ASGIApp", settings: Settings, port: int) -> None:
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
    with ports.shared(settings.host, port) as listener:
        listener.listen(2048)
        uvicorn.Server(config).run(sockets=[listener])
