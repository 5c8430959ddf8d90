"""A Redis that knows no command, and says so as Redis does: with the arguments, of which one may be the password."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PASSWORD = "s3cret"


@asynccontextmanager
async def repeating_redis() -> AsyncIterator[str]:
    """Its URL, which has the password."""
    async with await asyncio.start_server(_repeats, "127.0.0.1", 0) as server:
        yield f"redis://user:{PASSWORD}@127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _repeats(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while sent := await reader.read(4096):
        writer.write(b"-ERR unknown command, with args beginning with: " + sent.replace(b"\r\n", b" ") + b"\r\n")
    writer.close()
