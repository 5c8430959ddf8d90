"""Who asks: one value that travels with a request through every layer."""

import contextvars
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

_DOORS = frozenset({"v1", "chains", "skills", "sessions", "admin", "health", "metrics"})
# What a key's requests get from the cache when they say nothing themselves.
CachePolicy = Literal["reproducible", "always", "never"]
# How the replica of a request is chosen, where its key lets it say so.
RoutingPolicy = Literal["balanced", "affinity", "round-robin"]
Priority = Literal["interactive", "batch"]
# What a session may be called: in a header, in a path and in a chain's config. Clients take `.` and `..` out of a path.
SESSION_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,128}")


class Quota(NamedTuple):
    """What a key may use beside its requests; 0 is no limit. The order is that of `limits/reserve.lua`."""

    tokens_per_minute: int = 0
    concurrency: int = 0
    tokens_per_day: int = 0
    tokens_per_month: int = 0


@dataclass(slots=True)
class RequestContext:
    """The facts about a request that do not come from its body; nobody changes them.

    Attributes:
        request_id: echoed as `x-request-id` and written in the access log.
        tenant: the owner of the key; `local` on a gateway without keys.
        key_name: the key's public name, never the key.
        models: the models this key may call; None means all.
        chains, skills: likewise, by the names of chains and of the skills' plugins.
        requests_per_minute: the key's limit; None means none.
        quota: what else the key may use; None means anything.
        admin: it may see what all have used.
        cache: the key's policy.
        priority: which requests it waits behind.
        door: where it came in, as metrics and accounts call it.
        cache_control: the request's header of that name.
        policy: the routing policy that the request names; None leaves it to the gateway.
        session: requests of one session are best answered by one replica.
        until: when it is given up, by `time.monotonic`, where it wants less than the gateway allows.
    """

    request_id: str
    tenant: str = "local"
    key_name: str = "loopback"
    models: frozenset[str] | None = None
    chains: frozenset[str] | None = None
    skills: frozenset[str] | None = None
    requests_per_minute: int | None = None
    quota: Quota | None = None
    admin: bool = False
    cache: CachePolicy = "reproducible"
    priority: Priority = "interactive"
    door: str = "other"
    cache_control: bytes | None = None
    policy: str | None = None
    session: str | None = None
    until: float | None = None

    def allows(self, model: str) -> bool:
        return self.models is None or model in self.models

    def allows_chain(self, chain: str) -> bool:
        return self.chains is None or chain in self.chains

    def allows_skill(self, plugin: str) -> bool:
        return self.skills is None or plugin in self.skills


def door_of(path: str) -> str:
    """The first part of a path, if it is one of ours."""
    door = path[1:].partition("/")[0]
    return door if door in _DOORS else "other"


# Chains and skills run inside LangChain and Semantic Kernel, which carry no value of ours from the route to the
# model call; a context variable follows the task, and theirs.
current: contextvars.ContextVar[RequestContext] = contextvars.ContextVar("llmgw_request")
