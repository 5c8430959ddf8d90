"""Waiting for a replica of a model that sleeps, starts or has just lost its only one."""

import asyncio

from gateway.errors import ModelStarting, NoReplica
from gateway.metrics import Metrics
from gateway.routing.directory import EXPIRY_S, Directory
from gateway.routing.pool import Pool


class Arrivals:
    """
    Args:
        wait_s: how long a request waits at most.
    """

    def __init__(self, directory: Directory, wait_s: float, metrics: Metrics) -> None:
        self._directory = directory
        self._wait_s = wait_s
        self._metrics = metrics

    def known(self, model: str) -> Pool | None:
        """Who serves the model now; None where nobody does."""
        return self._directory.pool(model)

    async def wait(self, model: str, task: str) -> Pool:
        """Returns the model's pool once it has a replica for `task`; wakes the model for that.

        Raises:
            ModelStarting: there was none within `wait_s`.
            NoReplica: there is none, and none is expected any more.
        """
        waking = asyncio.create_task(self._wake(model))
        try:
            with self._metrics.waiting.labels(model).track_inprogress():
                async with asyncio.timeout(self._wait_s):
                    return await self._first(model, task)
        except TimeoutError:
            raise ModelStarting(
                f"The model '{model}' is starting and was not there within {self._wait_s:g} s. Please try again."
            ) from None
        finally:
            waking.cancel()

    async def _first(self, model: str, task: str) -> Pool:
        while True:
            pool = self._directory.pool(model)
            if pool is None or task not in pool.tasks:
                raise NoReplica(f"The model '{model}' has no replica at the moment. Please try again soon.")
            if pool.replicas.get(task):
                return pool
            await self._directory.refreshed()

    async def _wake(self, model: str) -> None:
        while True:
            await self._directory.demand(model)
            await asyncio.sleep(EXPIRY_S / 3)
