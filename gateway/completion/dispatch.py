"""The last step of the completion path: an engine is chosen and asked, another one where it does not answer.

arrivals > admission > routing > upstream; other replicas first, then the same again, and other models last
"""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from functools import partial
from time import monotonic

from gateway.completion.admission import Admission
from gateway.completion.answer import MAX_BODY_BYTES, Answer, EngineAnswer, whole
from gateway.completion.cache_salt import cache_salt
from gateway.completion.errand import Errand
from gateway.completion.fallbacks import Fallbacks
from gateway.completion.refusal import later, pause_s, refusal
from gateway.completion.request import Call
from gateway.completion.resumable import ResumableAnswer
from gateway.completion.retries import Pauses, RuleBook, Rules, backoff_s
from gateway.context import RequestContext
from gateway.errors import DeadlineExceeded, GatewayError, NoReplica, ReplicaUnreachable, UpstreamBusy
from gateway.limits.usage import Ended, of_model
from gateway.metrics import Metrics
from gateway.routing.arrivals import Arrivals
from gateway.routing.pool import Pool
from gateway.routing.replica import Replica
from gateway.routing.router import Router
from gateway.upstream.client import UpstreamClient

log = logging.getLogger(__name__)

# A replica that wants to be asked later than that is not waited for: its client hears when to come back.
_LONGEST_PAUSE_S = 5.0
_ONE_ATTEMPT = (b"x-llmgw-attempts", b"1")


class Dispatch:
    """
    Args:
        rules: how patient to be with a model.
        fallbacks: the models that stand in for others.
    """

    def __init__(
        self,
        arrivals: Arrivals,
        admission: Admission,
        router: Router,
        client: UpstreamClient,
        rules: RuleBook,
        fallbacks: Fallbacks,
        metrics: Metrics,
    ) -> None:
        self._arrivals = arrivals
        self._admission = admission
        self._router = router
        self._client = client
        self._rules = rules
        self._fallbacks = fallbacks
        self._pauses = Pauses()
        self._metrics = metrics

    def begin(self, call: Call, pool: Pool, context: RequestContext, ended: Ended | None) -> Awaitable[Answer]:
        """The first answer that a replica begins, of this model or of one that stands in for it."""
        rules = self._rules.of(pool.model)
        rules.budget.earn()
        errand = Errand(call, context, rules.timeouts.total, pool.revision)
        first = self._first(pool, rules, errand, ended)
        return self._or_another(first, pool, errand, ended) if rules.fallbacks else first

    async def _or_another(self, first: Awaitable[Answer], pool: Pool, errand: Errand, ended: Ended | None) -> Answer:
        """The model's answer, or that of the first of its fallbacks that has one."""
        try:
            return await first
        except GatewayError as error:
            if not errand.next_model(error):
                raise
            failure = error
        for other in self._fallbacks.of(pool, errand.call, errand.context, failure):
            try:
                answer = await self._first(other, self._rules.of(other.model), errand, ended)
            except GatewayError as error:
                if not errand.next_model(error):
                    raise
            else:
                self._metrics.fallbacks.labels(pool.model, other.model).inc()
                return answer
        raise errand.told(failure)

    async def _first(self, pool: Pool, rules: Rules, errand: Errand, ended: Ended | None) -> Answer:
        """The first answer that a replica of this model begins, once the request has a place."""
        call, slot, again = errand.call, None, 0
        try:
            if not pool.replicas.get(call.task):
                pool = await self._arrival(pool, errand)
            # Mostly there is room, which takes no coroutine to find out.
            slot = self._admission.free(pool) or await self._admission.enter(pool, errand.context)
            if slot.waited_s:
                errand.queued_s += slot.waited_s
                pool = await self._arrival(pool, errand)  # who was there then may have gone
            replicas = pool.replicas[call.task]
            keep = pool.continues and len(replicas) > 1
            while True:
                left = self._candidates(pool, replicas, errand, call)
                while left:
                    replica = left[0]
                    errand.pay(rules)
                    try:
                        part = await self._ask(replica, call, rules, errand, keep=keep)
                    except GatewayError as error:
                        left = self._noted(error, left, pool, errand)
                    else:
                        return self._announced(part, replica, pool, rules, errand, slot.until(ended))
                again += 1
                await self._pause(pool, replicas, errand, again)
        except BaseException as error:
            if slot is not None:
                slot.leave()
            if isinstance(error, GatewayError):
                errand.told(error)
            raise

    def _candidates(self, pool: Pool, replicas: Sequence[Replica], errand: Errand, call: Call) -> Sequence[Replica]:
        """Those of them that may be asked now, in the order in which they are."""
        rested = self._pauses.rested(replicas)
        if errand.spent:
            rested = [replica for replica in rested if replica.id not in errand.spent]
        return errand.safest_first(self._router.order(pool, rested, errand.context, call)) if rested else ()

    def _announced(
        self, part: EngineAnswer, replica: Replica, pool: Pool, rules: Rules, errand: Errand, ended: Ended | None
    ) -> Answer:
        """The answer with what its headers tell, and who stands by for the rest of it."""
        call, told = errand.call, [(b"x-llmgw-replica", replica.id.encode()), _ONE_ATTEMPT]
        if errand.asked > 1:
            told[1] = (b"x-llmgw-attempts", b"%d" % errand.asked)
            self._metrics.retries.labels(pool.model).inc(errand.asked - 1)
        if errand.queued_s:
            told.append((b"x-llmgw-queue-ms", b"%d" % (errand.queued_s * 1000)))
        foreign = pool.model != call.model
        if foreign:
            told.append((b"x-llmgw-fallback-model", pool.model.encode()))
            ended = ended and of_model(ended, pool.model)
        answer: Answer = part
        if part.source is None or part.source.kept is None:
            part.ended = ended
        else:
            answer = ResumableAnswer(part, call, partial(self._go_on, pool, rules, errand), ended)
        answer.headers, answer.foreign, answer.updated = told, foreign, pool.revision != errand.revision
        answer.waited_s = errand.engine_s + errand.queued_s
        return answer

    async def _go_on(self, pool: Pool, rules: Rules, errand: Errand, call: Call) -> EngineAnswer:
        """Another replica's answer to `call`, which asks for the rest of one that broke off; raises GatewayError."""
        errand.resume()
        pool = self._arrivals.known(pool.model) or pool
        able = [replica for replica in pool.replicas.get(call.task, ()) if replica.continues]
        left = self._candidates(pool, able, errand, call) if not errand.late else ()
        while left:
            replica = left[0]
            try:
                part = await self._ask(replica, call, rules, errand, keep=False)
            except GatewayError as error:
                left = self._noted(error, left, pool, errand)
            else:
                part.updated = pool.revision != errand.revision
                self._metrics.resumes.labels(pool.model).inc()
                log.info("replica %s goes on with an answer of '%s'", replica.id, pool.model)
                return part
        raise NoReplica(f"No other replica of '{pool.model}' can go on with an answer.")

    async def _ask(self, replica: Replica, call: Call, rules: Rules, errand: Errand, *, keep: bool) -> EngineAnswer:
        """Raises GatewayError, of which the replica's router knows then."""
        attempt = self._router.begin(replica)
        began = monotonic()
        errand.asked += 1
        errand.replica = replica
        headers = {"content-type": "application/json", "x-request-id": errand.context.request_id}
        if replica.key is not None:
            headers["authorization"] = f"Bearer {replica.key}"
        usage_asked = replica.tells_usage and call.stream
        salt = cache_salt(replica, errand.context, call)
        body = call.body_for(replica.served_name, ask_usage=usage_asked, salt=salt)
        path, exchange, until = replica.base_path + call.endpoint, None, errand.until
        try:
            exchange = await self._client.post(replica.origin, path, headers, body, rules.timeouts, until, errand.wary)
            if exchange.status != 200:
                raise await refusal(exchange, replica, call)
            if not call.stream:
                return EngineAnswer(
                    exchange, call, attempt, until, None, whole(await exchange.body(MAX_BODY_BYTES), call)
                )
            return await EngineAnswer.open(
                exchange, call, attempt, until, usage_asked=usage_asked, keep=keep, timeouts=rules.timeouts
            )
        except BaseException as error:
            if exchange is not None:
                exchange.close()
            if isinstance(error, GatewayError) and not errand.late:
                attempt.failed(error)
            attempt.abandoned()
            raise
        finally:
            errand.engine_s += monotonic() - began

    def _noted(self, error: GatewayError, left: Sequence[Replica], pool: Pool, errand: Errand) -> Sequence[Replica]:
        """Takes note of the first one's failure; the others as they are asked next. Raises it when none is to be."""
        replica, *others = left
        self._metrics.upstream_errors.labels(pool.model, error.code or error.status).inc()
        log.info("replica %s: %s", replica.id, error)
        if isinstance(error, UpstreamBusy) and (seconds := pause_s(error)) is not None:
            self._pauses.note(replica, error, seconds)
        errand.failed(replica, error)
        return errand.safest_first(others)

    async def _pause(self, pool: Pool, replicas: Sequence[Replica], errand: Errand, again: int) -> None:
        """Waits until the same replicas may be asked once more; raises where that is no use, or not needed."""
        failure = errand.failure
        left = [replica for replica in replicas if replica.id not in errand.spent]
        if not left:
            if failure is None or isinstance(failure, ReplicaUnreachable):
                raise NoReplica(f"No replica of '{errand.call.model}' can be reached at the moment. Please try again.")
            raise failure
        seconds, paused = backoff_s(again), self._pauses.first(left)
        if paused is not None and not self._pauses.rested(left):
            rest_s, busy = paused
            failure = later(busy, rest_s)
            seconds = seconds and rest_s + seconds
        if failure is None:
            return  # those that had to rest have just rested enough
        if seconds is None or seconds > _LONGEST_PAUSE_S or monotonic() + seconds >= errand.until:
            raise failure
        if self._fallbacks.has_any(pool, errand.call, errand.context, failure):
            raise failure
        await asyncio.sleep(seconds)

    async def _arrival(self, pool: Pool, errand: Errand) -> Pool:
        """The same model's, once it has replicas; raises where another one stands in for it meanwhile."""
        call, task = errand.call, errand.call.task
        pool = self._arrivals.known(pool.model) or pool
        if not (pool.asleep or pool.replicas.get(task)):
            failure = NoReplica(f"The model '{pool.model}' has no replica at the moment. Please try again soon.")
            if self._fallbacks.has_any(pool, call, errand.context, failure):
                raise failure
        try:
            async with asyncio.timeout_at(errand.until):
                return await self._arrivals.wait(pool.model, task)
        except TimeoutError:
            raise DeadlineExceeded(f"The model '{pool.model}' was not there in time.") from None
