"""The node of a Redis Cluster that has our keys.

Their names all begin with TAG, which makes them one hash slot: one master has them all, so a script may take any of
them, and what a request asks is one round trip, as with a single server. The other masters have nothing of ours.

Who that master is, any node can tell, and the cluster may give the slot to another one at any time. So it is asked for
at each connection, of the nodes that were there last time and of those that the URL names, in no order: one that is
gone or behind the times is not asked first for good. A node is believed while it is in touch with most masters.
Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/

gateway/ and backend/ have the same file each; tests/test_contracts.py holds that.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from redis import Redis as BlockingRedis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry as BlockingRetry

TAG = "{llmgw}"
SLOT = key_slot(TAG.encode())
NODE_S = 0.3
# Of the nodes that could not tell, so many are quoted.
_QUOTED = 4
_SINGLE = "cluster support disabled"
# Of a node that another kind of URL names: it may have our keys now, and will not after the next failover.
WRONG_URL = "it is a node of a Redis Cluster, whose URL begins with redis+cluster:// or rediss+cluster://"

Place = tuple[str, int]


class Cluster:
    """
    Args:
        seeds: the nodes to begin with, by host and port.
        options: of a connection to any node, as redis-py has them.
    """

    def __init__(self, seeds: Iterable[Place], options: Mapping[str, Any]) -> None:
        self._seeds = tuple(seeds)
        self._nodes: set[Place] = set()
        bounds = {"socket_timeout": NODE_S, "socket_connect_timeout": NODE_S, "decode_responses": True}
        self._options = {**options, **bounds}

    async def find(self) -> Place:
        """Host and port of the master. Raises RedisError, which has what the nodes said, where none can tell."""
        search, retry = _Search({*self._nodes, *self._seeds}), Retry(NoBackoff(), 0)
        for host, port in search:
            try:
                async with Redis(host=host, port=port, retry=retry, **self._options) as node:
                    info = await node.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
                    search.tell(info, await node.execute_command("CLUSTER", "SLOTS"))  # type: ignore[no-untyped-call]
            except (RedisError, OSError, TimeoutError) as error:
                search.fail(error)
        return self._found(search)

    def find_blocking(self) -> Place:
        """The same, for code that waits."""
        search, retry = _Search({*self._nodes, *self._seeds}), BlockingRetry(NoBackoff(), 0)
        for host, port in search:
            try:
                with BlockingRedis(host=host, port=port, retry=retry, **self._options) as node:
                    info = node.execute_command("CLUSTER", "INFO")
                    search.tell(info, node.execute_command("CLUSTER", "SLOTS"))
            except (RedisError, OSError, TimeoutError) as error:
                search.fail(error)
        return self._found(search)

    def _found(self, search: "_Search") -> Place:
        if search.master is None:
            raise RedisConnectionError(f"no node of the Redis Cluster can tell who has our keys: {search.reasons()}")
        self._nodes = search.nodes
        return search.master


class _Search:
    """Iterates over the nodes to ask, those too that a node names, until one has told. Each is told of before the next.

    Attributes:
        master: that has our slot, once it is known.
        nodes: of the cluster, as the last answer had them.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        self.master: Place | None = None
        self.nodes: set[Place] = set()
        self._left = sorted(places)
        random.shuffle(self._left)
        self._seen = set(self._left)
        self._asked: Place
        self._reasons: list[str] = []

    def __iter__(self) -> Iterator[Place]:
        while self._left and self.master is None:
            self._asked = self._left.pop(0)
            yield self._asked

    def tell(self, info: str, slots: Sequence[Sequence[Any]]) -> None:
        """What the node that was asked says of the cluster's state, and of who has which slots."""
        self.nodes = {self._place(node) for _, _, *nodes in slots for node in nodes}
        self._left += self.nodes - self._seen
        self._seen |= self.nodes
        owners = [self._place(master) for first, last, master, *_ in slots if first <= SLOT <= last]
        if "cluster_state:ok" not in info:
            self._note("says cluster_state:fail")
        elif not owners:
            self._note(f"says that nobody serves slot {SLOT}")
        else:
            self.master = owners[0]

    def fail(self, error: Exception) -> None:
        """The node that was asked has not answered."""
        text = str(error).partition(", with args")[0]  # some of Redis' words repeat what was sent, the password too
        if _SINGLE in text:
            text = "is no node of a Redis Cluster, and its URL begins with redis:// or rediss://"
        self._note(text.rstrip(".") or type(error).__name__)

    def reasons(self) -> str:
        more = len(self._reasons) - _QUOTED
        return "; ".join(self._reasons[:_QUOTED]) + (f"; and {more} more" if more > 0 else "")

    def _note(self, reason: str) -> None:
        host, port = self._asked
        self._reasons.append(f"{host}:{port} {reason}")

    def _place(self, node: Sequence[Any]) -> Place:
        """A node that does not know its own address has the one that it was asked at."""
        host, port = node[:2]
        return (self._asked[0] if host in (None, "", "?") else host), port
