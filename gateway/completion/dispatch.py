"""The last step of the completion path: an engine is chosen and asked, another one where it cannot be reached.

arrivals > admission > routing > upstream
"""

import logging

import orjson

from gateway.completion.admission import Admission
from gateway.completion.answer import Answer, EngineAnswer
from gateway.completion.cache_salt import cache_salt
from gateway.completion.context_window import exceeded
from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.errors import (
    GatewayError,
    NoReplica,
    ReplicaSilent,
    ReplicaUnreachable,
    UpstreamFailed,
    UpstreamRejected,
)
from gateway.limits.usage import Ended
from gateway.metrics import Metrics
from gateway.routing.arrivals import Arrivals
from gateway.routing.attempt import Attempt
from gateway.routing.pool import Pool
from gateway.routing.replica import Replica
from gateway.routing.router import Router
from gateway.upstream.client import UpstreamClient, UpstreamResponse

log = logging.getLogger(__name__)

# A request may be what ends an engine; it does not get to try them all.
_MAX_SILENT = 2
_MAX_ERROR_BYTES = 1024 * 1024
_RETRY_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")


class Dispatch:
    def __init__(
        self, arrivals: Arrivals, admission: Admission, router: Router, client: UpstreamClient, metrics: Metrics
    ) -> None:
        self._arrivals = arrivals
        self._admission = admission
        self._router = router
        self._client = client
        self._metrics = metrics

    async def begin(self, call: Call, pool: Pool, context: RequestContext, ended: Ended | None) -> Answer:
        """The first answer that a replica begins, once the request has a place."""
        task = call.endpoint.task
        if not pool.replicas.get(task):
            pool = await self._arrivals.wait(pool.model, task)
        slot = await self._admission.enter(pool, context)
        try:
            if slot.waited_s:
                pool = await self._arrivals.wait(pool.model, task)  # who was there then may have gone
            return await self._first(call, pool, context, slot.until(ended))
        except BaseException:
            slot.leave()
            raise

    async def _first(self, call: Call, pool: Pool, context: RequestContext, ended: Ended | None) -> Answer:
        replicas = pool.replicas[call.endpoint.task]
        silent = 0
        for replica in self._router.order(pool, replicas, context, call):
            try:
                return await self._ask(replica, call, context, ended)
            except (ReplicaUnreachable, ReplicaSilent) as error:
                self._metrics.upstream_errors.labels(pool.model, error.code).inc()
                log.info("replica %s: %s", replica.id, error)
                silent += isinstance(error, ReplicaSilent)
                if silent == _MAX_SILENT:
                    raise
            except (UpstreamFailed, UpstreamRejected) as error:
                self._metrics.upstream_errors.labels(pool.model, error.code or error.status).inc()
                raise
        raise NoReplica(f"No replica of '{pool.model}' can be reached at the moment. Please try again.")

    async def _ask(self, replica: Replica, call: Call, context: RequestContext, ended: Ended | None) -> Answer:
        attempt = self._router.begin(replica)
        try:
            return await self._begin(replica, attempt, call, context, ended)
        except GatewayError as error:
            attempt.failed(error)
            raise
        except BaseException:
            attempt.abandoned()
            raise

    async def _begin(
        self, replica: Replica, attempt: Attempt, call: Call, context: RequestContext, ended: Ended | None
    ) -> Answer:
        headers = {"content-type": "application/json", "x-request-id": context.request_id}
        if replica.key is not None:
            headers["authorization"] = f"Bearer {replica.key}"
        usage_asked = replica.tells_usage and call.stream
        salt = cache_salt(replica, context, call)
        body = call.body_for(replica.served_name, ask_usage=usage_asked, salt=salt)
        exchange = await self._client.post(replica.origin, replica.base_path + call.endpoint, headers, body)
        try:
            if exchange.status != 200:
                raise await _refusal(exchange, replica, call)
            if not call.stream:
                return EngineAnswer(exchange, attempt, call, ended)
            return await EngineAnswer.open(exchange, attempt, call, ended, usage_asked=usage_asked)
        except BaseException:
            exchange.close()
            raise


async def _refusal(exchange: UpstreamResponse, replica: Replica, call: Call) -> GatewayError:
    """An engine's error status in our terms: the client's fault is passed on, the cluster's is not shown."""
    status, message, kind = exchange.status, "", ""
    try:
        error = orjson.loads(await exchange.body(_MAX_ERROR_BYTES))
        error = error.get("error", error)
        message, kind = str(error["message"]), f"{error.get('type')} {error.get('code')}"
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError):
        message = f"status {status}"
    if status == 400 and ("context_size" in kind or "context_length" in kind or "maximum context length" in message):
        return exceeded(call, replica.max_model_len, "the engine counted more")
    if 400 <= status < 500 and status not in {401, 403, 404, 405, 407}:
        retry = {name: exchange.headers.get(name.encode(), b"").decode("latin-1") for name in _RETRY_HEADERS}
        return UpstreamRejected(message, status=status, headers={name: value for name, value in retry.items() if value})
    log.warning("replica %s answered %d: %s", replica.id, status, message)
    return UpstreamFailed(f"The engine of '{call.model}' failed (status {status}). Please try again.")
