"""The semantic cache's index: which questions were asked already, by their meaning.

    {llmgw}:semantic:<SHA-256 of tenant, endpoint, models and all of the request but its last question>

Each is a Redis vector set whose elements are the questions themselves. The answers stay where the exact cache has them:
a question that takes the place of the one that is asked gives the key of its answer. So no element can lead to an
answer of another tenant, model or conversation, and one whose answer is gone leads nowhere.
Source: https://redis.io/docs/latest/develop/data-types/vector-sets/
"""

import asyncio
import logging
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.cache.exact import cache_key
from gateway.redis_channel import RedisUnavailable
from gateway.redis_cluster import TAG
from gateway.redis_link import RedisLink

log = logging.getLogger(__name__)

# Of one set. Beyond it any element goes for a new one.
MAX_QUESTIONS = 10_000
# How many are looked at: the nearest ones may be false friends of the one that would do.
NEAREST = 8
# In one step, so that no set outlives its answers or grows beyond its bound.
_ADD = """\
redis.call('VADD', KEYS[1], 'FP32', ARGV[1], ARGV[2])
if redis.call('VCARD', KEYS[1]) > tonumber(ARGV[3]) then
  redis.call('VREM', KEYS[1], redis.call('VRANDMEMBER', KEYS[1]))
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
"""


class Near(NamedTuple):
    """A question that was asked, and its cosine similarity to the one that is."""

    question: str
    similarity: float


class Asked:
    """The place of one request in the index.

    Attributes:
        question: its last turn.
    """

    def __init__(self, tenant: str, endpoint: str, revision: str, payload: Mapping[str, Any]) -> None:
        self.question: str = payload["messages"][-1]["content"]
        self._of = (tenant, endpoint, revision)
        self._payload = payload

    def partition(self, embedder: str) -> str:
        """The set of all requests that differ from this one in their last question only; `embedder` makes vectors."""
        tenant, endpoint, revision = self._of
        key = cache_key(tenant, endpoint, f"{revision} {embedder}", self._with(""))
        return f"{TAG}:semantic:{key.rpartition(':')[2]}"

    def answer_key(self, question: str) -> str:
        """Where the exact cache has the answer to the same request with this question."""
        return cache_key(*self._of, self._with(question))

    def _with(self, question: str) -> dict[str, Any]:
        *before, last = self._payload["messages"]
        return {**self._payload, "messages": [*before, {**last, "content": question}]}


class SemanticIndex:
    """
    Args:
        ttl_s: how long a set lasts after its last question.
    """

    def __init__(self, link: RedisLink, ttl_s: int) -> None:
        self._link = link
        self._ttl_s = ttl_s

    async def nearest(self, partition: str, vector: Sequence[float]) -> list[Near]:
        """The questions that are most alike, the nearest first.

        Raises:
            RedisUnavailable: there is no Redis, or it has no vector sets (before Redis 8, and Valkey).
        """
        found = await self._link.call("VSIM", partition, "FP32", _packed(vector), "WITHSCORES", "COUNT", NEAREST)
        # Redis' score is (1 + cosine) / 2.
        scored = zip(found[::2], found[1::2], strict=True)
        return [Near(question.decode(), 2 * float(score) - 1) for question, score in scored]

    def add(self, partition: str, vector: Sequence[float], question: str) -> None:
        """Adds a question, without waiting for Redis."""
        self._send("EVAL", _ADD, 1, partition, _packed(vector), question, MAX_QUESTIONS, self._ttl_s)

    def remove(self, partition: str, question: str) -> None:
        """Removes a question whose answer is gone, without waiting for Redis."""
        self._send("VREM", partition, question)

    def _send(self, *command: bytes | str | int) -> None:
        try:
            self._link.call(*command).add_done_callback(_sent)
        except RedisUnavailable as error:
            log.info("the semantic cache was not written: %s", error)


def _packed(vector: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(vector)}f", *vector)


def _sent(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled() and (error := future.exception()):
        log.info("the semantic cache was not written: %s", error)
