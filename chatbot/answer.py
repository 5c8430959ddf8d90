"""Answers while they are being written, and how to stop one from outside.

Knows nothing of Gradio: a session is a string.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from chatbot.client import Delta


class Answer:
    """Reads an answer in a task of its own, as fast as it comes.

    A page that draws slower than the model writes gets bigger pieces, not an ever longer queue of small ones.
    """

    def __init__(self, deltas: AsyncGenerator[Delta, None]) -> None:
        self.finish_reason: str | None = None
        self.stopped = False
        self._text = ""
        self._grown = asyncio.Event()
        self._reader = asyncio.create_task(self._read(deltas))
        self._reader.add_done_callback(lambda _: self._grown.set())

    async def _read(self, deltas: AsyncGenerator[Delta, None]) -> None:
        async with aclosing(deltas):
            async for delta in deltas:
                self._text += delta.text
                self.finish_reason = delta.finish_reason or self.finish_reason
                self._grown.set()

    async def texts(self) -> AsyncIterator[str]:
        """The whole text so far, each time that it has grown, until it is finished or stopped.

        Raises the `chatbot.client.Failure` that ended the answer.
        """
        shown = ""
        while not self._reader.done():
            await self._grown.wait()
            self._grown.clear()
            if self._text != shown:
                shown = self._text
                yield shown
        if not self._reader.cancelled():
            self._reader.result()

    def stop(self) -> None:
        """Close the connection; what was written until now stays."""
        self.stopped = self._reader.cancel() or self.stopped

    async def aclose(self) -> None:
        self.stop()
        await asyncio.wait({self._reader})


class Answers:
    """The answers being written now: at most one per session."""

    def __init__(self) -> None:
        self._of: dict[str, Answer] = {}

    @asynccontextmanager
    async def write(self, session: str, deltas: AsyncGenerator[Delta, None]) -> AsyncIterator[Answer]:
        """An answer that is stopped when the block is left, however that happens."""
        self.stop(session)
        answer = self._of[session] = Answer(deltas)
        try:
            yield answer
        finally:
            if self._of.get(session) is answer:
                del self._of[session]
            await answer.aclose()

    def stop(self, session: str) -> None:
        if session in self._of:
            self._of[session].stop()
