"""New settings while the gateway runs: read when the cluster file has been edited, or at a SIGHUP.

Settings are never changed in a process that serves: new workers come with them, and the old ones retire. So there is no
setting that holds for a part only; but the address and the number of workers are the supervisor's own, and stay.
"""

import gc
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from gateway.cli.supervisor import Work
from gateway.settings import ConfigError, Settings

log = logging.getLogger("gateway")

_FIXED = ("config", "host", "port", "workers")


class Reload:
    """
    Args:
        settings: as they were at the start.
        load: reads them anew; raises ConfigError.
        prepare: makes the workers' work of them; raises ConfigError.
        listeners: the sockets that the workers share.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        prepare: Callable[[Settings], Work],
        listeners: Sequence[socket.socket],
    ) -> None:
        self._settings = settings
        self._load = load
        self._prepare = prepare
        self._listeners = listeners
        self._read = self._seen = self._signature()

    def edited(self) -> bool:
        """Whether the file is another one than was read, and has been left alone since the last look."""
        before, self._seen = self._seen, self._signature()
        return self._seen not in {self._read, None} and self._seen == before

    def renewed(self) -> Work | None:
        """New work, if the settings can be used."""
        self._read = self._signature()
        try:
            settings = self._load()
            if fixed := [name for name in _FIXED if getattr(settings, name) != getattr(self._settings, name)]:
                raise ConfigError(f"{', '.join(fixed)}: only a restart can change that")
            work = self._prepare(settings)
        except ConfigError as error:
            log.error("the new settings cannot be used, everything stays as it was: %s", error)
            return None
        log.info("new settings, so new workers are started")
        gc.unfreeze()
        gc.collect()  # the application that nobody serves any more
        gc.freeze()
        return work

    def stopping(self) -> None:
        """The workers have the sockets: once the last one closes its own, nobody connects any more."""
        for listener in self._listeners:
            listener.close()

    def _signature(self) -> tuple[int, int, int] | None:
        with suppress(OSError):
            if self._settings.config is not None:
                status = self._settings.config.stat()
                return status.st_mtime_ns, status.st_ino, status.st_size
        return None
