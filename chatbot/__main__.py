"""The chat page as a process of its own: `python -m chatbot --gateway http://127.0.0.1:8080`.

The gateway's key, if it wants one, comes in the environment as LLMGW_API_KEY: a command line is visible to other users.
Standard output carries JSON lines for the parent process and nothing else, `{"event": "ready", "url": ...}` or
`{"event": "failed", "message": ...}`; everything meant for people goes to standard error. SIGTERM stops it.
"""

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import sys
from typing import TextIO
from urllib.parse import urlsplit

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as SIGTERM does, without a traceback.
    events = _take_stdout()
    try:
        gateway = _origin(arguments.gateway)
        listener = _listen(arguments.host, arguments.port)
    except (ValueError, OSError) as error:
        _emit(events, event="failed", message=str(error))
        return 1
    with listener:
        asyncio.run(_serve(gateway, arguments.host, listener, events))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chatbot", description="The chat page in front of the LLM gateway.")
    parser.add_argument("--gateway", default="http://127.0.0.1:8080", help="the gateway's address")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=7860, help="the port to listen on; 0 picks a free one")
    return parser.parse_args()


def _take_stdout() -> TextIO:
    """Standard output for our events alone: whatever a library prints goes to standard error from here on."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _emit(events: TextIO, **event: str) -> None:
    print(json.dumps(event), file=events, flush=True)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"The gateway's address must look like http://127.0.0.1:8080, not {url!r}.")
    return url


def _listen(host: str, port: int) -> socket.socket:
    """Taken before the slow imports: a port in use fails at once, and an early browser waits instead of failing."""
    if not 0 <= port <= 65535:
        raise ValueError(f"A port is a number from 0 to 65535, not {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        raise OSError(f"The chat page cannot listen on {host}:{port}: {reason}.") from error


async def _serve(gateway: str, host: str, listener: socket.socket, events: TextIO) -> None:
    # Gradio and the libraries under it read these when imported. Nothing here calls the internet.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    gc.disable()  # An eighth of the import time, and all of it in vain.
    import uvicorn

    from chatbot.app import create_app
    from chatbot.client import Gateway

    gc.freeze()
    gc.enable()

    name, port = (f"[{host}]" if ":" in host else host), listener.getsockname()[1]

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            _emit(events, event="ready", url=f"http://{name}:{port}")

    async with Gateway(gateway, os.environ.get("LLMGW_API_KEY")) as client:
        app = create_app(client, hosts=_LOOPBACK if host in _LOOPBACK else ())
        server = Server(uvicorn.Config(app, ws="none", log_level="warning"))
        server.force_exit = True  # Told to stop, it waits for no open stream: they end with their sockets.
        await server.serve(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
