"""A cluster of several machines loses one after the other, and no request fails and no stream breaks off.

They run in this order on one cluster.

Two workers have a replica that no other can hold, and one of them a third one, which may run on either.
"""

import asyncio

import openai

from tests.cluster.machines import START_S, Cluster
from tests.cluster.traffic import LongAnswer, long_answers_from, traffic
from tests.polling import eventually

# The records of a machine that is gone expire after 10 s; the rest is for the look at them.
FORGOTTEN_S = 12


def elsewhere(cluster: Cluster, gone: str) -> str:
    (other,) = cluster.workers.keys() - {gone}
    return other


async def whole_in_spite_of_it(answers: list[LongAnswer]) -> None:
    """Those that ran on the lost worker too; another has gone on with them."""
    await asyncio.gather(*(answer.task for answer in answers))
    for answer in answers:
        answer.check()
    assert any(answer.resumed for answer in answers)


async def test_requests_reach_every_worker(cluster: Cluster, sdk: openai.AsyncOpenAI) -> None:
    assert set(cluster.placed()) == {"intel", "amd"}
    before = cluster.answered()
    async with traffic(sdk):
        await eventually(lambda: all(now > before[id_] for id_, now in cluster.answered().items()))
    assert len(before) == 3


async def test_a_worker_that_is_cut_off_is_replaced_and_comes_back(cluster: Cluster, sdk: openai.AsyncOpenAI) -> None:
    cut = max(cluster.placed(), key=cluster.placed().__getitem__)
    other = elsewhere(cluster, cut)
    async with traffic(sdk) as answers:
        await eventually(lambda: len(answers) > 10)
        under_way = await long_answers_from(cluster, cut)
        lost = {record["id"] for record in cluster.replicas() if cluster.worker_of(record["id"]) == cut}
        cluster.workers[cut].unplug()
        await eventually(lambda: not cluster.placed()[cut], within=FORGOTTEN_S)
        await eventually(lambda: cluster.placed()[other] == 2, within=START_S)
        after = len(answers)
        await eventually(lambda: len(answers) > after + 10, within=60)
        await whole_in_spite_of_it(under_way)
        cluster.workers[cut].plug()
        # Those that it had are well, and ready once more until Ray has ended them.
        await eventually(lambda: cluster.placed(besides=lost) == {cut: 1, other: 2}, within=START_S)
        await eventually(lambda: cluster.known() == 3)


async def test_a_worker_that_is_killed_is_replaced(cluster: Cluster, sdk: openai.AsyncOpenAI) -> None:
    killed = max(cluster.placed(), key=cluster.placed().__getitem__)
    other = elsewhere(cluster, killed)
    async with traffic(sdk) as answers:
        await eventually(lambda: len(answers) > 10)
        under_way = await long_answers_from(cluster, killed)
        cluster.workers[killed].kill()
        await eventually(lambda: not cluster.placed()[killed], within=FORGOTTEN_S)
        await whole_in_spite_of_it(under_way)
        await eventually(lambda: cluster.placed() == {other: 2}, within=START_S)
        after = len(answers)
        await eventually(lambda: len(answers) > after + 10, within=60)


async def test_requests_go_on_without_the_head(cluster: Cluster, sdk: openai.AsyncOpenAI) -> None:
    async with traffic(sdk) as answers:
        cluster.head.kill()
        before = len(answers)
        await eventually(lambda: len(answers) > before + 20, within=60)
