"""What is known to fail before Ray starts, in one line each: a missing file, a taken port, too little CPU or memory."""

import os
from collections.abc import Iterable

import psutil

from backend.engines import engines
from backend.engines.base import KEY_VARIABLE
from backend.ports import taken
from backend.sources import MissingModel
from backend.spec import ClusterSpec, ModelSpec

MIB = 2**20
# Measured: GCS, raylet, agents, Serve's controller and proxy, and two replica actors.
RAY_BYTES = 1200 * MIB


class CannotStart(RuntimeError):
    """The cluster cannot run on this machine; the message is one line."""


def check(cluster: ClusterSpec) -> None:
    """Raises CannotStart when this machine cannot hold the cluster."""
    if not os.environ.get(KEY_VARIABLE):
        raise CannotStart(f"{KEY_VARIABLE} is not set: engines serve nobody without a key")
    memory = RAY_BYTES + check_models(cluster)
    if cluster.ray.http_port and taken(cluster.ray.http_port):
        raise CannotStart(f"port {cluster.ray.http_port} (ray.http_port) is in use")
    if memory > (available := psutil.virtual_memory().available):
        raise CannotStart(
            f"too little memory: about {memory / MIB:,.0f} MiB are needed, {available / MIB:,.0f} MiB are free"
        )


def check_models(cluster: ClusterSpec) -> float:
    """The memory that all replicas need, in bytes; raises CannotStart when a model's files or the CPUs are missing."""
    try:
        memory = _total((engines()[spec.engine].memory(spec), spec) for spec in cluster.models)
    except MissingModel as error:
        raise CannotStart(f"a model is missing: {error}") from error
    except (OSError, ValueError) as error:
        raise CannotStart(f"a model cannot be read: {error}") from error
    cpus = _total((spec.resources.num_cpus, spec) for spec in cluster.models)
    if cpus > machine_cpus():
        raise CannotStart(f"the models reserve {cpus:g} CPUs and this machine has {machine_cpus()}")
    return memory


def machine_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def _total(needs: Iterable[tuple[float, ModelSpec]]) -> float:
    return sum(amount * spec.most_replicas * spec.nodes for amount, spec in needs)
