"""A conversation: a system prompt, the history so far and the next input, answered with a string.

With a `session_id` in the config's `configurable` the gateway remembers what was said.
"""

from typing import Annotated, Any

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, SystemMessage, convert_to_openai_messages
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, Field, ValidatorFunctionWrapHandler, WrapValidator

from chains import Chain, Model, Services

# What an OpenAI message may consist of, and what each block has under its own name. LangChain reads other providers'
# blocks too, by keys that say so, and fails late on malformed ones.
_BLOCKS = {"text": str, "image_url": dict, "input_audio": dict, "file": dict}


def _readable(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """A message that the model can be sent. LangChain's own check raises what it likes, not only ValueErrors."""
    try:
        message = validate(value)
        if isinstance(message.content, list):
            message.content = [_readable_block(block) for block in message.content]
        convert_to_openai_messages(message)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("not a message of a known form") from error
    return message


def _readable_block(block: Any) -> Any:
    if isinstance(block, str):
        return block
    type_ = block["type"]
    if type_ not in _BLOCKS:
        raise ValueError(f"a content block is none of {', '.join(_BLOCKS)}")
    if not isinstance(block[type_], _BLOCKS[type_]):
        raise ValueError(f"a content block's '{type_}' is of another type")
    return {"type": type_, type_: block[type_]}


class ChatInput(BaseModel):
    """One turn of a conversation."""

    input: str = Field(min_length=1, description="What the user says now.")
    system: str = Field(default="You are a helpful assistant.", description="How the assistant should behave.")
    history: list[Annotated[AnyMessage, WrapValidator(_readable)]] = Field(
        default=[], description="The conversation so far, oldest message first."
    )
    max_tokens: int = Field(default=0, ge=0, description="How long the answer may be, in tokens; 0 for no bound.")


def build(model: Model, services: Services) -> Chain:
    def answer(turn: dict[str, Any]) -> Chain:
        most = turn.get("max_tokens")
        bounded = model.bind(max_tokens=most) if most else model
        return RunnableLambda(_messages, name="messages") | bounded | StrOutputParser()

    chain = services.remembering(RunnableLambda(answer), "input", "history")
    return chain.with_types(input_type=ChatInput, output_type=str)


# Plain messages and no template: whatever a user writes is text.
def _messages(turn: dict[str, Any]) -> list[BaseMessage]:
    return [SystemMessage(turn["system"]), *turn["history"], HumanMessage(turn["input"])]
