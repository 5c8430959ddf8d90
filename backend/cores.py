"""Which cores are whose, on one node: Ray counts the CPUs of a replica, and does not say which they are.

A core is taken by a lock on its file. The lock goes with the process that holds it, however that ends.
"""

import fcntl
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self


class NoFreeCores(RuntimeError):
    """Fewer cores are free on this node than Ray has given to its replicas."""


class Cores:
    """Cores of one replica's own, until it closes them.

    Attributes:
        ids: as the kernel counts them.
    """

    def __init__(self, locks: ExitStack, ids: tuple[int, ...]) -> None:
        self.ids = ids
        self._locks = locks

    @classmethod
    def take(cls, count: int, folder: Path | None = None) -> Self:
        """Takes the first `count` free cores among those that this process may use; raises NoFreeCores."""
        folder = folder or Path(tempfile.gettempdir(), f"llmgw-cores-{os.getuid()}")
        folder.mkdir(mode=0o700, exist_ok=True)
        with ExitStack() as locks:
            ids: list[int] = []
            for core in sorted(os.sched_getaffinity(0)):
                if len(ids) == count:
                    break
                lock = locks.enter_context((folder / str(core)).open("w"))
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                ids.append(core)
            if len(ids) < count:
                raise NoFreeCores(
                    f"{count} cores are reserved and {len(ids)} are free: does Ray count more than exist?"
                )
            return cls(locks.pop_all(), tuple(ids))

    def close(self) -> None:
        self._locks.close()
