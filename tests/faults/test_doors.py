"""Every fault at every door: an answer where another engine can give it, else one clear error, and never a hang."""

import asyncio

import openai
import pytest

from tests.faults.doors import DOORS, Door, stream
from tests.faults.faults import BEFORE, MIDDLE, STRANGE
from tests.faults.upstream import PROMPT_TOKENS, TEXT, TOKENS, Cluster, Fault

doors = pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
# No answer takes so long: all timeouts of an attempt, several times.
BOUND_S = 30


def faults(*kinds: dict[str, Fault]) -> pytest.MarkDecorator:
    """Each by its name, which is a part of its models' names."""
    return pytest.mark.parametrize(("name", "fault"), [pair for kind in kinds for pair in kind.items()])


@doors
@faults(BEFORE, MIDDLE)
async def test_another_engine_makes_good_for_it(
    base: str, engines: Cluster, door: Door, name: str, fault: Fault
) -> None:
    engines.expect(fault)
    async with asyncio.timeout(BOUND_S):
        heard = await door(base, f"pair: {name}")
    assert (heard.text, heard.error) == (TEXT, None)
    assert len(engines.asked) == 2


@doors
@faults(STRANGE)
async def test_what_is_only_strange_is_an_answer(
    base: str, engines: Cluster, door: Door, name: str, fault: Fault
) -> None:
    engines.expect(fault)
    heard = await door(base, f"pair: {name}")
    assert (heard.text, heard.error, len(engines.asked)) == (TEXT, None, 1)


@doors
@faults(BEFORE, MIDDLE)
async def test_alone_it_is_one_clear_error(base: str, engines: Cluster, door: Door, name: str, fault: Fault) -> None:
    engines.expect(*[fault] * 9)
    async with asyncio.timeout(BOUND_S):
        heard = await door(base, f"alone: {name}")
    assert heard.error is not None
    assert TEXT.startswith(heard.text)
    assert len(engines.asked) <= 3
    engines.expect()
    async with asyncio.timeout(BOUND_S):
        heard = await door(base, f"alone: {name}")
    assert (heard.text, heard.error) == (TEXT, None)


@faults(MIDDLE)
async def test_a_resumed_stream_is_one_stream(base: str, engines: Cluster, name: str, fault: Fault) -> None:
    engines.expect(fault)
    chunks = (await stream(base, f"pair: {name}", max_tokens=99)).chunks
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
    heard = await stream(base, f"plain: {name}")
    assert isinstance(heard.error, openai.APIError)
    assert TEXT.startswith(heard.text)
    assert heard.finish_reason is None
    assert len(engines.asked) == 1
