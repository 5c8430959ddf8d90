"""Map-reduce over texts longer than the model's context, on a model that counts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from chains import summarize
from chains.summarize import CONCURRENCY


class Counting(BaseChatModel):
    """Takes prompts of `limit` characters and answers with `answer`; knows how many calls were open at once."""

    limit: int
    answer: str = "short"
    texts: list[str] = Field(default_factory=list)
    options: list[dict[str, Any]] = Field(default_factory=list)
    open: int = 0
    most: int = 0

    @property
    def _llm_type(self) -> str:
        return "counting"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _take(self, messages: Any, options: dict[str, Any]) -> None:
        text = messages[-1].content
        if len(text) > self.limit:
            raise ContextOverflowError("Too long.")
        self.texts.append(text)
        self.options.append(options)

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self._take(messages, kwargs)
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(0)
        self.open -= 1
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.answer))])

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        self._take(messages, kwargs)
        for word in ("all", " of", " it"):
            yield ChatGenerationChunk(message=AIMessageChunk(word))


class Services:
    def __init__(self, size: int | None) -> None:
        self.size = size

    def context_size(self, model: str) -> int | None:
        return self.size

    def at_once(self, most: int) -> int:
        return most


async def test_a_short_text_takes_one_call_and_is_streamed() -> None:
    model = Counting(limit=10_000)
    chain = summarize.build(model, Services(1_024))
    assert [chunk for chunk in [chunk async for chunk in chain.astream({"text": "A text."})] if chunk] == [
        "all",
        " of",
        " it",
    ]
    assert model.texts == ["A text."]
    assert model.options[0]["max_tokens"] == 128


@pytest.mark.parametrize(("wanted", "bound"), [(50, 50), (500, 128), (0, 128)])
async def test_a_summary_may_be_shorter_than_it_could_be(wanted: int, bound: int) -> None:
    model = Counting(limit=4_000)
    await summarize.build(model, Services(1_024)).ainvoke({"text": "A long text. " * 1_000, "max_tokens": wanted})
    assert len(model.options) > 2
    assert {options["max_tokens"] for options in model.options} == {bound}


async def test_a_long_text_is_summarized_in_parts_that_fit() -> None:
    model = Counting(limit=4_000)
    text = "Some words of a long text. " * 5_000
    assert await summarize.build(model, Services(1_024)).ainvoke({"text": text}) == "all of it"
    parts, last = model.texts[:-1], model.texts[-1]
    assert len(parts) > 30
    assert " ".join(parts).split() == text.split()
    assert last == "\n\n".join(["short"] * len(parts))
    assert 1 < model.most <= CONCURRENCY


@pytest.mark.parametrize(("mark", "rest"), [("\n\n", " and\n"), ("\n", " "), (" ", "-")])
async def test_a_part_ends_where_a_paragraph_does_or_a_line_or_a_word(mark: str, rest: str) -> None:
    model = Counting(limit=4_000)
    unit = rest.join(["word"] * 60)
    await summarize.build(model, Services(1_024)).ainvoke({"text": mark.join([unit] * 40)})
    parts = model.texts[:-1]
    assert len(parts) > 2
    assert {piece for part in parts for piece in part.split(mark)} == {unit}


async def test_a_book_for_a_model_with_a_large_context_is_cut_in_no_time_to_speak_of() -> None:
    model = Counting(limit=1_000_000)
    async with asyncio.timeout(20):  # which took most of a minute, with nobody else served
        await summarize.build(model, Services(131_072)).ainvoke({"text": "word " * 200_000})
    assert len(model.texts) > 2


async def test_summaries_that_are_still_too_long_are_summarized_again() -> None:
    model = Counting(limit=4_000, answer="still quite long " * 40)
    text = "word " * 40_000
    assert await summarize.build(model, Services(1_024)).ainvoke({"text": text}) == "all of it"
    assert any(part.startswith("still") for part in model.texts[:-1])


@pytest.mark.parametrize("length", [3_000, 30_000])
async def test_a_model_that_takes_less_than_estimated_gets_smaller_parts(length: int) -> None:
    model = Counting(limit=500)
    text = "0123456 " * (length // 8)
    assert await summarize.build(model, Services(1_024)).ainvoke({"text": text}) == "all of it"
    assert max(map(len, model.texts)) <= 500
    assert " ".join(model.texts[:-1]).split().count("0123456") >= length // 8


@pytest.mark.parametrize("text", ["x" * 50, "word " * 5_000])
async def test_a_model_that_takes_nothing_is_an_overflow(text: str) -> None:
    chain = summarize.build(Counting(limit=10), Services(1_024))
    with pytest.raises((ContextOverflowError, ExceptionGroup)) as failure:
        await chain.ainvoke({"text": text})
    error: BaseException = failure.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ContextOverflowError)


async def test_a_model_that_does_not_shorten_is_given_up() -> None:
    chain = summarize.build(Counting(limit=10_000, answer="longer than before " * 1_000), Services(1_024))
    with pytest.raises(ContextOverflowError, match="does not get shorter"):
        await chain.ainvoke({"text": "word " * 5_000})


async def test_an_unknown_context_is_taken_for_a_small_one() -> None:
    model = Counting(limit=10_000)
    await summarize.build(model, Services(None)).ainvoke({"text": "word " * 5_000})
    assert len(model.texts) > 2


async def test_braces_in_a_text_stay_text() -> None:
    model = Counting(limit=10_000)
    await summarize.build(model, Services(None)).ainvoke({"text": "{text} {0.__class__} {{x}}"})
    assert model.texts == ["{text} {0.__class__} {{x}}"]
