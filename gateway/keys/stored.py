"""API keys in Redis, for all gateways of a cluster.

    {llmgw}:keys          a hash: id to a key's record as JSON
    {llmgw}:keys:version  grows with every change
    {llmgw}:keys:changes  pub/sub: a word after every change

A record holds an HMAC-SHA256 of its key under the cluster's secret, never the key: who reads Redis cannot use what is
there, and who writes into it cannot make a key without the secret.
"""

import hmac
import secrets
import time
from collections.abc import Iterable

from pydantic import Field
from redis import Redis

from gateway.redis_cluster import TAG
from gateway.settings import Key

HASH, VERSION, CHANGES = f"{TAG}:keys", f"{TAG}:keys:version", f"{TAG}:keys:changes"
KEY_PREFIX = "sk-llmgw-"
_SHOWN = len(KEY_PREFIX) + 4


class UnknownKey(LookupError):
    """No stored key has this id or name; the message says so."""


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
    created_at: int
    replaced: dict[str, int] = Field(default_factory=dict)


def digest(key: bytes, secret: bytes) -> str:
    """A key as its record has it."""
    return f"hmac:{hmac.digest(secret, key, 'sha256').hex()}"


def parse(records: Iterable[bytes | str]) -> list[StoredKey]:
    """The keys of a hash's values; raises ValueError for one that is none."""
    return [StoredKey.model_validate_json(record) for record in records]


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
        if any((known.tenant, known.name) == (record.tenant, record.name) for known in self.list()):
            raise NameTaken(f"{record.tenant} has a key '{record.name}'; choose another name, or rotate that one")
        self._write(record)
        return record, key

    def list(self) -> "list[StoredKey]":
        """All keys, the oldest first."""
        return sorted(parse(self._redis.hvals(HASH)), key=lambda key: (key.created_at, key.id))

    def show(self, id_or_name: str) -> StoredKey:
        """Raises UnknownKey; a name that two tenants use is no name."""
        found = [key for key in self.list() if id_or_name in (key.id, key.name)]
        if len(found) != 1:
            several = f"{len(found)} keys are called '{id_or_name}'; give the id"
            raise UnknownKey(several if found else f"no key has the id or name '{id_or_name}'")
        return found[0]

    def revoke(self, id_or_name: str) -> StoredKey:
        """Ends a key, everywhere within a second. Raises UnknownKey."""
        record = self.show(id_or_name)
        self._commit("HDEL", record.id)
        return record

    def rotate(self, id_or_name: str, overlap_s: int) -> tuple[StoredKey, str]:
        """Gives a record a new key; the old one counts for `overlap_s` more. Raises UnknownKey."""
        record, key, now = self.show(id_or_name), new_key(), int(time.time())
        replaced = {old: until for old, until in record.replaced.items() if until > now}
        if overlap_s:
            replaced[record.hash] = now + overlap_s
        new = {"hash": digest(key.encode(), self._secret), "prefix": key[:_SHOWN], "replaced": replaced}
        record = record.model_copy(update=new)
        self._write(record)
        return record, key

    def _write(self, record: StoredKey) -> None:
        self._commit("HSET", record.id, record.model_dump_json(exclude_none=True))

    def _commit(self, command: str, *arguments: str) -> None:
        """One change of the hash, and the word of it."""
        with self._redis.pipeline(transaction=True) as transaction:
            transaction.execute_command(command, HASH, *arguments)  # type: ignore[no-untyped-call]
            transaction.incr(VERSION)
            transaction.publish(CHANGES, arguments[0])
            transaction.execute()


def new_key() -> str:
    """A key of 256 random bits."""
    return f"{KEY_PREFIX}{secrets.token_urlsafe(32)}"
