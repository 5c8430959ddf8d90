"""What was said in a session: kept in Redis, by tenant, for every worker of every gateway.

    {llmgw}:session:<tenant's digest>:<id's digest>   a list: the session's turns, the oldest first, each JSON
    {llmgw}:sessions:<tenant's digest>                a sorted set: the tenant's ids by the second at which they end

A session is bounded in turns and bytes, and ends when nothing is said for a while. Without Redis nothing is remembered
and nothing pretends to be: whoever asks for a session is told.
"""

import hashlib
import time
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import orjson

from gateway.context import SESSION_ID
from gateway.errors import InvalidField, SessionNotFound, SessionsUnavailable, TooManySessions
from gateway.redis_channel import Argument, RedisUnavailable
from gateway.redis_cluster import TAG
from gateway.redis_link import RedisLink
from gateway.redis_script import Script

MAX_BYTES = 256 * 1024
MAX_SESSIONS = 10_000


def _script(name: str) -> Script:
    folder = resources.files("gateway.sessions")
    return Script("\n".join(folder.joinpath(f"{part}.lua").read_text() for part in ("room", name)))


_OPEN, _APPEND = _script("open"), _script("append")
_DELETE = Script("redis.call('ZREM', KEYS[2], ARGV[1]) return redis.call('DEL', KEYS[1])")


class Turn(NamedTuple):
    """What the user said, and what was answered."""

    question: str
    answer: str


class SessionEntry(NamedTuple):
    """
    Attributes:
        expires_at: when it ends unless something is said, in seconds since the epoch.
    """

    id: str
    expires_at: int


class Sessions:
    """Every method raises InvalidField for an id that is none, and SessionsUnavailable where Redis does not do it.

    Args:
        link: None where there is no Redis.
        ttl_s: how long a session is kept after its last turn.
        max_messages: of one session; a turn has two.
    """

    def __init__(self, link: RedisLink | None, ttl_s: int, max_messages: int) -> None:
        self._link = link
        self._ttl_s = ttl_s
        self._max_turns = max_messages // 2

    async def open(self, tenant: str, id_: str) -> list[Turn]:
        """What was said so far, the oldest first; nothing of a new session. Raises TooManySessions."""
        turns = await self._ask(_OPEN, _keys(tenant, id_), MAX_SESSIONS)
        if turns is None:
            raise _too_many()
        return [Turn(*orjson.loads(turn)) for turn in turns]

    async def add(self, tenant: str, id_: str, turn: Turn) -> None:
        """Adds a turn; the oldest ones go where there are too many. Raises TooManySessions, as the first one may."""
        arguments = MAX_SESSIONS, orjson.dumps([*turn]), id_, self._max_turns, MAX_BYTES, self._ttl_s
        if await self._ask(_APPEND, _keys(tenant, id_), *arguments) is None:
            raise _too_many()

    async def read(self, tenant: str, id_: str) -> list[Turn]:
        """Raises SessionNotFound."""
        turns = await self._ask("LRANGE", _keys(tenant, id_)[:1], 0, -1)
        if not turns:
            raise _not_found(id_)
        return [Turn(*orjson.loads(turn)) for turn in turns]

    async def list(self, tenant: str) -> "list[SessionEntry]":
        """The tenant's sessions; those come first that end first."""
        index = _index(tenant)
        found = await self._ask("ZRANGEBYSCORE", [index], int(time.time()), "+inf", "WITHSCORES")
        return [SessionEntry(id_.decode(), int(at)) for id_, at in zip(found[::2], found[1::2], strict=True)]

    async def delete(self, tenant: str, id_: str) -> None:
        """Raises SessionNotFound."""
        if not await self._ask(_DELETE, _keys(tenant, id_), id_):
            raise _not_found(id_)

    async def _ask(self, what: Script | str, keys: Sequence[str], *arguments: Argument) -> Any:
        if self._link is None:
            raise SessionsUnavailable("This gateway has no Redis and keeps no sessions; send the history yourself.")
        try:
            if isinstance(what, Script):
                return await self._link.evaluate(what, keys, *arguments)
            return await self._link.call(what, *keys, *arguments)
        except RedisUnavailable as error:
            raise SessionsUnavailable(
                "Redis cannot tell at the moment what was said. Please try again soon."
            ) from error


def _keys(tenant: str, id_: str) -> tuple[str, str]:
    """Of a session, and of the list of all."""
    if not SESSION_ID.fullmatch(id_):
        raise InvalidField("A session id has 1 to 128 letters, digits or any of `._:@-`.", param="session_id")
    return f"{TAG}:session:{_digest(tenant)}:{_digest(id_)}", _index(tenant)


def _index(tenant: str) -> str:
    return f"{TAG}:sessions:{_digest(tenant)}"


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _too_many() -> TooManySessions:
    return TooManySessions(f"There are {MAX_SESSIONS} sessions already; end some with DELETE /sessions/<id>.")


def _not_found(id_: str) -> SessionNotFound:
    return SessionNotFound(f"There is no session '{id_}'; GET /sessions lists yours.", param="session_id")
