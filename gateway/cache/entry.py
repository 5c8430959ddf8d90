"""An answer as the cache keeps it: the engine's bytes, whole or as the frames of a stream with their times.

1 byte    version of this form
1 byte    1 when the rest is deflated
16 bytes  BLAKE2b of the body, keyed with the entry's own key: a changed or moved entry does not verify
body      JSON: {"at", "usage", "parts": [[milliseconds since the first, text], ...] or "whole": text}
"""

import hashlib
import time
import zlib
from typing import NamedTuple

import orjson

VERSION = 1
DIGEST_BYTES = 16
_HEAD_BYTES = 2 + DIGEST_BYTES
# Below this deflating saves less than it costs.
_DEFLATE_FROM = 1024


class BadEntry(ValueError):
    """The bytes are no entry of this version, or not the one of this key."""


class Entry(NamedTuple):
    """
    Attributes:
        at: when it was stored, in seconds since the epoch.
        usage: whether it says what was used; a whole answer always does.
        parts: the frames of a stream, each with the milliseconds since the first; empty for a whole answer.
        whole: the body of a whole answer.
    """

    at: int
    usage: bool
    parts: list[tuple[int, bytes]]
    whole: bytes = b""

    @property
    def age_s(self) -> int:
        return max(0, int(time.time()) - self.at)


def encode(entry: Entry, key: str) -> bytes:
    """Raises ValueError when the answer is not UTF-8."""
    fields = {"at": entry.at, "usage": entry.usage}
    if entry.whole:
        body = orjson.dumps(fields | {"whole": entry.whole.decode()})
    else:
        body = orjson.dumps(fields | {"parts": [[at_ms, part.decode()] for at_ms, part in entry.parts]})
    deflated = len(body) >= _DEFLATE_FROM
    if deflated:
        body = zlib.compress(body, 1)
    return bytes((VERSION, deflated)) + _digest(body, key) + body


def decode(data: bytes, key: str, max_bytes: int) -> Entry:
    """
    Args:
        max_bytes: how much the body may inflate to.

    Raises:
        BadEntry: see there.
    """
    body = data[_HEAD_BYTES:]
    if data[:1] != bytes((VERSION,)) or data[2:_HEAD_BYTES] != _digest(body, key):
        raise BadEntry("not an entry of this version and key")
    try:
        if data[1]:
            inflater = zlib.decompressobj()
            body = inflater.decompress(body, max_bytes)
            if not inflater.eof:
                raise BadEntry("larger than an entry may be")
        fields = orjson.loads(body)
        parts = [(int(at_ms), text.encode()) for at_ms, text in fields.get("parts", ())]
        return Entry(int(fields["at"]), bool(fields["usage"]), parts, fields.get("whole", "").encode())
    except (zlib.error, orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadEntry(f"not readable: {error}") from error


def _digest(body: bytes, key: str) -> bytes:
    return hashlib.blake2b(body, key=key.encode()[-64:], digest_size=DIGEST_BYTES).digest()
