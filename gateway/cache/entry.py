"""An answer as the cache keeps it: the engine's bytes, whole or as the frames of a stream with their times.

1 byte    version of this form
1 byte    1 when the rest is compressed, by Zstandard
16 bytes  XXH3 of the entry's own key and the rest: a damaged or moved entry does not verify. Who may write to Redis may
          write entries, whatever they are signed with: only a secret would be in the way
a line    JSON: {"at", "usage"}, and of a stream "parts": [[milliseconds since the first, bytes], ...]
the rest  the whole answer, or the parts one after the other
"""

import time

import orjson
import xxhash
import zstandard

VERSION = 3
DIGEST_BYTES = 16
_HEAD_BYTES = 2 + DIGEST_BYTES
# Below this compressing saves less than it costs.
_COMPRESS_FROM = 1024
_COMPRESSOR = zstandard.ZstdCompressor(level=1)
_DECOMPRESSOR = zstandard.ZstdDecompressor()


class BadEntry(ValueError):
    """The bytes are no entry of this version, or not the one of this key."""


class Entry:
    """
    Attributes:
        at: when it was stored, in seconds since the epoch.
        usage: whether it says what was used; a whole answer always does.
        parts: the frames of a stream, each with the milliseconds since the first; empty for a whole answer.
        whole: the body of a whole answer.
    """

    __slots__ = ("at", "parts", "usage", "whole")

    def __init__(self, at: int, usage: bool, parts: list[tuple[int, bytes]], whole: bytes = b"") -> None:
        self.at = at
        self.usage = usage
        self.parts = parts
        self.whole = whole

    @property
    def age_s(self) -> int:
        return max(0, int(time.time()) - self.at)


def encode(entry: Entry, key: str) -> bytes:
    """Raises UnicodeDecodeError when the answer is not UTF-8."""
    fields: dict[str, object] = {"at": entry.at, "usage": entry.usage}
    answer = entry.whole
    if not answer:
        fields["parts"] = [(at_ms, len(part)) for at_ms, part in entry.parts]
        answer = b"".join([part for _, part in entry.parts])
    if not answer.isascii():
        answer.decode()
    body = b"%b\n%b" % (orjson.dumps(fields), answer)
    compressed = len(body) >= _COMPRESS_FROM
    if compressed:
        body = _COMPRESSOR.compress(body)
    return b"%c%c%b%b" % (VERSION, compressed, _digest(body, key), body)


def decode(data: bytes, key: str, max_bytes: int) -> Entry:
    """
    Args:
        max_bytes: how much the body may be, decompressed.

    Raises:
        BadEntry: see there.
    """
    body = data[_HEAD_BYTES:]
    if data[:1] != bytes((VERSION,)) or data[2:_HEAD_BYTES] != _digest(body, key):
        raise BadEntry("not an entry of this version and key")
    try:
        if data[1]:
            if zstandard.frame_content_size(body) > max_bytes:
                raise BadEntry("larger than an entry may be")
            body = _DECOMPRESSOR.decompress(body, max_bytes)
        head, _, answer = body.partition(b"\n")
        fields = orjson.loads(head)
        at, usage, lengths = int(fields["at"]), bool(fields["usage"]), fields.get("parts")
        return Entry(at, usage, [], answer) if lengths is None else Entry(at, usage, _parts(lengths, answer))
    except (zstandard.ZstdError, orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadEntry(f"not readable: {error}") from error


def _parts(lengths: list[list[int]], answer: bytes) -> list[tuple[int, bytes]]:
    parts, begin = [], 0
    for at_ms, length in lengths:
        parts.append((int(at_ms), answer[begin : begin + length]))
        begin += length
    return parts


def _digest(body: bytes, key: str) -> bytes:
    return xxhash.xxh3_128_digest(key.encode() + body)
