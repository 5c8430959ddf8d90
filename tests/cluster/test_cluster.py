"""A cluster of several machines loses one after the other, and no request fails. They run in this order on one cluster.

Two workers have a replica that no other can hold, and one of them a third one, which may run on either.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai

from tests.cluster.machines import MODEL, START_S, Cluster
from tests.polling import eventually

# The records of a machine that is gone expire after 10 s; the rest is for the look at them.
FORGOTTEN_S = 12
CLIENTS = 4
# All machines here share a few cores, and Ray needs some to start what it has to.
PAUSE_S = 0.2


@asynccontextmanager
async def traffic(sdk: openai.AsyncOpenAI) -> AsyncIterator[list[str]]:
    """Clients that ask all the time. What they have got grows; whoever gets an error stops, and fails the test."""
    over = asyncio.Event()
    answers: list[str] = []

    async def ask() -> None:
        while not over.is_set():
            question = {"role": "user", "content": f"Say {len(answers)}."}
            answer = await sdk.chat.completions.create(model=MODEL, messages=[question], max_tokens=8)
            assert answer.choices[0].finish_reason
            answers.append(answer.choices[0].message.content)
            await asyncio.sleep(PAUSE_S)

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(ask())
        yield answers
        over.set()


def elsewhere(cluster: Cluster, gone: str) -> str:
    (other,) = cluster.workers.keys() - {gone}
    return other


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
        cluster.workers[cut].unplug()
        await eventually(lambda: not cluster.placed()[cut], within=FORGOTTEN_S)
        await eventually(lambda: cluster.placed()[other] == 2, within=START_S)
        after = len(answers)
        await eventually(lambda: len(answers) > after + 10, within=60)
        cluster.workers[cut].plug()
        await eventually(lambda: cluster.placed() == {cut: 1, other: 2}, within=START_S)
        await eventually(lambda: cluster.known() == 3)


async def test_a_worker_that_is_killed_is_replaced(cluster: Cluster, sdk: openai.AsyncOpenAI) -> None:
    killed = max(cluster.placed(), key=cluster.placed().__getitem__)
    other = elsewhere(cluster, killed)
    async with traffic(sdk) as answers:
        await eventually(lambda: len(answers) > 10)
        cluster.workers[killed].kill()
        await eventually(lambda: not cluster.placed()[killed], within=FORGOTTEN_S)
        await eventually(lambda: cluster.placed() == {other: 2}, within=START_S)
        after = len(answers)
        await eventually(lambda: len(answers) > after + 10, within=60)


async def test_requests_go_on_without_the_head(cluster: Cluster, sdk: openai.AsyncOpenAI) -> None:
    async with traffic(sdk) as answers:
        cluster.head.kill()
        before = len(answers)
        await eventually(lambda: len(answers) > before + 20, within=60)
