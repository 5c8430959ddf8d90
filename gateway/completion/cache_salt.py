"""The salt of an engine's prefix cache: one for each tenant.

Engines keep what they have computed of a prompt for the next one that begins alike, and answer that one sooner. Who
measures it learns what others have asked; with a salt of its own a tenant shares this with nobody else.
Source: https://docs.vllm.ai/en/latest/design/prefix_caching.html (vLLM wants at most 128 characters, no `@`, `/`, `\\`)
"""

import hmac
from functools import lru_cache

from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.routing.replica import Replica

CAPABILITY = "cache_salt"


def cache_salt(replica: Replica, context: RequestContext, call: Call) -> str | None:
    """For a replica that takes one; a salt that the client sends divides its tenant's part further."""
    if CAPABILITY not in replica.capabilities:
        return None
    return _salt(replica.key or "", context.tenant, call.payload.get(CAPABILITY))


@lru_cache(maxsize=1024)
def _salt(secret: str, tenant: str, own: str | None) -> str:
    """Nobody outside the cluster can make it: the engines' key goes into it."""
    of_tenant = hmac.digest(secret.encode(), f"{CAPABILITY}:{tenant}".encode(), "sha256")
    return (of_tenant if own is None else hmac.digest(of_tenant, own.encode(), "sha256")).hex()
