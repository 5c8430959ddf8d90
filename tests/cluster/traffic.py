"""Who asks a cluster while its machines go: short questions all the time, and long answers that are under way then."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai

from tests.cluster.machines import MODEL, Cluster
from tests.polling import eventually

# All machines here share a few cores, and Ray needs some to start what it has to.
PAUSE_S = 0.2
LONG_TOKENS = 200


@asynccontextmanager
async def traffic(sdk: openai.AsyncOpenAI) -> AsyncIterator[list[str]]:
    """Clients that ask all the time. What they have got grows; whoever gets an error stops, and fails the test."""
    over = asyncio.Event()
    answers: list[str] = []

    async def keep(stream: bool) -> None:
        while not over.is_set():
            answers.append(await _ask(sdk, f"Say {len(answers)}.", stream))
            await asyncio.sleep(PAUSE_S)

    async with asyncio.TaskGroup() as clients:
        for stream in (False, False, True, True):
            clients.create_task(keep(stream))
        yield answers
        over.set()


async def _ask(sdk: openai.AsyncOpenAI, question: str, stream: bool) -> str:
    asked: Any = {"model": MODEL, "messages": [{"role": "user", "content": question}], "max_tokens": 8}
    if not stream:
        (choice,) = (await sdk.chat.completions.create(**asked)).choices
        assert choice.finish_reason
        return choice.message.content or ""
    chunks = [chunk async for chunk in await sdk.chat.completions.create(**asked, stream=True)]
    assert chunks[-1].choices[0].finish_reason
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


class LongAnswer:
    """A stream that lasts.

    Attributes:
        replica: who began it.
        text: as it came, comments and all.
        begun: some of it is there.
    """

    def __init__(self, cluster: Cluster, question: str) -> None:
        self.replica = ""
        self.text = ""
        self.begun = asyncio.Event()
        self.task = asyncio.create_task(self._read(cluster, question))

    async def _read(self, cluster: Cluster, question: str) -> None:
        body = {
            "model": MODEL, "messages": [{"role": "user", "content": question}], "max_tokens": LONG_TOKENS,
            "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
        }  # fmt: skip
        headers = {"authorization": f"Bearer {cluster.key}"}
        async with (
            httpx.AsyncClient(base_url=cluster.url, headers=headers, timeout=120) as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            assert answer.status_code == 200
            self.replica = answer.headers["x-llmgw-replica"]
            async for part in answer.aiter_text():
                self.text += part
                if self.text.count("data: ") > 5:
                    self.begun.set()

    @property
    def resumed(self) -> bool:
        return ": llmgw-resumed" in self.text

    def check(self) -> None:
        """It is whole: one stream, all tokens, and the right end."""
        *events, done = [line[6:] for line in self.text.splitlines() if line.startswith("data: ")]
        chunks = [json.loads(event) for event in events]
        assert done == "[DONE]"
        assert len({chunk["id"] for chunk in chunks}) == 1
        ends = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]
        assert ends == ["length"]
        assert chunks[-1]["usage"]["completion_tokens"] == LONG_TOKENS


async def long_answers_from(cluster: Cluster, worker: str) -> list[LongAnswer]:
    """Streams that have begun, on this worker at least two of them."""
    answers: list[LongAnswer] = []
    while sum(cluster.worker_of(answer.replica) == worker for answer in answers) < 2:
        assert len(answers) < 30
        answers.append(LongAnswer(cluster, f"Tell me the story of {len(answers)} brave animals."))
        await eventually(answers[-1].begun.is_set, within=60)
    return answers
