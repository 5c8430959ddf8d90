"""The Redis beside llmgw+redis: as `llmgw up` runs it, on the load's core."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.gateway import machine
from benchmarks.gateway.process import Process, StartFailed
from gateway.cli import embedded_redis


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Yields its URL."""
    socket = folder / "redis.sock"
    process = Process(embedded_redis.command(socket, folder / "redis"), [machine.LOAD_CORE], folder / "redis.log", {})
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            if time.monotonic() > deadline:
                raise StartFailed(f"redis: {process.last_words()}")
            time.sleep(0.05)
        yield f"unix://{socket}"
    finally:
        process.stop()
