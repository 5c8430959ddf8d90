"""The chat model that chains get: OpenAI's protocol in LangChain's terms, both ways."""

import asyncio
from typing import Any

import pytest
from langchain_core import exceptions as lc
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel

from gateway.bridge.langchain import GatewayChatModel
from gateway.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    GatewayError,
    ModelNotFound,
    NoReplica,
    PermissionDenied,
    StreamInterrupted,
    UpstreamRejected,
)
from tests.gateway.scripted_path import Script, ScriptedPath

pytestmark = pytest.mark.usefixtures("caller")

CALL = {
    "index": 0,
    "id": "call-1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
}
FRAGMENTS: list[dict[str, Any]] = [
    {"index": 0, "id": "call-1", "type": "function", "function": {"name": "weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city": '}},
    {"index": 0, "function": {"arguments": '"Rome"}'}},
    {"index": 1, "id": "call-2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
]


@tool
def weather(city: str) -> str:
    """Tells the weather."""
    return city


@pytest.fixture
def model(path: ScriptedPath) -> GatewayChatModel:
    return GatewayChatModel(path=path)


async def test_a_whole_answer(model: GatewayChatModel, path: ScriptedPath) -> None:
    answer = await model.bind(temperature=0, response_format={"type": "json_object"}).ainvoke("Hi", stop=["."])
    assert answer.content == "Hello world"
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == "small"
    assert answer.usage_metadata == {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    payload = path.calls[0].payload
    assert (payload["temperature"], payload["stop"], payload["stream"]) == (0, ["."], False)
    assert payload["response_format"] == {"type": "json_object"}
    assert path.contexts[0].tenant == "team-a"
    assert path.answers[0].closed.is_set()


async def test_a_streamed_answer(model: GatewayChatModel, path: ScriptedPath) -> None:
    chunks = [chunk async for chunk in model.astream("Hi")]
    assert [chunk.content for chunk in chunks][:2] == ["Hello", " world"]
    total = sum(chunks[1:], chunks[0])
    assert total.response_metadata["finish_reason"] == "stop"
    assert total.response_metadata["model_name"] == "small"
    assert total.usage_metadata == {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9}
    assert path.answers[0].finished
    assert path.answers[0].closed.is_set()


async def test_tools_are_offered_and_their_calls_come_back(model: GatewayChatModel, path: ScriptedPath) -> None:
    broken = {"id": "call-2", "type": "function", "function": {"name": "weather", "arguments": "{"}}
    path.reply = lambda call: Script(tokens=(), tool_calls=[CALL, broken], finish_reason="tool_calls")
    answer = await model.bind_tools([weather], tool_choice="any").ainvoke("Hi")
    assert answer.tool_calls == [{"name": "weather", "args": {"city": "Rome"}, "id": "call-1", "type": "tool_call"}]
    assert answer.invalid_tool_calls[0]["args"] == "{"
    payload = path.calls[0].payload
    assert payload["tools"][0]["function"]["name"] == "weather"
    assert payload["tool_choice"] == "required"

    await model.ainvoke([HumanMessage("Hi"), answer, ToolMessage("Sunny", tool_call_id="call-1")])
    sent = path.calls[1].payload["messages"]
    assert sent[1]["tool_calls"][0]["id"] == "call-1"
    assert sent[2] == {"role": "tool", "tool_call_id": "call-1", "content": "Sunny"}


async def test_tool_calls_are_streamed_in_fragments(model: GatewayChatModel, path: ScriptedPath) -> None:
    path.reply = lambda call: Script(tokens=(), tool_calls=FRAGMENTS, finish_reason="tool_calls")
    chunks = [chunk async for chunk in model.bind_tools([weather], tool_choice="weather").astream("Hi")]
    total = sum(chunks[1:], chunks[0])
    assert isinstance(total, AIMessageChunk)
    assert [(call["name"], call["args"]) for call in total.tool_calls] == [
        ("weather", {"city": "Rome"}),
        ("weather", {}),
    ]
    assert path.calls[0].payload["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


async def test_structured_output(model: GatewayChatModel, path: ScriptedPath) -> None:
    class Weather(BaseModel):
        """The weather."""

        city: str

    call = {**CALL, "function": {"name": "Weather", "arguments": '{"city": "Rome"}'}}
    path.reply = lambda _: Script(tokens=(), tool_calls=[call], finish_reason="tool_calls")
    assert await model.with_structured_output(Weather).ainvoke("Hi") == Weather(city="Rome")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ContextLengthExceeded("Long."), lc.ContextOverflowError),
        (ModelNotFound("No."), lc.ModelNotFoundError),
        (PermissionDenied("No."), lc.ModelPermissionDeniedError),
        (NoReplica("No."), lc.ModelConnectionError),
        (DeadlineExceeded("Late."), lc.ModelTimeoutError),
        (UpstreamRejected("Slow down.", status=429, headers={}), lc.ModelRateLimitError),
        (UpstreamRejected("No.", status=400, headers={}), lc.ModelInvalidRequestError),
        (StreamInterrupted("Cut."), lc.ModelAPIError),
    ],
)
async def test_errors_are_langchains_with_ours_as_the_cause(
    model: GatewayChatModel, path: ScriptedPath, error: GatewayError, expected: type[Exception]
) -> None:
    path.reply = lambda call: error
    with pytest.raises(expected) as whole:
        await model.ainvoke("Hi")
    assert whole.value.__cause__ is error
    path.reply = lambda call: Script(tokens=["One", error])
    with pytest.raises(expected) as streamed:
        async for _ in model.astream("Hi"):
            pass
    assert streamed.value.__cause__ is error
    assert path.answers[0].closed.is_set()


@pytest.mark.parametrize("call", ["ainvoke", "astream"])
async def test_cancelling_closes_the_answer(model: GatewayChatModel, path: ScriptedPath, call: str) -> None:
    path.reply = lambda _: Script(tokens=["One"], hold=asyncio.Event())
    chain = ChatPromptTemplate.from_template("{text}") | model | StrOutputParser()

    async def run() -> None:
        if call == "ainvoke":
            await chain.ainvoke({"text": "Hi"})
        async for _ in chain.astream({"text": "Hi"}):
            pass

    task = asyncio.create_task(run())
    await path.called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        await path.answers[0].closed.wait()


async def test_a_reader_who_leaves_closes_the_answer(model: GatewayChatModel, path: ScriptedPath) -> None:
    path.reply = lambda _: Script(tokens=["One", "Two"], hold=asyncio.Event())
    chunks: Any = (ChatPromptTemplate.from_template("{text}") | model | StrOutputParser()).astream({"text": "Hi"})
    assert await anext(chunks) == "One"
    await chunks.aclose()
    async with asyncio.timeout(5):
        await path.answers[0].closed.wait()


async def test_a_named_model(path: ScriptedPath) -> None:
    with pytest.raises(lc.ModelNotFoundError):
        await GatewayChatModel(path=path, model="other").ainvoke("Hi")


def test_there_is_no_synchronous_way(model: GatewayChatModel) -> None:
    with pytest.raises(NotImplementedError, match="asynchronous"):
        model.invoke("Hi")


async def test_history_keeps_its_order(model: GatewayChatModel, path: ScriptedPath) -> None:
    await model.ainvoke([("system", "Be brief."), AIMessage("Hello"), HumanMessage([{"type": "text", "text": "Hi"}])])
    assert path.calls[0].payload["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Hi"},
    ]
