"""How a connection to Redis begins: who we are, and whether this server is one for us.

Nothing is sent here: `redis_link.py` does that, and tells what each answer was.
"""

from collections.abc import Iterator

from gateway.redis_address import Address
from gateway.redis_cluster import TAG, WRONG_URL

# A script that may write, as Redis knows since its version 7: only a server that takes our scripts runs it. The key is
# one that nobody has; of a Redis Cluster only the master of our slot takes it.
_PROBE = ("EVAL", "#!lua\nreturn 1", 1, f"{TAG}:probe")
# A server that says so to the probe is the right one, and reads.
_WRITES_LATER = ("OOM ", "MISCONF ", "NOREPLICAS ", "NOPERM ")
# What ends a connection that was the right one, by the word that an error begins with.
ENDS = {
    "READONLY": "it has become a replica, which takes no writes",
    "MOVED": "another node of the cluster has our keys now",
    "ASK": "our keys are on their way to another node of the cluster",
    "TRYAGAIN": "our keys are on their way to another node of the cluster",
    "CLUSTERDOWN": "it has lost the cluster, or the cluster some of its slots",
}
# Errors of a server that may do tomorrow what it does not today, and of one that another takes the place of.
PASSES = frozenset({*ENDS, "BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM"})

Command = tuple[bytes | str | int, ...]


def introduction(address: Address) -> Iterator[Command]:
    """What to say, in order."""
    options = address.options
    if password := options.get("password"):
        yield "AUTH", options.get("username") or "default", password
    if db := options.get("db"):
        yield "SELECT", db
    yield "CLIENT", "SETNAME", "llmgw"
    if not address.nodes:
        yield "INFO", "cluster"
    yield _PROBE


def objection(address: Address, command: Command, reply: object) -> str | None:
    """Why a server that answers so is none for us; `reply` may be the error that it was."""
    if command[0] == "INFO":  # as a courtesy, which an ACL may not grant
        return WRONG_URL if isinstance(reply, bytes) and b"cluster_enabled:1" in reply else None
    if not isinstance(reply, Exception):
        return None
    said = str(reply)
    if command[0] == "CLIENT":  # so is a name
        return None if said.startswith("NOPERM") else said
    if command is not _PROBE:
        return said.partition(", with args")[0]  # some of Redis' words repeat the arguments
    if said.startswith("ERR "):
        return f"Redis 7, Valkey or a newer one is wanted; this one says: {said}"
    if said.startswith("MOVED ") and not address.nodes:
        return WRONG_URL
    if reason := ENDS.get(said.partition(" ")[0]):
        return f"{reason}: {said}"
    return None if said.startswith(_WRITES_LATER) else said
