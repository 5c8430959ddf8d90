"""A real Redis Cluster on loopback: three masters, the first of which has our keys, and a replica of that one."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from gateway.redis_cluster import SLOT, TAG
from tests.gateway.redis_faults.servers import Server, free_port, server
from tests.polling import eventually

NODE_TIMEOUT_MS = 1000
MASTERS = 3
SLOTS = 16384


class Nodes:
    """
    Attributes:
        owner: the master that has our keys at first.
        others: the two that have none.
        replica: of the owner.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.all = [stack.enter_context(_node(folder / f"node{number}")) for number in range(MASTERS + 1)]
        self.owner, *self.others, self.replica = self.all
        for number, node in enumerate(self.all[:MASTERS]):
            first, after = (SLOTS * part // MASTERS for part in (number, number + 1))
            _say(node, "SET-CONFIG-EPOCH", number + 1)
            _say(node, "ADDSLOTSRANGE", first, after - 1)
        for node in self.all[1:]:
            _say(self.owner, "MEET", "127.0.0.1", node.port, _bus_port(node))

    def url(self, *seeds: Server, scheme: str = "redis+cluster") -> str:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in seeds or self.all)
        return f"{scheme}://{hosts}"

    def joined(self) -> bool:
        return all(f"cluster_known_nodes:{len(self.all)}" in self.info(node) for node in self.all)

    def ready(self) -> bool:
        """Whether all know of each other and of the replica, which follows."""
        with self.owner.blocking() as redis:
            if redis.info("replication").get("slave0", {}).get("state") != "online":
                return False
        return all("cluster_state:ok" in self.info(node) and self._knows_all(node) for node in self.all)

    def _knows_all(self, node: Server) -> bool:
        with node.blocking() as redis:
            named = {port for _, _, *nodes in redis.execute_command("CLUSTER", "SLOTS") for _, port, *_ in nodes}
        return named == {node.port for node in self.all}

    def replicate(self) -> None:
        _say(self.replica, "REPLICATE", self.id(self.owner))

    def info(self, node: Server) -> str:
        return str(_say(node, "INFO"))

    def id(self, node: Server) -> str:
        return str(_say(node, "MYID"))

    def replicated(self) -> bool:
        with self.owner.blocking() as master, self.replica.blocking() as replica:
            return master.info("replication")["master_repl_offset"] == replica.info("replication")["slave_repl_offset"]

    def fails_over(self) -> bool:
        """Tells the replica to take its master's place, which lives on as its replica."""
        try:
            return _say(self.replica, "FAILOVER") == "OK"
        except RedisError:  # it does not follow yet
            return False

    def is_master(self, node: Server) -> bool:
        """Whether this node takes our keys."""
        with node.blocking() as redis:
            try:
                return bool(redis.set(f"{TAG}:test", 1))
            except RedisError:
                return False

    def agree_on(self, master: Server) -> bool:
        """Whether all nodes say that this one has our slot."""
        return {self._named(node) for node in self.all} == {master.port}

    def _named(self, node: Server) -> int:
        with node.blocking() as redis:
            slots = redis.execute_command("CLUSTER", "SLOTS")
        (port,) = (port for first, last, (_, port, *_), *_ in slots if first <= SLOT <= last)
        return int(port)

    def begin_move(self, source: Server, target: Server) -> None:
        """From now on our slot's keys may be at either node."""
        _say(target, "SETSLOT", SLOT, "IMPORTING", self.id(source))
        _say(source, "SETSLOT", SLOT, "MIGRATING", self.id(target))

    def end_move(self, source: Server, target: Server) -> None:
        with source.blocking() as redis:
            while keys := redis.execute_command("CLUSTER", "GETKEYSINSLOT", SLOT, 100):
                redis.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source):
            _say(node, "SETSLOT", SLOT, "NODE", self.id(target))


def _node(folder: Path):
    options = {"cluster-enabled": "yes", "cluster-node-timeout": NODE_TIMEOUT_MS, "cluster-port": free_port()}
    # A replica is not named before it has had something of its master.
    options |= {"save": "", "repl-diskless-sync-delay": 0, "repl-ping-replica-period": 1}
    return server(folder, *(word for name, value in options.items() for word in (f"--{name}", str(value))))


def _bus_port(node: Server) -> object:
    with node.blocking() as redis:
        return redis.config_get("cluster-port")["cluster-port"]


def _say(node: Server, *words: object) -> object:
    with Redis(port=node.port, decode_responses=True) as redis:
        return redis.execute_command("CLUSTER", *words)


@asynccontextmanager
async def redis_cluster(folder: Path) -> AsyncIterator[Nodes]:
    with ExitStack() as stack:
        nodes = Nodes(folder, stack)
        await eventually(nodes.joined, within=30)
        nodes.replicate()
        await eventually(nodes.ready, within=30)
        yield nodes
