"""A conversation: a system prompt, the history so far and the next input, answered with a string."""

from typing import Any

from langchain_core.messages import AnyMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, Field

from chains import Chain, Model, Services


class ChatInput(BaseModel):
    """One turn of a conversation."""

    input: str = Field(min_length=1, description="What the user says now.")
    system: str = Field(default="You are a helpful assistant.", description="How the assistant should behave.")
    history: list[AnyMessage] = Field(default=[], description="The conversation so far, oldest message first.")


def build(model: Model, services: Services) -> Chain:
    chain: Chain = RunnableLambda(_messages, name="messages") | model | StrOutputParser()
    return chain.with_types(input_type=ChatInput, output_type=str)


# Plain messages and no template: whatever a user writes is text.
def _messages(turn: dict[str, Any]) -> list[BaseMessage]:
    return [SystemMessage(turn["system"]), *turn["history"], HumanMessage(turn["input"])]
