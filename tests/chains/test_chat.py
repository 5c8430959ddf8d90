"""The chat chain, with LangChain's own fake model."""

from collections.abc import Iterator
from typing import Any

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk

from chains import Chain, chat


class Services:
    def context_size(self, model: str) -> int | None:
        return None

    def remembering(self, chain: Chain, question: str, history: str) -> Chain:
        return chain


async def test_streams_a_string_token_by_token() -> None:
    chain = chat.build(GenericFakeChatModel(messages=iter([AIMessage("one two three")])), Services())
    turn = {"input": "Hi", "system": "Be brief.", "history": [HumanMessage("a"), AIMessage("b")]}
    assert [chunk for chunk in [chunk async for chunk in chain.astream(turn)] if chunk.strip()] == [
        "one",
        "two",
        "three",
    ]


async def test_an_answer_may_be_bounded() -> None:
    asked = []

    class Asked(GenericFakeChatModel):
        def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
            asked.append(kwargs.get("max_tokens"))
            return super()._stream(*args, **kwargs)

    chain = chat.build(Asked(messages=iter([AIMessage("a"), AIMessage("b")])), Services())
    for bound in ({"max_tokens": 7}, {"max_tokens": 0}):
        assert [chunk async for chunk in chain.astream({"input": "Hi", "system": "", "history": []} | bound)]
    assert asked == [7, None]


def test_its_schemas_are_typed() -> None:
    chain = chat.build(GenericFakeChatModel(messages=iter([])), Services())
    assert chain.get_input_schema() is chat.ChatInput
    assert chain.get_output_schema().model_json_schema()["type"] == "string"
