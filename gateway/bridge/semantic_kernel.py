"""The completion path as Semantic Kernel's chat service, in the same process, and the kernel that holds the skills.

Settings are the OpenAI request's own fields: those of `GatewayChatSettings`, and any other in `extension_data`.
Errors are `GatewayError`s; a kernel function wraps them and keeps them as the cause. Cancelling the task that calls the
service stops the engine.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from types import ModuleType
from typing import Annotated, Any, ClassVar

from pydantic import Field, SkipValidation
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.function_calling_utils import update_settings_from_function_call_configuration
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import (
    AuthorRole,
    ChatHistory,
    ChatMessageContent,
    FinishReason,
    FunctionCallContent,
    StreamingChatMessageContent,
    StreamingTextContent,
    TextContent,
)

import skills
from gateway import context
from gateway.bridge.discovery import discover
from gateway.bridge.failures import understood
from gateway.completion.answer import Answer
from gateway.completion.call import CompletionPath
from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call


class GatewayChatSettings(PromptExecutionSettings):
    """What a request may set; `tools` and `tool_choice` are filled by Semantic Kernel's function calling."""

    ai_model_id: Annotated[str | None, Field(serialization_alias="model")] = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | None = None


class GatewayChatCompletion(ChatCompletionClientBase):
    """A chat service behind the gateway; `ai_model_id` empty means the gateway's first chat model."""

    SUPPORTS_FUNCTION_CALLING: ClassVar[bool] = True

    path: Annotated[CompletionPath, SkipValidation] = Field(exclude=True, repr=False)
    ai_model_id: str = ""
    service_id: str = "gateway"

    def get_prompt_execution_settings_class(self) -> type[PromptExecutionSettings]:
        return GatewayChatSettings

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        async with aclosing(await self._send(chat_history, settings, stream=False)) as answer:
            return _messages(await answer.json())

    async def _inner_get_streaming_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings, function_invoke_attempt: int = 0
    ) -> AsyncGenerator[list[StreamingChatMessageContent], Any]:
        async with aclosing(await self._send(chat_history, settings, stream=True)) as answer:
            async for event in answer.events():
                yield _chunks(event, function_invoke_attempt)

    async def _send(self, history: ChatHistory, settings: PromptExecutionSettings, *, stream: bool) -> Answer:
        caller = context.current.get()
        payload: dict[str, Any] = {**settings.extension_data, **settings.prepare_settings_dict()}
        payload["model"] = payload.get("model") or self.ai_model_id or self.path.catalog.default("chat", caller).model
        payload |= {"messages": self._prepare_chat_history_for_request(history), "stream": stream}
        if stream:
            payload["stream_options"] = {"include_usage": True}
        return await self.path.send(Call.of(Endpoint.CHAT, payload), caller)

    def _update_function_choice_settings_callback(self) -> Callable[..., None]:
        return update_settings_from_function_call_configuration

    def _reset_function_choice_settings(self, settings: PromptExecutionSettings) -> None:
        if isinstance(settings, GatewayChatSettings):
            settings.tools = settings.tool_choice = None


class _Services:
    """What the gateway tells a skill."""

    def now(self) -> datetime:
        return datetime.now(UTC)


def load(path: CompletionPath, package: ModuleType = skills) -> Kernel:
    """A kernel with every skill of `package`, on the completion path.

    Raises:
        LoadError: a module does not import, or its `build` fails.
    """
    # It logs each failing function at ERROR, the client's mistakes as well; the door tells those from defects.
    logging.getLogger("semantic_kernel.functions.kernel_function").setLevel(logging.CRITICAL)
    kernel = Kernel()
    kernel.add_service(GatewayChatCompletion(path=path))
    for found in discover(package):
        plugin = found.build(_Services())
        kernel.add_plugin(plugin, plugin_name=found.name, description=found.description)
    return kernel


def _tool_calls(message: dict[str, Any]) -> list[FunctionCallContent]:
    return [
        FunctionCallContent(
            id=call.get("id"),
            index=call.get("index"),
            name=call["function"].get("name"),
            arguments=call["function"].get("arguments"),
        )
        for call in message.get("tool_calls") or ()
    ]


def _finish_reason(choice: dict[str, Any]) -> FinishReason | None:
    """None also for one that Semantic Kernel has no name for."""
    reason = choice.get("finish_reason")
    return FinishReason(reason) if reason in set(FinishReason) else None


@understood()
def _messages(body: dict[str, Any]) -> list[ChatMessageContent]:
    return [_message(body, choice) for choice in (body["choices"][0], *body["choices"][1:])]


def _message(body: dict[str, Any], choice: dict[str, Any]) -> ChatMessageContent:
    items: list[Any] = _tool_calls(choice["message"])
    if text := choice["message"].get("content"):
        items.append(TextContent(text=text))
    return ChatMessageContent(
        role=AuthorRole.ASSISTANT,
        items=items,
        finish_reason=_finish_reason(choice),
        ai_model_id=body["model"],
        metadata={"usage": body.get("usage")},
    )


@understood()
def _chunks(event: dict[str, Any], attempt: int) -> list[StreamingChatMessageContent]:
    return [_chunk(event, choice, attempt) for choice in event["choices"] or [{}]]


def _chunk(event: dict[str, Any], choice: dict[str, Any], attempt: int) -> StreamingChatMessageContent:
    delta, index = choice.get("delta") or {}, choice.get("index", 0)
    items: list[Any] = _tool_calls(delta)
    if text := delta.get("content"):
        items.append(StreamingTextContent(choice_index=index, text=text))
    return StreamingChatMessageContent(
        role=AuthorRole.ASSISTANT,
        choice_index=index,
        items=items,
        finish_reason=_finish_reason(choice),
        ai_model_id=event["model"],
        metadata={"usage": event["usage"]} if event.get("usage") else {},
        function_invoke_attempt=attempt,
    )
