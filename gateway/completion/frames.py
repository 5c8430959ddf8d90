"""The asynchronous generators of the answers: what one gives, as it comes.

They stand apart from the answers, since mypyc compiles those and cannot compile these. They know of an answer what they
are given of it.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from gateway.errors import DeadlineExceeded, GatewayError, UpstreamFailed

# What ends a stream that another replica may go on with.
BROKEN = (UpstreamFailed, DeadlineExceeded)


async def resumed(
    frames: AsyncGenerator[bytes], resume: Callable[[GatewayError], Awaitable[AsyncGenerator[bytes]]]
) -> AsyncGenerator[bytes]:
    """The frames, and whenever they break off those that `resume` goes on with; it raises what it cannot mend."""
    while True:
        try:
            async with aclosing(frames):
                async for some in frames:
                    yield some
            return
        except BROKEN as error:
            failure = error
        frames = await resume(failure)


async def continued(frames: AsyncGenerator[bytes], said: list[bytes]) -> AsyncGenerator[bytes]:
    """What another replica goes on with, added to what was `said`; a comment before it tells so."""
    yield b": llmgw-resumed\n\n"
    async with aclosing(frames):
        async for some in frames:
            said.append(some)
            yield some
