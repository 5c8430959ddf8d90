"""Keeps worker processes alive: a worker that dies is replaced, and takes only its own requests with it.

New settings come with new workers. The old ones go on until all the new ones serve, and are told to retire then; should
one of the new ones fail, they stay.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from gateway.server.leaving import RETIRE

log = logging.getLogger("gateway")

# Workers that die this young, this many in a row, have a fault that another start does not mend.
_SHORT_LIFE_S = 5.0
_SHORT_LIVES = 5
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# SIGALRM is the supervisor's own, at every turn: sigtimedwait of Python 3.11 returns what it finds in memory when it is
# interrupted and its time is over by then, as after a SIGSTOP and SIGCONT.
_SIGNALS = (*_STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM)
_TURN_S = 0.2
# How long new workers may take to serve.
_READY_S = 20.0

# Given a worker's number, from 0 on, and what to call once it serves.
Work = Callable[[int, Callable[[], None]], None]


class Source(Protocol):
    """Where the work comes from."""

    def edited(self) -> bool:
        """Whether there may be other work; asked now and then."""

    def renewed(self) -> Work | None:
        """Other work, if there is; says itself what it does, and why not."""

    def stopping(self) -> None:
        """There will be no new worker."""


class Generation:
    """The workers with the same work.

    Attributes:
        born: worker to number and time.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.born: dict[int, tuple[int, float]] = {}
        self.began = time.monotonic()
        self._reports, self._reporter = os.pipe()
        self._serving = 0
        os.set_blocking(self._reports, False)

    def report(self) -> None:
        """A worker's word that it serves."""
        os.write(self._reporter, b".")

    @property
    def serving(self) -> int:
        """How many have said so."""
        with suppress(BlockingIOError):
            self._serving += len(os.read(self._reports, 4096))
        return self._serving

    def tell(self, number: signal.Signals) -> None:
        for pid in self.born:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def close(self) -> None:
        os.close(self._reports)
        os.close(self._reporter)


class Supervisor:
    """Keeps `count` forked processes of `work` alive."""

    def __init__(self, work: Work, count: int, source: Source) -> None:
        self._count = count
        self._source = source
        self._current = Generation(work)
        self._next: Generation | None = None
        self._retired: list[Generation] = []
        self._stopping = False
        self._asked = False
        self._short_lives = 0
        self._leash = os.pipe()

    def run(self) -> int:
        """Until all workers have ended after a SIGTERM or SIGINT. Returns the exit status."""
        # They are taken one by one below, so none comes between a fork and its bookkeeping.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        signal.setitimer(signal.ITIMER_REAL, _TURN_S, _TURN_S)
        self._fork_all(self._current)
        while self._current.born or any(generation.born for generation in self._retired):
            number = signal.Signals(signal.sigwait(_SIGNALS))
            if number in _STOP_SIGNALS:
                self._stop(signal.SIGKILL if self._stopping else number)
            self._bury()
            if not self._stopping:
                self._asked = self._asked or number is signal.SIGHUP
                self._follow()
        return 1 if self._short_lives >= _SHORT_LIVES else 0

    def _follow(self) -> None:
        """New settings, one step at a time."""
        if self._next is not None:
            if self._next.serving == self._count:
                self._take_over(self._next)
            elif time.monotonic() - self._next.began > _READY_S:
                self._give_up(f"they do not serve within {_READY_S:g} s (is Redis away?)")
        elif self._asked or self._source.edited():
            self._asked = False
            if (work := self._source.renewed()) is not None:
                self._next = Generation(work)
                self._fork_all(self._next)

    def _take_over(self, successor: Generation) -> None:
        self._current.tell(RETIRE)
        self._current.close()
        self._retired = [generation for generation in (*self._retired, self._current) if generation.born]
        self._current, self._next = successor, None
        log.info("new workers have taken over")

    def _give_up(self, reason: str) -> None:
        failed, self._next = self._next, None
        if failed is not None:
            log.error("the new workers are given up, everything stays as it was: %s", reason)
            failed.tell(signal.SIGKILL)
            failed.close()
            self._retired.append(failed)

    def _fork_all(self, generation: Generation) -> None:
        for number in range(self._count):
            self._fork(generation, number)

    def _fork(self, generation: Generation, number: int) -> None:
        pid = os.fork()
        if pid:
            generation.born[pid] = number, time.monotonic()
            return
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # ours, also when a terminal tells it to all
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(self._leash[1])
        threading.Thread(target=_stop_at_end_of, args=(self._leash[0],), daemon=True).start()
        status = 1
        try:
            generation.work(number, generation.report)
            status = 0
        finally:
            logging.shutdown()
            os._exit(status)

    def _bury(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._buried(ended[0], os.waitstatus_to_exitcode(ended[1]))

    def _buried(self, pid: int, code: int) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid)  # type: ignore[no-untyped-call]
        if self._next is not None and pid in self._next.born:
            self._give_up(f"worker {pid} ended (status {code})")
        for generation in self._retired:
            generation.born.pop(pid, None)
        number, born = self._current.born.pop(pid, (None, 0.0))
        if number is None or self._stopping:
            return
        log.error("worker %d ended unexpectedly (status %d)", pid, code)
        self._short_lives = self._short_lives + 1 if time.monotonic() - born < _SHORT_LIFE_S else 0
        if self._short_lives < _SHORT_LIVES:
            self._fork(self._current, number)
        else:
            self._stop(signal.SIGTERM)

    def _stop(self, number: signal.Signals) -> None:
        self._stopping = True
        self._source.stopping()
        if self._next is not None:
            self._retired.append(self._next)
            self._next = None
        for generation in (self._current, *self._retired):
            generation.tell(number)


def _stop_at_end_of(descriptor: int) -> None:
    while os.read(descriptor, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
