"""The semantic cache's part of the completion path: the answer to a question that asked the same in other words.

embedding of the last turn > the nearest questions > the guard > the exact cache's entry

What fails on the way is a miss, and for a while nothing is asked of it again.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence

from gateway.cache import thesaurus
from gateway.cache.entry import Entry
from gateway.cache.exact import ExactCache
from gateway.cache.guard import nearness
from gateway.cache.semantic import Asked, SemanticIndex
from gateway.completion.dispatch import Dispatch
from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.errors import GatewayError, NoReplica, UpstreamFailed
from gateway.metrics import Metrics
from gateway.redis_channel import RedisUnavailable
from gateway.redis_link import RedisLink
from gateway.routing.pool import Pool
from gateway.settings import Settings

log = logging.getLogger(__name__)

# How long an answer may be held up by its question's embedding.
EMBEDDING_S = 0.25
# After a failure nothing is asked for this long.
PAUSE_S = 5.0
# The guard knows questions; a longer turn brings material of its own.
MAX_CHARACTERS = 200


class Semantic:
    """
    Args:
        thresholds: of each chat model that has a semantic cache.
        pool: the replicas of a model, None for one that nobody serves.
    """

    def __init__(
        self,
        embeddings_model: str,
        thresholds: Mapping[str, float],
        index: SemanticIndex,
        cache: ExactCache,
        dispatch: Dispatch,
        pool: Callable[[str], Pool | None],
        metrics: Metrics,
    ) -> None:
        self.index = index
        self.cache = cache
        self._embeddings_model = embeddings_model
        self._thresholds = thresholds
        self._dispatch = dispatch
        self._pool = pool
        self._metrics = metrics
        self._paused_until = 0.0
        self._failing = ""

    @classmethod
    def of(
        cls,
        settings: Settings,
        link: RedisLink | None,
        cache: ExactCache,
        dispatch: Dispatch,
        pool: Callable[[str], Pool | None],
        metrics: Metrics,
    ) -> "Semantic | None":
        """As the operator wants it; None where it is off."""
        model, thresholds = settings.cache_embeddings_model, settings.cache_thresholds
        if model is None or not thresholds or link is None or not cache.on:
            return None
        thesaurus.load()  # once, before the workers fork
        index = SemanticIndex(link, settings.cache_ttl_s)
        return cls(model, thresholds, index, cache, dispatch, pool, metrics)

    def question(self, call: Call, context: RequestContext, revision: str) -> "Question | None":
        """The question of a chat, None where no other one's answer can do. `revision` is the chat model's."""
        threshold = self._thresholds.get(call.model)
        if threshold is None or call.endpoint is not Endpoint.CHAT:
            return None
        last = call.payload["messages"][-1]
        text = last.get("content")
        if last["role"] != "user" or not isinstance(text, str) or not 0 < len(text.strip()) <= MAX_CHARACTERS:
            return None
        return Question(self, Asked(context.tenant, call.endpoint, revision, call.payload), context, threshold)

    @property
    def paused(self) -> bool:
        return not self.cache.available or asyncio.get_running_loop().time() < self._paused_until

    async def embed(self, text: str, context: RequestContext) -> tuple[str, Sequence[float]]:
        """What makes the vectors (model, revision, dimensions), and the text's.

        Raises:
            GatewayError: there is none.
            TimeoutError: not in time.
        """
        model = self._embeddings_model
        pool = self._pool(model)
        # One that sleeps is not woken for this.
        if pool is None or not pool.replicas.get(Endpoint.EMBEDDINGS.task):
            raise NoReplica(f"The embeddings model '{model}' of the semantic cache has no replica.")
        call = Call.of(Endpoint.EMBEDDINGS, {"model": model, "input": text})
        async with asyncio.timeout(EMBEDDING_S):
            answer = await self._dispatch.begin(call, pool, context, None)
            try:
                body = await answer.json()
            finally:
                await answer.aclose()
        try:
            vector = [float(value) for value in body["data"][0]["embedding"]]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UpstreamFailed(f"The embeddings model '{model}' sent no embedding.") from error
        if not any(vector) or not all(map(math.isfinite, vector)):
            raise UpstreamFailed(f"The embeddings model '{model}' sent an embedding without a direction.")
        return f"{model} {pool.revision} {len(vector)}", vector

    def failed(self, reason: str) -> None:
        self._metrics.semantic_failures.inc()
        self._paused_until = asyncio.get_running_loop().time() + PAUSE_S
        if reason != self._failing:
            log.warning("the semantic cache is off: %s", reason)
        self._failing = reason

    def worked(self) -> None:
        if self._failing:
            log.info("the semantic cache is in use")
        self._failing = ""


class Question:
    """One request at the semantic cache."""

    def __init__(self, semantic: Semantic, asked: Asked, context: RequestContext, threshold: float) -> None:
        self._semantic = semantic
        self._asked = asked
        self._context = context
        self._threshold = threshold
        self._place: tuple[str, Sequence[float]] | None = None

    async def look_up(self, will_do: Callable[[Entry], bool]) -> Entry | None:
        """The kept answer to a question that asks the same, if there is one that will do."""
        semantic, asked = self._semantic, self._asked
        if semantic.paused:
            return None
        try:
            embedder, vector = await semantic.embed(asked.question, self._context)
            partition = asked.partition(embedder)
            found = await semantic.index.nearest(partition, vector)
        except TimeoutError:
            semantic.failed("the embeddings model did not answer in time")
            return None
        except RedisUnavailable as error:
            semantic.failed(_lacking(str(error)))
            return None
        except GatewayError as error:
            semantic.failed(str(error))
            return None
        semantic.worked()
        self._place = partition, vector
        for question, similarity in found:
            if similarity < self._threshold:
                break
            needed = nearness(asked.question, question, self._threshold)
            if needed is None or similarity < needed:
                continue
            entry = await self._entry(partition, question)
            if entry is not None and will_do(entry):
                return entry
        return None

    def keep(self) -> None:
        """Its answer is in the exact cache now."""
        if self._place is not None:
            self._semantic.index.add(*self._place, self._asked.question)

    async def _entry(self, partition: str, question: str) -> Entry | None:
        cache = self._semantic.cache
        key = self._asked.answer_key(question)
        found = await cache.read(key, cache.look_up(key, None))
        if found is None and cache.available:
            self._semantic.index.remove(partition, question)
        return found if isinstance(found, Entry) else None


def _lacking(error: str) -> str:
    if error.lower().startswith("err unknown command"):
        return "this Redis has no vector sets, which came with Redis 8"
    return error
