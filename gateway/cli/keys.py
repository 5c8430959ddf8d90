"""`llmgw keys`: API keys in the cluster's Redis, and entries for the cluster file."""

import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError
from redis.exceptions import RedisError

from gateway import redis_address
from gateway.cli.tables import table
from gateway.keys.stored import KeyChanged, KeyStore, NameTaken, Stored, StoredKey, UnknownKey, new_key, reason
from gateway.settings import ConfigError, Key, Settings

_SECRET_FILE, _REDIS_FILE = "key-secret", "redis-url"
_MOST_DAYS = 36500
_COLUMNS = ("id", "name", "tenant", "key", "created", "expires")


def secret(settings: Settings) -> str:
    """The cluster's key secret: as configured, or this home's own, which is made when there is none."""
    if settings.key_secret is not None:
        return settings.key_secret.get_secret_value()
    file = settings.home / _SECRET_FILE
    if not file.exists():
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
    return file.read_text()


@contextmanager
def announced(settings: Settings, redis_url: str) -> Iterator[None]:
    """While the context lasts, `llmgw keys` finds the Redis of this home."""
    file = settings.home / _REDIS_FILE
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(redis_url)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def redis_url(settings: Settings) -> str:
    """Of the cluster's Redis. Raises ConfigError when there is none."""
    file = settings.home / _REDIS_FILE
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    if file.exists():
        return file.read_text()
    raise ConfigError("there is no Redis: start `llmgw up` from this folder, or set LLMGW_REDIS_URL")


@contextmanager
def store(config: Path | None) -> Iterator[KeyStore]:
    """The keys of the cluster that the settings name, or of the `llmgw up` that runs from this home.

    Raises:
        ConfigError: there is none, or Redis, an id or a field is wrong; one line.
    """
    settings = Settings.load(config=config)
    url = redis_url(settings)
    if settings.redis_url is not None and settings.key_secret is None:
        raise ConfigError("LLMGW_KEY_SECRET is not set; give it the same random text as the gateways have")
    try:
        with _readable(), redis_address.blocking_client(url, timeout_s=5) as redis:
            yield KeyStore(redis, secret(settings).encode())
    except RedisError as error:
        raise ConfigError(f"Redis does not do it: {redis_address.explain(url, error)}") from error
    except (KeyChanged, NameTaken, UnknownKey) as error:
        raise ConfigError(str(error)) from error


@contextmanager
def _readable() -> Iterator[None]:
    """A wrong field as one line."""
    try:
        yield
    except ValidationError as error:
        raise ConfigError(reason(error)) from error


def expiry(days: float | None) -> int | None:
    """That many days from now, in seconds since the epoch. Raises ConfigError for what is none, or a century's."""
    if days is None:
        return None
    if not 0 <= days <= _MOST_DAYS:
        raise ConfigError(f"days: Input should be from 0 to {_MOST_DAYS}")
    return int(time.time() + days * 86400)


def file_entry(fields: Mapping[str, object]) -> str:
    """A new key, and its entry for the cluster file. Raises ConfigError for a field that is wrong."""
    key = new_key()
    entry = {**fields, "hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"}
    with _readable():
        Key.model_validate(entry)
    return f"key (shown only now): {key}\n\nadd to the cluster file:\n\ngateway:\n  keys:\n    - {json.dumps(entry)}"


def show_new(record: StoredKey, key: str) -> str:
    return f"{record.id} ({record.name} of {record.tenant})\nkey (shown only now): {key}"


def show(record: StoredKey) -> str:
    """All that is known of a key, as JSON; its digests are nobody's business."""
    return json.dumps(record.model_dump(mode="json", exclude_none=True, exclude={"hash", "replaced"}), indent=2)


def listing(records: Sequence[StoredKey]) -> str:
    rows = [
        (key.id, key.name, key.tenant, f"{key.prefix}…", _day(key.created_at), _day(key.expires_at)) for key in records
    ]
    return table(_COLUMNS, rows)


def complaints(stored: Stored) -> Iterator[str]:
    """A line for each record that cannot be read."""
    for id_, why in stored.unreadable.items():
        yield f"llmgw: the record {id_!r} cannot be read and opens nothing: {why}"


def _day(at: int | None) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M") if at is not None else "never"
