"""Affinity: what begins alike goes to the same replica, whose cache of prefixes has it, while that one keeps up.

Rendezvous hashing gives every session, or else every beginning of a prompt, an order of the replicas by their weights.
One that comes or goes moves only the keys that are its own. The first that keeps up is asked: whose wait is not much
longer than the shortest one, so a hot prefix spreads over the next ones, and a slow replica is no home while a fast one
is free. A key is a tenant's own; a prompt without a beginning, and models that do not generate, are balanced.
Sources: Thaler and Ravishankar, Using name-based mappings to increase hit rates (1998); Mirrokni, Thorup and
Zadimoghaddam, Consistent Hashing with Bounded Loads (2018)
"""

from collections.abc import Sequence
from functools import lru_cache
from math import log
from zlib import crc32

from gateway.context import RequestContext
from gateway.routing.policies.balanced import Balanced
from gateway.routing.policies.base import Prompt
from gateway.routing.standing import Standing

# Characters, some hundred tokens. A long system prompt or document fills them, and all that share it share a replica;
# after a short one the first turn counts too, and each conversation has a home of its own.
BEGINNING = 1024
# How much longer than the shortest one a wait may be: by a part of it, and by some requests at any rate.
BOUND = 1.25
SLACK_REQUESTS = 2
# Keys are told apart by so much; the orders of some thousand slots and pools are kept, for they take time to work out.
SLOTS = 1024
KEPT_ORDERS = 8192
_GENERATION = frozenset({"chat", "completions"})


class Affinity:
    def __init__(self) -> None:
        self._balanced = Balanced()
        self._homes = lru_cache(KEPT_ORDERS)(_homes)

    def order(
        self, standings: Sequence[Standing], context: RequestContext, prompt: Prompt, now: float
    ) -> Sequence[Standing]:
        key = _key(standings[0], context, prompt)
        if key is None:
            return self._balanced.order(standings, context, prompt, now)
        homes = self._homes(key % SLOTS, *standings)
        waits = [standing.wait() for standing in homes]
        shortest = min(waits)
        most = BOUND * shortest + SLACK_REQUESTS * homes[waits.index(shortest)].cost
        if waits[0] <= most:
            return homes
        # There is one: the one with the shortest wait keeps up with itself.
        first = next(home for home in homes if home.hoped_wait(now) <= most)
        return [first, *(home for home in homes if home is not first)]


def _homes(slot: int, *standings: Standing) -> Sequence[Standing]:
    """The nearest first."""
    return sorted(standings, key=lambda standing: _score(slot, standing), reverse=True)


def _key(any_: Standing, context: RequestContext, prompt: Prompt) -> int | None:
    if context.session is not None:
        beginning = f"session\0{context.session}"
    elif _GENERATION.isdisjoint(any_.replica.tasks) or not (beginning := _beginning(prompt)):
        return None
    return crc32(f"{context.tenant}\0{any_.replica.model}\0{beginning}".encode(errors="replace"))


def _beginning(prompt: Prompt) -> str:
    beginning = ""
    for text in prompt.prompts():
        beginning += text[: BEGINNING - len(beginning)] + "\0"
        if len(beginning) >= BEGINNING:
            break
    return beginning


def _score(slot: int, standing: Standing) -> float:
    """Higher is nearer: of equal weights each has the same chance, and of others by their weights."""
    mixed = (slot * 0x9E3779B1 ^ standing.seed) & 0xFFFFFFFF
    mixed = (mixed ^ mixed >> 16) * 0x85EBCA6B & 0xFFFFFFFF  # MurmurHash3's way to spread 32 bits
    mixed = (mixed ^ mixed >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return log(((mixed ^ mixed >> 16) + 1) / 2**32) / standing.weight


POLICY = Affinity
