"""Places at the engines, and who gets them."""

import asyncio
from dataclasses import replace

import pytest

from gateway.completion.admission import Admission, Slot, places
from gateway.completion.waiting import Waiter, Waiting
from gateway.context import RequestContext
from gateway.errors import Overloaded
from gateway.metrics import Metrics
from gateway.routing.directory import Directory
from gateway.routing.pool import Pool
from gateway.routing.replica import Replica
from gateway.settings import Upstream
from gateway.upstream.usage import Usage

SOMEONE = RequestContext("r-1")
BATCH = RequestContext("r-2", priority="batch")


def pool(capacity: int | None) -> Pool:
    upstream = Upstream(model="m", url="http://127.0.0.1:9", max_concurrency=capacity)
    found = Directory([Replica.from_upstream(upstream, 0)], None, None, Metrics()).pool("m")
    assert found is not None
    return found


class Door:
    """Two places, as one worker in front of an engine for one request has them."""

    def __init__(self, queue_max: int = 100, queue_wait_s: float = 3600) -> None:
        self.pool = pool(1)
        self.metrics = Metrics()
        directory = Directory([], None, None, self.metrics)
        self.admission = Admission(directory, 1, queue_max, queue_wait_s, self.metrics)
        self.order: list[str] = []

    async def fill(self) -> list[Slot]:
        return [await self.admission.enter(self.pool, SOMEONE) for _ in range(2)]

    async def come(self, name: str, context: RequestContext = SOMEONE) -> asyncio.Task[Slot]:
        """A request that has to wait; its name is noted when its turn comes."""

        async def enter() -> Slot:
            slot = await self.admission.enter(self.pool, context)
            self.order.append(name)
            return slot

        task = asyncio.create_task(enter())
        await asyncio.sleep(0)
        return task

    @property
    def waiting(self) -> float:
        self.metrics.write_noted()
        return self.metrics.queue_depth.labels("m")._value.get()

    def refused(self, reason: str) -> float:
        self.metrics.write_noted()
        return self.metrics.queue_refused.labels("m", reason)._value.get()


def entered_at_once(door: Door, where: Pool) -> Slot:
    with pytest.raises(StopIteration) as returned:
        door.admission.enter(where, SOMEONE).send(None)  # one that had to wait would yield here
    slot: Slot = returned.value.value
    return slot


async def test_a_free_place_is_taken_without_a_turn_of_the_loop():
    door = Door()
    assert [entered_at_once(door, door.pool).waited_s for _ in range(2)] == [0, 0]
    waiting = await door.come("third")
    assert (waiting.done(), door.waiting) == (False, 1)
    waiting.cancel()


async def test_engines_without_a_bound_have_places_for_all():
    door = Door()
    slots = {entered_at_once(door, pool(None)) for _ in range(1000)}
    assert len(slots) == 1
    (slot,) = slots
    told = [].append
    assert slot.until(told) is told
    assert slot.until(None) is None
    slot.leave()


async def test_a_place_is_left_once_and_tells_what_was_used():
    door = Door()
    first, _ = await door.fill()
    used: list[Usage] = []
    ended = first.until(used.append)
    assert ended is not None
    waiting = [await door.come(name) for name in "ab"]
    ended(Usage(1, 2))
    first.leave()
    await asyncio.sleep(0)
    assert ([task.done() for task in waiting], used) == ([True, False], [Usage(1, 2)])
    assert (await waiting[0]).waited_s > 0
    waiting[1].cancel()


async def test_interactive_requests_come_before_batch_and_each_in_their_order():
    door = Door()
    slot, _ = await door.fill()
    come = {"b1": BATCH, "i1": SOMEONE, "b2": BATCH, "i2": SOMEONE}
    tasks = {name: await door.come(name, context) for name, context in come.items()}
    while len(door.order) < len(come):
        slot.leave()
        await asyncio.sleep(0)
        slot = await tasks[door.order[-1]]
    assert door.order == ["i1", "i2", "b1", "b2"]


def test_a_batch_request_is_passed_only_by_those_that_come_soon_after_it():
    loop = asyncio.new_event_loop()
    waiting, order = Waiting(handicap_s=30), []
    came = {"b0": 0.0, "i10": 10.0, "b15": 15.0, "i29": 29.0, "i31": 31.0, "i44": 44.0, "i46": 46.0}
    names = {
        Waiter("batch" if name[0] == "b" else "interactive", at, loop.create_future()): name
        for name, at in came.items()
    }
    loop.close()
    for waiter in names:
        waiting.add(waiter)
    assert names[waiting.last()] == "i46"
    while waiting.count:
        order.append(names[waiting.first()])
        waiting.discard(waiting.first())
    assert order == ["i10", "i29", "b0", "i31", "i44", "b15", "i46"]


async def test_a_full_queue_refuses_the_next_and_says_when_to_come_back():
    door = Door(queue_max=1)
    await door.fill()
    waiting = await door.come("first")
    with pytest.raises(Overloaded) as refused:
        await door.admission.enter(door.pool, SOMEONE)
    assert (refused.value.status, refused.value.code) == (503, "overloaded")
    assert refused.value.headers["retry-after"] == "1"
    assert (waiting.done(), door.waiting, door.refused("full")) == (False, 1, 1)
    waiting.cancel()


async def test_in_a_full_queue_a_batch_request_makes_room_for_an_interactive_one():
    door = Door(queue_max=2)
    await door.fill()
    first, second = await door.come("b1", BATCH), await door.come("b2", BATCH)
    third = await door.come("i1")
    await asyncio.sleep(0)
    assert isinstance(second.exception(), Overloaded)
    assert (first.done(), third.done(), door.waiting) == (False, False, 2)
    with pytest.raises(Overloaded):
        await door.admission.enter(door.pool, BATCH)
    first.cancel()
    third.cancel()


async def test_who_gives_up_has_left_the_queue():
    door = Door(queue_max=1)
    slots = await door.fill()
    waiting = await door.come("gone")
    waiting.cancel()
    await asyncio.sleep(0)
    assert (waiting.cancelled(), door.waiting) == (True, 0)
    other = await door.come("next")
    slots[0].leave()
    await other
    assert door.order == ["next"]


@pytest.mark.parametrize("first", ["leaves", "gives up"])
async def test_a_place_is_not_lost_on_one_who_gives_up_as_its_turn_comes(first):
    door = Door()
    slots = await door.fill()
    waiting = await door.come("gone")
    for step in (slots[0].leave, waiting.cancel)[:: 1 if first == "leaves" else -1]:
        step()
    await asyncio.gather(waiting, return_exceptions=True)
    assert (waiting.cancelled(), door.order) == (True, [])
    entered_at_once(door, door.pool)


@pytest.mark.parametrize(("queue_wait_s", "left_s"), [(0.05, None), (0.05, 3600), (3600, 0.05), (3600, -1)])
async def test_who_cannot_begin_in_time_is_refused(queue_wait_s, left_s):
    door = Door(queue_wait_s=queue_wait_s)
    await door.fill()
    until = None if left_s is None else asyncio.get_running_loop().time() + left_s
    with pytest.raises(Overloaded, match=r"no place within 0(\.0\d+)? s"):
        await door.admission.enter(door.pool, replace(SOMEONE, until=until))
    assert (door.waiting, door.refused("late")) == (0, 1)


async def test_another_replica_brings_places_for_those_who_wait():
    door = Door()
    await door.fill()
    waiting = [await door.come(name) for name in "abcd"]
    entered_at_once(door, pool(6))  # 7 places
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True] * 4


@pytest.mark.parametrize("capacity", [1, 4, 32, 256])
@pytest.mark.parametrize("workers", [1, 2, 16])
def test_the_places_of_all_workers_fill_the_engines_and_little_more(capacity, workers):
    one = places(capacity, workers)
    assert capacity <= one * workers
    assert one <= capacity + max(1, capacity / 8)
    if capacity >= 16 * workers:
        assert one * workers <= 2 * capacity
