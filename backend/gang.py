"""A replica over several nodes: its engine server runs on the first, and a member of its gang on each of the others.

All lie in one placement group of Ray's. The members are actors of the replica's own: they end with it, and a replica
that has lost one is unhealthy, so that Serve replaces the whole.
"""

import asyncio
from typing import Any, Self

import ray
from ray.util.placement_group import get_current_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from backend.engines import engines
from backend.engines.base import Share
from backend.placement import actor_options, place
from backend.server import EngineFailed, EngineProcess
from backend.spec import ModelSpec


class Member:
    """An actor: the part of an engine that runs on one more node and has no door of its own."""

    def __init__(self) -> None:
        self._process: EngineProcess | None = None

    async def run(self, spec: ModelSpec, share: Share) -> None:
        """Starts the part and returns when it has been stopped; raises EngineFailed when it ends before."""
        engine = engines()[spec.engine]
        with place(spec, engine, share) as here:
            self._process = await EngineProcess.spawn(spec, engine.launch(spec, here), f"part-{share.rank}")
            await self._process.watch()

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.stop()


class Gang:
    """The members of a replica; a replica on one node has none."""

    def __init__(self, actors: list[Any], runs: list[Any]) -> None:
        self._actors = actors
        self._runs = [asyncio.wrap_future(run.future()) for run in runs]

    @classmethod
    def gather(cls, spec: ModelSpec, first: Share | None) -> Self:
        """Starts the members, each in its bundle of the replica's placement group; `first` is this node's share."""
        group = get_current_placement_group()
        if first is None or group is None:
            return cls([], [])
        member: Any = ray.remote(Member)
        actors, runs = [], []
        for rank in range(1, first.size):
            bundle = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            actors.append(member.options(**actor_options(spec.resources), scheduling_strategy=bundle).remote())
            runs.append(actors[-1].run.remote(spec, first.of(rank)))
        return cls(actors, runs)

    async def watch(self) -> None:
        """Returns when the members were stopped; raises EngineFailed when one has ended before."""
        if not self._runs:
            await asyncio.Future()
        await asyncio.wait(self._runs, return_when=asyncio.FIRST_COMPLETED)
        self.check()

    def check(self) -> None:
        """Raises EngineFailed when a member has ended."""
        for run in self._runs:
            if run.done() and (reason := run.exception()):
                raise EngineFailed(f"a part of the engine on another node is gone: {reason}")

    async def stop(self) -> None:
        """Ends the members; one that is gone already has nothing to say."""
        stops = [asyncio.wrap_future(actor.stop.remote().future()) for actor in self._actors]
        await asyncio.gather(*stops, return_exceptions=True)
        for actor in self._actors:
            ray.kill(actor)
