import asyncio
import time
from collections.abc import Awaitable, Callable


async def eventually(condition: Callable[[], object | Awaitable[object]], within: float = 15) -> None:
    """Wait until the condition holds; `within` (seconds) is generous, for a machine that is busy."""
    deadline = time.monotonic() + within
    while True:
        holds = condition()
        if isinstance(holds, Awaitable):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, f"not so after {within} s"
        await asyncio.sleep(0.05)
