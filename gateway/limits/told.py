"""What an answer tells of its key's limits, in OpenAI's headers and OpenAI's form.

Source: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
"""

from math import ceil

Headers = tuple[tuple[bytes, bytes], ...]

_NAMES = {
    what: (b"x-ratelimit-limit-" + what, b"x-ratelimit-remaining-" + what, b"x-ratelimit-reset-" + what)
    for what in (b"requests", b"tokens", b"concurrency")
}


def told(what: bytes, limit: int, remaining: float, full_in_us: float) -> Headers:
    """
    Args:
        what: is limited: `requests`, `tokens`, `concurrency`.
        limit: how many there are when none is taken.
        remaining: how many are left; of a part, all but a rounding error is not told.
        full_in_us: microseconds until all of them are there again.
    """
    limit_name, remaining_name, reset_name = _NAMES[what]
    return (
        (limit_name, b"%d" % limit),
        (remaining_name, b"%d" % (remaining + 1e-6)),
        (reset_name, duration(full_in_us)),
    )


def duration(us: float) -> bytes:
    """As Go writes one: `120ms`, `1s`, `7.66s`, `6m0s`, `1h0m30s`; rounded up to milliseconds."""
    ms = ceil(us / 1000)
    if 0 < ms < 1000:
        return b"%dms" % ms
    if ms < 60_000:
        return b"%gs" % (ms / 1000)
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    return (b"%dh" % hours if hours else b"") + b"%dm%gs" % (minutes, ms / 1000)
