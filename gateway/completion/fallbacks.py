"""The models that stand in for a model that fails, or is too small for a prompt."""

from collections.abc import Iterator

from gateway.completion.context_window import check_fits
from gateway.completion.request import Call
from gateway.completion.retries import RuleBook
from gateway.context import RequestContext
from gateway.errors import ContextLengthExceeded, GatewayError
from gateway.routing.directory import Directory
from gateway.routing.pool import Pool


class Fallbacks:
    def __init__(self, rules: RuleBook, directory: Directory) -> None:
        self._rules = rules
        self._directory = directory

    def that_fits(self, call: Call, pool: Pool, context: RequestContext) -> Pool:
        """The model itself, or the first of its fallbacks that is large enough for the prompt.

        Raises:
            ContextLengthExceeded: the prompt surely exceeds them all.
        """
        try:
            check_fits(call, pool.max_model_len)
        except ContextLengthExceeded as error:
            larger = next(self.of(pool, call, context, error), None)
            if larger is None:
                raise
            return larger
        return pool

    def of(self, pool: Pool, call: Call, context: RequestContext, error: GatewayError) -> Iterator[Pool]:
        """Those that have a replica and may be used by this caller, in order; larger ones where that was the error."""
        for name in self._rules.of(pool.model).fallbacks:
            other = self._directory.pool(name) if context.allows(name) else None
            if other is None or not other.replicas.get(call.task):
                continue
            if isinstance(error, ContextLengthExceeded) and (other.max_model_len or 0) <= (pool.max_model_len or 0):
                continue
            try:
                check_fits(call, other.max_model_len)
            except ContextLengthExceeded:
                continue
            yield other

    def has_any(self, pool: Pool, call: Call, context: RequestContext, error: GatewayError) -> bool:
        """Whether there is one of these now."""
        return next(self.of(pool, call, context, error), None) is not None
