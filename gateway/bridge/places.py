"""How many answers one request has open at once: what runs model calls side by side keeps to what its key may have.

Without that a key with a `concurrency` could never get through a batch, or through a text in many parts: the request
would use up its own key's places and be refused for it, however often it is sent.
"""

import asyncio
import contextvars

from gateway.context import current

# How many runs of the request share its places.
_runs: contextvars.ContextVar[int] = contextvars.ContextVar("llmgw_runs", default=1)


def at_once(most: int) -> int:
    """Of up to `most` model calls, how many may be made at once; at least one."""
    quota = current.get().quota
    if quota is None or not quota.concurrency:
        return most
    return max(min(most, quota.concurrency // _runs.get()), 1)


def divided(runs: int) -> asyncio.Semaphore:
    """Places for so many runs of this request, each of which gets its part of what is left."""
    side_by_side = at_once(runs)
    _runs.set(side_by_side)
    return asyncio.Semaphore(side_by_side)
