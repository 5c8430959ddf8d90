"""Keeps worker processes alive: a worker that dies is replaced, and takes only its own requests with it."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

log = logging.getLogger("gateway")

# Workers that die this young, this many in a row, have a fault that another start does not mend.
_SHORT_LIFE_S = 5.0
_SHORT_LIVES = 5
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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
        for number in _STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        for _ in range(self._count):
            self._fork()
        while self._born:
            pid, status = os.wait()
            self._buried(pid, os.waitstatus_to_exitcode(status))
        return 1 if self._short_lives >= _SHORT_LIVES else 0

    def _fork(self) -> None:
        if self._stopping:
            return
        # Between the fork and its bookkeeping a signal would be lost, here or in the child.
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        pid = os.fork()
        if pid:
            self._born[pid] = time.monotonic()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            return
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
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
        self._short_lives = self._short_lives + 1 if lived < _SHORT_LIFE_S else 0
        if self._short_lives < _SHORT_LIVES:
            self._fork()
        else:
            self._stop(signal.SIGTERM)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._stop(signal.SIGKILL if self._stopping else signal.SIGTERM)

    def _stop(self, number: signal.Signals) -> None:
        self._stopping = True
        for pid in self._born:
            with suppress(ProcessLookupError):  # reaped, and not yet buried
                os.kill(pid, number)


def _stop_at_end_of(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
