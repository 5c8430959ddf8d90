"""One child process of `llmgw up`: started on a leash, heard through JSON lines, stopped for certain.

The leash is the child's standard input: it ends when we do, however we end, and every child stops then.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self


class Process:
    """A child in its own session, so that a Ctrl-C in the terminal reaches it only through us.

    Attributes:
        name: for people, and for its log file.
        log: where its standard error goes.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(cls, name: str, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Self:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env={**os.environ, **environment},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        return cls(name, process, log)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What it reports on standard output, until it ends."""
        assert self._process.stdout is not None  # noqa: S101
        async for line in self._process.stdout:
            with suppress(json.JSONDecodeError):
                yield json.loads(line)

    async def ended(self) -> int:
        return await self._process.wait()

    def last_words(self) -> str:
        """The last line it wrote to its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    async def stop(self, seconds: float) -> None:
        """Asks it to end, and after `seconds` ends its whole session's group."""
        self.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            self.kill()
            await self._process.wait()

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
