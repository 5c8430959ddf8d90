"""What is left of an answer that broke off, once it is generated anew from its beginning."""

from collections.abc import AsyncGenerator
from typing import Any

from gateway.completion.cached import chunks_of, framed
from gateway.errors import StreamInterrupted

# What tells two generations of the same answer apart.
_OWN = frozenset({"id", "created", "system_fingerprint", "usage"})


async def rest(frames: AsyncGenerator[bytes], said: bytes) -> AsyncGenerator[bytes]:
    """What follows `said` in an answer that is generated anew, under the name that the answer has had so far.

    Raises:
        StreamInterrupted: this time it says something else.
    """
    before = chunks_of([said])
    own = {name: value for name, value in before[0].items() if name in ("id", "created")} if before else {}
    at = 0
    async for part in frames:
        new = []
        for chunk in chunks_of([part]):
            if at >= len(before):
                new.append(chunk | own)
            elif _content(chunk) != _content(before[at]):
                raise _other_words()
            at += 1
        if new:
            yield framed(new)
    if at < len(before):
        raise _other_words()


def _content(chunk: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chunk.items() if name not in _OWN}


def _other_words() -> StreamInterrupted:
    return StreamInterrupted("The answer broke off, and could not be continued in the same words. Please try again.")
