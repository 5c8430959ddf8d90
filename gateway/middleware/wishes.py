"""What a request asks for in headers of its own: how it is routed, how urgent it is, and how long it may take.

    x-llmgw-policy       a routing policy, where the key may name it
    x-llmgw-priority     interactive or batch; never more than the key may have
    x-llmgw-timeout-ms   milliseconds after which it is given up; can only shorten the gateway's own times
    x-session-id         requests of one session go to one replica, if that can be

Nearly no request has one, and what a request without them pays is one look.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import cast, get_args

from gateway.context import SESSION_ID, Priority, RequestContext, RoutingPolicy
from gateway.errors import InvalidField, PermissionDenied
from gateway.settings import Key

_POLICY, _PRIORITY, _TIMEOUT, _SESSION = "x-llmgw-policy", "x-llmgw-priority", "x-llmgw-timeout-ms", "x-session-id"
_HEADERS = frozenset({_POLICY.encode(), _PRIORITY.encode(), _TIMEOUT.encode(), _SESSION.encode()})
# Eleven days and a half.
_MAX_TIMEOUT_DIGITS = 9


def with_wishes(context: RequestContext, key: Key | None, fields: Mapping[bytes, bytes]) -> RequestContext:
    """The context with what the request asks for.

    Args:
        key: None where none is needed: who is let in without one may ask for everything.
        fields: the request's headers.

    Raises:
        InvalidField: a header does not say what it should.
        PermissionDenied: the key does not allow it.
    """
    if fields.keys().isdisjoint(_HEADERS):
        return context
    return replace(
        context,
        policy=_policy(_said(fields, _POLICY), key),
        priority=_priority(_said(fields, _PRIORITY), context.priority),
        session=_session(_said(fields, _SESSION)),
        until=_until(_said(fields, _TIMEOUT)),
    )


def _said(fields: Mapping[bytes, bytes], header: str) -> str | None:
    value = fields.get(header.encode())
    return None if value is None else value.decode("latin-1")


def _policy(name: str | None, key: Key | None) -> str | None:
    if name is None:
        return None
    _check_one_of(name, get_args(RoutingPolicy), _POLICY)
    if key is not None and name not in key.policies:
        raise PermissionDenied(f"This key may not name the routing policy '{name}'; leave {_POLICY} out.")
    return name


def _priority(name: str | None, highest: Priority) -> Priority:
    if name is None:
        return highest
    _check_one_of(name, get_args(Priority), _PRIORITY)
    if highest == "batch" and name != "batch":
        raise PermissionDenied(f"This key's requests have the priority 'batch'; leave {_PRIORITY} out.")
    return cast(Priority, name)


def _session(name: str | None) -> str | None:
    if name is not None and not SESSION_ID.fullmatch(name):
        raise InvalidField(f"{_SESSION} wants 1 to 128 letters, digits or any of `._:@-`.", param=_SESSION)
    return name


def _until(milliseconds: str | None) -> float | None:
    if milliseconds is None:
        return None
    known = milliseconds.isascii() and milliseconds.isdigit() and len(milliseconds) <= _MAX_TIMEOUT_DIGITS
    if not known or not int(milliseconds):
        raise InvalidField(f"{_TIMEOUT} wants a number of milliseconds above 0.", param=_TIMEOUT)
    return time.monotonic() + int(milliseconds) / 1000


def _check_one_of(value: str, known: tuple[str, ...], header: str) -> None:
    if value not in known:
        raise InvalidField(f"{header} wants one of {', '.join(known)}.", param=header)
