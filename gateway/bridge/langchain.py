"""The completion path as a LangChain chat model, in the same process.

A chain that calls this model takes the path of every other request. Options
(`temperature`, `max_tokens`, `response_format`, `tools`, ...) are the OpenAI request's own; pass them with `bind` or
per call, and they reach the engine as they are. Cancelling the task that calls the model stops the engine.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from langchain_core import exceptions as lc
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    InvalidToolCall,
    ToolCall,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, SkipValidation

from gateway import context
from gateway.bridge.failures import understood
from gateway.completion.answer import Answer
from gateway.completion.call import CompletionPath
from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call
from gateway.errors import ContextLengthExceeded, GatewayError, InvalidField

_BY_STATUS: dict[int, type[lc.ModelError]] = {
    401: lc.ModelAuthenticationError,
    403: lc.ModelPermissionDeniedError,
    404: lc.ModelNotFoundError,
    429: lc.ModelRateLimitError,
    503: lc.ModelConnectionError,
    504: lc.ModelTimeoutError,
}


class GatewayChatModel(BaseChatModel):
    """A chat model behind the gateway. Asynchronous only: the completion path lives on the event loop.

    Raises (all `langchain_core.exceptions.ModelError`, with the `GatewayError` as their cause):
        ContextOverflowError: the prompt does not fit the model.
        ModelNotFoundError, ModelInvalidRequestError, ModelRateLimitError, ...: by the gateway error's status.
    """

    path: Annotated[CompletionPath, SkipValidation] = Field(exclude=True, repr=False)
    model: str = Field(default="", description="The model that answers; empty means the gateway's first chat model.")

    @property
    def _llm_type(self) -> str:
        return "llm-access-gateway"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offers `tools` to the model; `tool_choice` is "auto", "none", "any" (one of them) or a tool's name."""
        if tool_choice == "any":
            kwargs["tool_choice"] = "required"
        elif tool_choice in ("auto", "none", "required"):
            kwargs["tool_choice"] = tool_choice
        elif tool_choice:
            kwargs["tool_choice"] = {"type": "function", "function": {"name": tool_choice}}
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("The gateway's model is asynchronous: use ainvoke, abatch or astream.")

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        try:
            async with aclosing(await self._send(messages, stop, kwargs, stream=False)) as answer:
                return _result(await answer.json())
        except GatewayError as error:
            raise _model_error(error) from error

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        try:
            async with aclosing(await self._send(messages, stop, kwargs, stream=True)) as answer:
                async for event in answer.events():
                    if chunk := _chunk(event):
                        yield chunk
        except GatewayError as error:
            raise _model_error(error) from error

    async def _send(
        self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any], *, stream: bool
    ) -> Answer:
        caller = context.current.get()
        payload = {
            **options,
            "model": self.model or self.path.catalog.default("chat", caller).model,
            "messages": _wire(messages),
            "stream": stream,
        }
        if stop:
            payload["stop"] = stop
        if stream:
            payload["stream_options"] = {"include_usage": True}
        return await self.path.send(Call.of(Endpoint.CHAT, payload), caller)


def _wire(messages: list[BaseMessage]) -> Any:
    try:
        return convert_to_openai_messages(messages)
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # what LangChain raises for a content block it cannot read
        raise InvalidField("A message has a content block of an unknown form.", param="messages") from error


def _model_error(error: GatewayError) -> lc.ModelError:
    if isinstance(error, ContextLengthExceeded):
        return lc.ContextOverflowError(error.message)
    by_class = lc.ModelInvalidRequestError if error.status < 500 else lc.ModelAPIError
    return _BY_STATUS.get(error.status, by_class)(error.message)


def _usage(usage: dict[str, Any]) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage.get("completion_tokens", 0),
        total_tokens=usage["total_tokens"],
    )


def _tool_calls(message: dict[str, Any]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Sorts what the model wrote into calls and into calls whose arguments are not JSON."""
    calls: list[ToolCall] = []
    broken: list[InvalidToolCall] = []
    for raw in message.get("tool_calls") or ():
        try:
            calls.append(ToolCall(**parse_tool_call(raw)))  # type: ignore[typeddict-item]
        except OutputParserException as error:
            broken.append(make_invalid_tool_call(raw, str(error)))
    return calls, broken


def _reasoning(message: dict[str, Any]) -> dict[str, Any]:
    text = message.get("reasoning_content")
    return {"reasoning_content": text} if text else {}


@understood()
def _result(body: dict[str, Any]) -> ChatResult:
    usage = _usage(body["usage"]) if body.get("usage") else None
    generations = []
    for choice in (body["choices"][0], *body["choices"][1:]):  # LangChain counts on one
        calls, broken = _tool_calls(choice["message"])
        message = AIMessage(
            content=choice["message"].get("content") or "",
            additional_kwargs=_reasoning(choice["message"]),
            tool_calls=calls,
            invalid_tool_calls=broken,
            usage_metadata=usage,
            response_metadata={"model_name": body["model"], "finish_reason": choice["finish_reason"]},
        )
        generations.append(ChatGeneration(message=message))
    return ChatResult(generations=generations)


@understood()
def _chunk(event: dict[str, Any]) -> ChatGenerationChunk | None:
    """One stream event as a chunk; None for an event that carries nothing (the first one, with the role alone)."""
    choice: dict[str, Any] = next(iter(event["choices"]), {})
    delta = choice.get("delta") or {}
    finish_reason = choice.get("finish_reason")
    message = AIMessageChunk(
        content=delta.get("content") or "",
        additional_kwargs=_reasoning(delta),
        tool_call_chunks=[
            tool_call_chunk(
                name=call["function"].get("name"),
                args=call["function"].get("arguments"),
                id=call.get("id"),
                index=call["index"],
            )
            for call in delta.get("tool_calls") or ()
        ],
        usage_metadata=_usage(event["usage"]) if event.get("usage") else None,
        response_metadata={"model_name": event["model"], "finish_reason": finish_reason} if finish_reason else {},
    )
    carries = message.content or message.tool_call_chunks or message.usage_metadata or message.response_metadata
    return ChatGenerationChunk(message=message) if carries or message.additional_kwargs else None
