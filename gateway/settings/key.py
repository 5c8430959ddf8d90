"""An API key as the operator declares it, in the settings or in Redis."""

from functools import cached_property
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.context import CachePolicy, Priority, Quota, RoutingPolicy

# Seconds since the epoch, of a day that can be written down: until the year 9999.
Instant = Annotated[int, Field(ge=0, le=253_402_300_799)]
_Names = frozenset[str] | None
_Caller = tuple[str, str, _Names, _Names, _Names, int | None, Quota | None, bool, CachePolicy, Priority]


class Key(BaseModel):
    """An API key, known by its hash only.

    Attributes:
        name: how logs and metrics call it.
        tenant: whose requests it makes.
        hash: `sha256:` and the hex digest of the key, as `llmgw keys create` prints it. Keys carry 256 random bits,
            so a plain digest can't be searched.
        models: the models it may call; all when absent.
        requests_per_minute: completions it may ask for in any 60 seconds, over all workers; unlimited when absent.
        chains, skills: the chains, and the skills' plugins, it may call; all when absent.
        expires_at: when it ends, in seconds since the epoch; never when absent.
        tokens_per_minute, tokens_per_day, tokens_per_month: prompt and completion together, likewise over all workers;
            days and months are UTC's.
        concurrency: answers at the same time.
        admin: whether it may see what all have used.
        cache: which of its answers come out of the cache: those that come out the same again, always, or never.
        policies: the routing policies that its requests may name.
        priority: the highest that its requests get; they may ask for less.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    tenant: str = Field(min_length=1)
    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    models: frozenset[str] | None = None
    chains: frozenset[str] | None = None
    skills: frozenset[str] | None = None
    expires_at: Instant | None = None
    requests_per_minute: int | None = Field(default=None, gt=0)
    tokens_per_minute: int | None = Field(default=None, gt=0)
    concurrency: int | None = Field(default=None, gt=0)
    tokens_per_day: int | None = Field(default=None, gt=0)
    tokens_per_month: int | None = Field(default=None, gt=0)
    admin: bool = False
    cache: CachePolicy = "reproducible"
    policies: frozenset[RoutingPolicy] = frozenset()
    priority: Priority = "interactive"

    @cached_property
    def quota(self) -> Quota | None:
        limits = (self.tokens_per_minute, self.concurrency, self.tokens_per_day, self.tokens_per_month)
        return Quota(*(limit or 0 for limit in limits)) if any(limits) else None

    @cached_property
    def caller(self) -> _Caller:
        """What a RequestContext has from its key, in the order of its fields from `tenant` to `priority`."""
        allowed = (self.models, self.chains, self.skills)
        limits = (self.requests_per_minute, self.quota)
        return (self.tenant, self.name, *allowed, *limits, self.admin, self.cache, self.priority)
