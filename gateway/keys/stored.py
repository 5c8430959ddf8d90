"""API keys in Redis, for all gateways of a cluster.

    {llmgw}:keys          a hash: id to a key's record as JSON
    {llmgw}:keys:version  another number with every change; a count comes to the same where a failover loses one
    {llmgw}:keys:changes  pub/sub: a word after every change

A record holds an HMAC-SHA256 of its key under the cluster's secret, never the key: who reads Redis cannot use what is
there, and who writes into it cannot make a key without the secret.
"""

import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from pydantic import Field, ValidationError
from redis import Redis
from redis.client import Pipeline

from gateway.redis_cluster import TAG
from gateway.redis_follower import text
from gateway.settings import Instant, Key

HASH, VERSION, CHANGES = f"{TAG}:keys", f"{TAG}:keys:version", f"{TAG}:keys:changes"
KEY_PREFIX = "sk-llmgw-"
_SHOWN = len(KEY_PREFIX) + 4


class UnknownKey(LookupError):
    """No stored key has this id or name, or its record cannot be read; the message says which."""


class KeyChanged(LookupError):
    """Somebody else has changed the key meanwhile; the message says what to do."""


class NameTaken(ValueError):
    """The tenant has a key of this name already."""


class StoredKey(Key):
    """
    Attributes:
        id: of the record.
        hash: `hmac:` and the hex digest.
        prefix: the key's first characters, to tell keys apart by.
        created_at: in seconds since the epoch.
        replaced: digests that count until a time (seconds since the epoch): of keys that were rotated.
    """

    id: str
    hash: str = Field(pattern=r"^hmac:[0-9a-f]{64}$")
    prefix: str
    created_at: Instant
    replaced: dict[str, Instant] = Field(default_factory=dict)


class Stored(NamedTuple):
    """
    Attributes:
        keys: the oldest first.
        unreadable: why a record is no key, by its id: a later version may have made it.
    """

    keys: list[StoredKey]
    unreadable: dict[str, str]


def digest(key: bytes, secret: bytes) -> str:
    """A key as its record has it."""
    return f"hmac:{hmac.digest(secret, key, 'sha256').hex()}"


def parse(records: Mapping[bytes | str, bytes | str]) -> Stored:
    """What the hash of the keys holds."""
    keys: list[StoredKey] = []
    unreadable: dict[str, str] = {}
    for id_, record in records.items():
        try:
            keys.append(StoredKey.model_validate_json(record))
        except ValidationError as error:
            unreadable[text(id_)] = reason(error)
    return Stored(sorted(keys, key=lambda key: (key.created_at, key.id)), unreadable)


def reason(error: ValidationError) -> str:
    """The first field that is wrong, and why, without what it says."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join([*map(str, first["loc"][:1]), first["msg"]])


class KeyStore:
    """Makes, shows and ends keys.

    Args:
        secret: the cluster's key secret.
    """

    def __init__(self, redis: Redis, secret: bytes) -> None:
        self._redis = redis
        self._secret = secret

    def create(self, **fields: object) -> tuple[StoredKey, str]:
        """Stores a new key of these fields (see Key); returns its record, and the key itself, which nobody keeps.

        Raises:
            NameTaken: see there.
            ValidationError: a field is wrong.
        """
        key = new_key()
        record = StoredKey.model_validate(
            {
                **fields,
                "id": f"k-{secrets.token_hex(4)}",
                "hash": digest(key.encode(), self._secret),
                "prefix": key[:_SHOWN],
                "created_at": int(time.time()),
            }
        )

        def name_is_free(stored: Stored) -> None:
            if any((known.tenant, known.name) == (record.tenant, record.name) for known in stored.keys):
                raise NameTaken(f"{record.tenant} has a key '{record.name}'; choose another name, or rotate that one")

        self._write(record, name_is_free)
        return record, key

    def read(self) -> Stored:
        return self._read(self._redis)

    def show(self, id_or_name: str) -> StoredKey:
        """Raises UnknownKey; a name that two tenants use is no name."""
        stored = self.read()
        if id_or_name in stored.unreadable:
            raise UnknownKey(f"the record '{id_or_name}' cannot be read: {stored.unreadable[id_or_name]}")
        found = [key for key in stored.keys if id_or_name in (key.id, key.name)]
        if len(found) != 1:
            several = f"{len(found)} keys are called '{id_or_name}'; give the id"
            raise UnknownKey(several if found else f"no key has the id or name '{id_or_name}'")
        return found[0]

    def revoke(self, id_or_name: str) -> str:
        """Ends a key, everywhere within a second, also one that cannot be read; returns its id. Raises UnknownKey."""
        id_ = id_or_name if id_or_name in self.read().unreadable else self.show(id_or_name).id
        self._commit("HDEL", id_)
        return id_

    def rotate(self, id_or_name: str, overlap_s: int) -> tuple[StoredKey, str]:
        """Gives a record a new key; the old one counts for `overlap_s` more. Raises UnknownKey and KeyChanged."""
        record, key, now = self.show(id_or_name), new_key(), int(time.time())
        replaced = {old: until for old, until in record.replaced.items() if until > now}
        if overlap_s:
            replaced[record.hash] = now + overlap_s
        new = {"hash": digest(key.encode(), self._secret), "prefix": key[:_SHOWN], "replaced": replaced}

        def is_the_same(stored: Stored) -> None:
            if record not in stored.keys:
                raise KeyChanged(f"'{id_or_name}' was changed or revoked meanwhile; look at it, and try again")

        rotated = record.model_copy(update=new)
        self._write(rotated, is_the_same)
        return rotated, key

    def _read(self, redis: Redis) -> Stored:
        return parse(redis.hgetall(HASH))

    def _write(self, record: StoredKey, check: Callable[[Stored], None]) -> None:
        self._commit("HSET", record.id, record.model_dump_json(exclude_none=True), check=check)

    def _commit(self, command: str, *arguments: str, check: Callable[[Stored], None] | None = None) -> None:
        """One change of the hash, and the word of it; of what is there when it is changed, `check` raises."""

        def change(transaction: Pipeline) -> None:
            if check is not None:
                check(self._read(transaction))
            transaction.multi()
            transaction.execute_command(command, HASH, *arguments)  # type: ignore[no-untyped-call]
            transaction.set(VERSION, secrets.randbits(62))
            transaction.publish(CHANGES, arguments[0])

        self._redis.transaction(change, HASH)


def new_key() -> str:
    """A key of 256 random bits."""
    return f"{KEY_PREFIX}{secrets.token_urlsafe(32)}"
