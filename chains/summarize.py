"""Summarizes a text of any length: parts that fit the model are summarized at once, then their summaries together."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.exceptions import ContextOverflowError
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from pydantic import BaseModel, Field

from chains import Chain, Model, Services

# Used when nobody knows the model's context: the smallest that models in use have.
SMALL_CONTEXT = 2_048

# English is about four characters a token with current tokenizers. Where that is too hopeful (code, digits, other
# scripts) the model says so, and the part is split again.
CHARS_PER_TOKEN = 4

# The prompt around a text, with the chat template's own tokens.
PROMPT_TOKENS = 64

# A summary has at most an eighth of the context, so every round shortens the text several times; less where less is
# wanted.
SUMMARY_SHARE = 8

# Parts of one text that are with the model at the same time, where the caller may have as many.
CONCURRENCY = 8

# A part that is refused at this length will not fit in any smaller one either.
SMALLEST_PART = 64

PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "You summarize texts. Keep names, numbers and decisions. Answer with the summary alone."),
        ("human", "{text}"),
    ]
)


class SummarizeInput(BaseModel):
    """A text to summarize."""

    text: str = Field(min_length=1, description="The text, of any length.")
    max_tokens: int = Field(
        default=0, ge=0, description="How long the summary may be, in tokens; 0 for an eighth of the model's context."
    )


def build(model: Model, services: Services) -> Chain:
    async def summarize(task: dict[str, Any], config: RunnableConfig) -> AsyncIterator[str]:
        context = services.context_size(config["configurable"].get("model", "")) or SMALL_CONTEXT
        answer = min(task.get("max_tokens") or context, context // SUMMARY_SHARE)
        summary: Chain = PROMPT | model.bind(max_tokens=answer) | StrOutputParser()
        part_chars = (context - answer - PROMPT_TOKENS) * CHARS_PER_TOKEN
        slots = asyncio.Semaphore(services.at_once(CONCURRENCY))
        async for chunk in _Reduction(summary, config, part_chars, slots).stream(task["text"]):
            yield chunk

    chain: Runnable[Any, Any] = RunnableLambda(summarize)
    return chain.with_types(input_type=SummarizeInput, output_type=str)


class _Reduction:
    """One text on its way to its summary.

    Args:
        summary: summarizes a text that fits the model.
        part_chars: how long a text may be to fit, by estimate.
        slots: for parts that are with the model at the same time.
    """

    def __init__(self, summary: Chain, config: RunnableConfig, part_chars: int, slots: asyncio.Semaphore) -> None:
        self._summary = summary
        self._config = config
        self._part_chars = part_chars
        self._slots = slots

    async def stream(self, text: str) -> AsyncIterator[str]:
        """The summary, as it is written.

        Raises:
            ContextOverflowError: the model's context is too small for any part of the text.
        """
        while len(text) > self._part_chars:
            shorter = await self._condensed(text, self._part_chars)
            if len(shorter) >= len(text):
                raise ContextOverflowError("The text does not get shorter by summarizing parts that fit the model.")
            text = shorter
        try:
            async for chunk in self._summary.astream({"text": text}, self._config):
                yield chunk
        except ContextOverflowError:
            if len(text) <= SMALLEST_PART:
                raise
            self._part_chars = len(text) // 2
            async for chunk in self.stream(text):
                yield chunk

    async def _condensed(self, text: str, part_chars: int) -> str:
        """The summaries of the parts of `text`, one after the other."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._part(part)) for part in _parts(text, part_chars)]
        return "\n\n".join(task.result() for task in tasks)

    async def _part(self, text: str) -> str:
        try:
            async with self._slots:
                return await self._summary.ainvoke({"text": text}, self._config)
        except ContextOverflowError:
            if len(text) <= SMALLEST_PART:
                raise
            return await self._condensed(text, len(text) // 2)


def _parts(text: str, most: int) -> Iterator[str]:
    """The text in parts of up to `most` characters, each ended where a paragraph does, else a line, else a word.

    One pass: LangChain's splitters move all the words of a part once for each of them, which a part for a model with a
    large context has a hundred thousand of, and nobody else is served meanwhile.
    """
    start = 0
    while start < len(text):
        end, half = start + most, start + most // 2
        if end < len(text):
            # An end in the first half would make more parts than there have to be.
            ends = (text.rfind(mark, half, end) + len(mark) for mark in ("\n\n", "\n", " "))
            end = next((found for found in ends if found > half), end)
        if part := text[start:end].strip():
            yield part
        start = end
