"""One part of `llmgw up`: started on a leash, heard through JSON lines, stopped for certain.

The leash is `backend/guard.py`, which runs the part in a process group and ends the group when its own standard input
ends: it does when we do, however we end.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self


class Process:
    """A guarded process, in a session of its own: a Ctrl-C in the terminal reaches it only through us.

    Attributes:
        name: for people, and for its log file.
        log: where its standard error goes.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(
        cls, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path, grace_s: float
    ) -> Self:
        """Starts `argv`; told to stop, it has `grace_s` seconds to do so by itself."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "backend.guard", str(grace_s), "--", *argv),
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        return cls(name, process, log)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What it reports on standard output, until it ends."""
        assert self._process.stdout is not None  # noqa: S101
        while True:
            try:
                line = await self._process.stdout.readline()
                event = json.loads(line or "null")
            except (ValueError, RecursionError):  # what it prints besides, and longer than any event is
                continue
            if not line:
                return
            if isinstance(event, dict):
                yield event

    async def ended(self) -> int:
        return await self._process.wait()

    def last_words(self) -> str:
        """The last line it wrote to its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    async def stop(self) -> None:
        """Asks it to end. The guard sees to it that it does."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        await self._process.wait()

    def kill(self) -> None:
        """Ends it at once: what a killed guard has guarded is killed too."""
        with suppress(ProcessLookupError):
            self._process.kill()
