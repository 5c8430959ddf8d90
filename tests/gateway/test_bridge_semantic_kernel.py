"""The chat service that skills get."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import ChatHistory, FinishReason, FunctionCallContent
from semantic_kernel.functions import kernel_function

from gateway.bridge.semantic_kernel import GatewayChatCompletion, GatewayChatSettings
from gateway.errors import NoReplica
from tests.gateway.scripted_path import Script, ScriptedPath

pytestmark = pytest.mark.usefixtures("caller")


class Weather:
    @kernel_function
    def today(self, city: str) -> str:
        """Tells the weather."""
        return f"Sunny in {city}"


FRAGMENTS: list[dict[str, Any]] = [
    {"index": 0, "id": "call-1", "type": "function", "function": {"name": "weather-today", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city": "Rome"}'}},
]
WHOLE = [{"id": "call-1", "type": "function", "function": {"name": "weather-today", "arguments": '{"city": "Rome"}'}}]


@pytest.fixture
def service(path: ScriptedPath) -> GatewayChatCompletion:
    return GatewayChatCompletion(path=path)


def history() -> ChatHistory:
    chat = ChatHistory(system_message="Be brief.")
    chat.add_user_message("Hi")
    return chat


async def test_a_whole_answer(service: GatewayChatCompletion, path: ScriptedPath) -> None:
    settings = PromptExecutionSettings(temperature=0.5, extension_data={"min_p": 0.1})
    answer = (await service.get_chat_message_contents(history(), settings))[0]
    assert str(answer) == "Hello world"
    assert answer.finish_reason is FinishReason.STOP
    assert answer.metadata["usage"]["completion_tokens"] == 2
    payload = path.calls[0].payload
    assert payload["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert (payload["model"], payload["temperature"], payload["min_p"]) == ("small", 0.5, 0.1)
    assert "service_id" not in payload
    assert path.answers[0].closed.is_set()


async def test_a_streamed_answer(service: GatewayChatCompletion, path: ScriptedPath) -> None:
    chunks = [chunk async for chunk in service.get_streaming_chat_message_content(history(), GatewayChatSettings())]
    assert "".join(str(chunk) for chunk in chunks) == "Hello world"
    assert [chunk.finish_reason for chunk in chunks if chunk and chunk.finish_reason] == [FinishReason.STOP]
    assert path.answers[0].closed.is_set()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_model_calls_a_function(service: GatewayChatCompletion, path: ScriptedPath, stream: bool) -> None:
    kernel = Kernel()
    kernel.add_plugin(Weather(), "weather")
    calls = FRAGMENTS if stream else WHOLE
    path.reply = lambda call: (
        Script(tokens=(), tool_calls=calls, finish_reason="tool_calls") if len(path.calls) == 1 else Script()
    )
    settings = GatewayChatSettings(function_choice_behavior=FunctionChoiceBehavior.Auto())
    if stream:
        chunks = service.get_streaming_chat_message_content(history(), settings, kernel=kernel)
        text = "".join([str(chunk) async for chunk in chunks if not _calls(chunk)])
        assert text.endswith("Hello world")
    else:
        assert str(await service.get_chat_message_content(history(), settings, kernel=kernel)) == "Hello world"
    assert path.calls[0].payload["tools"][0]["function"]["name"] == "weather-today"
    assert path.calls[0].payload["tool_choice"] == "auto"
    assert path.calls[1].payload["messages"][-2]["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}'
    assert path.calls[1].payload["messages"][-1]["content"] == "Sunny in Rome"


def _calls(chunk: Any) -> bool:
    return any(isinstance(item, FunctionCallContent) for item in chunk.items)


async def test_errors_pass(service: GatewayChatCompletion, path: ScriptedPath) -> None:
    path.reply = lambda call: NoReplica("Nobody.")
    with pytest.raises(NoReplica):
        await service.get_chat_message_contents(history(), GatewayChatSettings())


async def test_cancelling_closes_the_answer(service: GatewayChatCompletion, path: ScriptedPath) -> None:
    path.reply = lambda call: Script(hold=asyncio.Event())
    task = asyncio.create_task(service.get_chat_message_contents(history(), GatewayChatSettings()))
    await path.called.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert path.answers[0].closed.is_set()


HANDLEBARS = """
import asyncio, sys
import gateway.app
from semantic_kernel import Kernel
from semantic_kernel.exceptions import HandlebarsTemplateSyntaxError
from semantic_kernel.functions import KernelArguments
from semantic_kernel.prompt_template import HandlebarsPromptTemplate, PromptTemplateConfig

def template(text):
    config = PromptTemplateConfig(template=text, template_format="handlebars")
    return HandlebarsPromptTemplate(prompt_template_config=config)

assert "pymeta" not in sys.modules
try:
    template("{{#if name}}Hello{{/each}}")
except HandlebarsTemplateSyntaxError as error:
    print(type(error.__cause__))
for text in ("Hello {{name}}", "Bye {{name}}"):
    print(asyncio.run(template(text).render(Kernel(), KernelArguments(name="Ann"))))
"""


def test_handlebars_are_loaded_when_they_are_used() -> None:
    """In a process of its own, since others of these tests import Semantic Kernel without the gateway."""
    done = subprocess.run([sys.executable, "-c", HANDLEBARS], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["<class 'pybars._compiler.PybarsError'>", "Hello Ann", "Bye Ann"], done.stderr
