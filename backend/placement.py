"""Where a replica's parts lie: the reservation in Ray's words, and the place on the node that Ray has chosen."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import ray

from backend.cores import Cores
from backend.engines.base import Engine, Place, Share
from backend.ports import free_port
from backend.spec import ModelSpec, Resources


def actor_options(resources: Resources) -> dict[str, Any]:
    """What one actor reserves, as `ray_actor_options` has it."""
    options: dict[str, Any] = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
    if resources.custom:
        options["resources"] = dict(resources.custom)
    if resources.accelerator_type:
        options["accelerator_type"] = resources.accelerator_type
    return options


def placement_group(spec: ModelSpec) -> dict[str, Any]:
    """Serve's options for a replica over several nodes, a bundle for each; nothing for a replica on one."""
    if spec.nodes == 1:
        return {}
    bundle = {"CPU": spec.resources.num_cpus, "GPU": spec.resources.num_gpus, **spec.resources.custom}
    if spec.resources.accelerator_type:
        # How Ray itself asks for a type: a crumb of the resource that each node with such GPUs has one of.
        bundle[f"accelerator_type:{spec.resources.accelerator_type}"] = 0.001
    bundle = {name: amount for name, amount in bundle.items() if amount}
    return {"placement_group_bundles": [bundle] * spec.nodes, "placement_group_strategy": "PACK"}


@contextmanager
def place(spec: ModelSpec, engine: Engine, share: Share | None = None) -> Iterator[Place]:
    """A place on this node for as long as the context lasts: the first, or that of `share`. Raises NoFreeCores."""
    host = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    if share is None and spec.nodes > 1:
        share = Share(0, spec.nodes, host, free_port(host))
    threads = max(1, int(spec.resources.num_cpus))
    if not engine.pins_cores(spec):
        yield Place(host, free_port(host), threads, share=share)
        return
    with closing(Cores.take(threads)) as mine:
        yield Place(host, free_port(host), threads, mine.ids, share)
