"""Every fault at every door: an answer where another engine can give it, else one clear error, and never a hang.

Most of the time a fault is waited for, so all doors are tried at once, when the first test asks what came of it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import openai
import pytest

from tests.faults.doors import DOORS, Heard, model, stream
from tests.faults.faults import BEFORE, MIDDLE, STRANGE
from tests.faults.upstream import PROMPT_TOKENS, TEXT, TOKENS, Cluster, Fault

doors = pytest.mark.parametrize("door", DOORS)
# No answer takes so long: all timeouts of an attempt, several times, for six clients on a busy machine.
BOUND_S = 60


def faults(*kinds: dict[str, Fault]) -> pytest.MarkDecorator:
    """Each by its name, which is a part of its models' names."""
    return pytest.mark.parametrize(("name", "fault"), [pair for kind in kinds for pair in kind.items()])


class Outcome(NamedTuple):
    """What a client has got, and how many engines were asked for it."""

    heard: Heard
    asked: int


Ask = Callable[[str, str, str, list[Fault]], Awaitable[Outcome]]


@pytest.fixture(scope="module")
def ask(running: tuple[str, Cluster]) -> Ask:
    """Asks a kind of models through a door, whose engines meet these faults."""
    base, engines = running
    outcomes: dict[tuple[str, str, int], list[Outcome]] = {}

    async def through(door: str, kind: str, name: str, plan: list[Fault]) -> Outcome:
        asked = model(kind, name, door)
        engines.plans[asked] = list(plan)
        before = engines.asked_for(asked)
        async with asyncio.timeout(BOUND_S):
            heard = await DOORS[door](base, asked)
        return Outcome(heard, engines.asked_for(asked) - before)

    async def outcome(door: str, kind: str, name: str, plan: list[Fault]) -> Outcome:
        key = kind, name, len(plan)
        if key not in outcomes:
            outcomes[key] = await asyncio.gather(*(through(each, kind, name, plan) for each in DOORS))
        return outcomes[key][list(DOORS).index(door)]

    return outcome


@doors
@faults(BEFORE, MIDDLE)
async def test_another_engine_makes_good_for_it(ask: Ask, door: str, name: str, fault: Fault) -> None:
    heard, asked = await ask(door, "pair", name, [fault])
    assert (heard.text, heard.error) == (TEXT, None)
    assert asked == 2


@doors
@faults(STRANGE)
async def test_what_is_only_strange_is_an_answer(ask: Ask, door: str, name: str, fault: Fault) -> None:
    heard, asked = await ask(door, "pair", name, [fault])
    assert (heard.text, heard.error, asked) == (TEXT, None, 1)


@doors
@faults(BEFORE, MIDDLE)
async def test_alone_it_is_one_clear_error(ask: Ask, door: str, name: str, fault: Fault) -> None:
    heard, asked = await ask(door, "alone", name, [fault] * 9)
    assert heard.error is not None
    assert TEXT.startswith(heard.text)
    assert asked == 1 if name == "says nothing" else asked <= 3  # a silent replica is not asked twice
    heard, _ = await ask(door, "alone", name, [])
    assert (heard.text, heard.error) == (TEXT, None)


@faults(MIDDLE)
async def test_a_resumed_stream_is_one_stream(base: str, engines: Cluster, name: str, fault: Fault) -> None:
    engines.expect(fault)
    chunks = (await stream(base, model("pair", name), max_tokens=99)).chunks
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in chunks}) == 1
    assert [chunk.choices[0].delta.role for chunk in chunks[:-1]].count("assistant") == 1
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    usage = chunks[-1].usage
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    assert counts == (PROMPT_TOKENS, len(TOKENS), PROMPT_TOKENS + len(TOKENS))
    (_, first), (_, second) = engines.asked
    assert second.body.get("max_tokens", 99) == 99 - (len(TOKENS) - len(second.tokens))
    assert first.body["messages"] == second.body["messages"][: len(first.body["messages"])]


@faults(MIDDLE)
async def test_who_cannot_go_on_is_not_asked_to(base: str, engines: Cluster, name: str, fault: Fault) -> None:
    engines.expect(fault)
    heard = await stream(base, model("plain", name))
    assert isinstance(heard.error, openai.APIError)
    assert TEXT.startswith(heard.text)
    assert heard.finish_reason is None
    assert len(engines.asked) == 1
