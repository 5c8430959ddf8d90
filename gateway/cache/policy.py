"""Whether an answer may come out of the cache, and whether it may go into it.

By itself the cache is for answers that come out the same again: temperature 0, a fixed seed, anything that is not
sampled. A key's policy and the request's `cache-control` go before that.
Source: https://www.rfc-editor.org/rfc/rfc9111#name-request-directives
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from gateway.context import CachePolicy
from gateway.errors import InvalidField


class Policy(NamedTuple):
    """
    Attributes:
        read: an answer may come out of it; a new one goes into it either way.
        max_age_s: how old one may be that comes out; None for as old as it may get.
    """

    read: bool
    max_age_s: int | None = None


FULL = Policy(read=True)


def policy(
    payload: Mapping[str, Any], *, sampled: bool, key: CachePolicy, cache_control: bytes | None
) -> Policy | None:
    """What the cache may do for a request; None where it has no part.

    Args:
        payload: the request's body.
        sampled: whether its endpoint draws tokens at random unless it is told otherwise.
        key: the policy of the caller's key.
        cache_control: the request's header.

    Raises:
        InvalidField: `max-age` is not a number of seconds.
    """
    if key == "never":
        return None
    # A seed of -1 is none: vLLM and llama.cpp draw one.
    fixed = payload.get("temperature") == 0 or payload.get("seed", -1) not in (-1, None)
    on = key == "always" or not sampled or fixed
    if cache_control is None:
        return FULL if on else None
    max_age_s = None
    directives = {directive.strip() for directive in cache_control.decode("latin-1").lower().split(",")}
    for directive in directives:
        name, _, value = directive.partition("=")
        if name == "max-age":
            max_age_s, on = _seconds(value), True
    if "no-store" in directives or not on:
        return None
    return Policy("no-cache" not in directives, max_age_s)


def _seconds(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise InvalidField("cache-control: max-age wants a number of seconds.", param="cache-control")
    return int(value)
