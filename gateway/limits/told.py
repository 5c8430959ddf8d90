"""What an answer tells of its key's limits, in OpenAI's headers and OpenAI's form.

Source: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
"""

from functools import lru_cache

Headers = tuple[tuple[bytes, bytes], ...]


class Told:
    """What all answers tell of one limit.

    Args:
        what: is limited: `requests`, `tokens`, `concurrency`.
        limit: how many there are when none is taken.
    """

    __slots__ = ("_reset", "limit", "remaining")

    def __init__(self, what: bytes, limit: int) -> None:
        self.limit = (b"x-ratelimit-limit-" + what, b"%d" % limit)
        self.remaining = b"x-ratelimit-remaining-" + what
        self._reset = b"x-ratelimit-reset-" + what

    def reset(self, full_in_ms: int) -> tuple[bytes, bytes]:
        return (self._reset, duration(full_in_ms))

    def headers(self, remaining: int, full_in_ms: int) -> Headers:
        """
        Args:
            remaining: how many are left.
            full_in_ms: until all of them are there again.
        """
        return (self.limit, (self.remaining, b"%d" % remaining), self.reset(full_in_ms))


@lru_cache(maxsize=1024)
def told(what: bytes, limit: int) -> Told:
    """Few limits are told again and again."""
    return Told(what, limit)


@lru_cache(maxsize=2048)  # just granted ones are full again after 60 to 61 seconds
def duration(ms: int) -> bytes:
    """As Go writes one: `120ms`, `1s`, `7.66s`, `6m0s`, `1h0m30s`."""
    if 0 < ms < 1000:
        return b"%dms" % ms
    if ms < 60_000:
        return b"%gs" % (ms / 1000)
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return (b"%dh" % hours if hours else b"") + b"%dm%gs" % (minutes, ms / 1000)
