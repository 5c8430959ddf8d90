"""Chains: one file is one chain, `build(model, services) -> Runnable`, served at `/chains/{file name}`.

`model` is a chat model that goes through the gateway, with the configurable field `model`, the name of the one that
answers (`config={"configurable": {"model": "..."}}`, empty for the gateway's default). Give the chain a typed input
and output with `with_types`: they become its schemas. The first line of the module's docstring is its description.
"""

from typing import Any, Protocol

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable

Model = Runnable[LanguageModelInput, BaseMessage]
Chain = Runnable[Any, str]


class Services(Protocol):
    """What a chain may ask of the gateway."""

    def context_size(self, model: str) -> int | None:
        """How many tokens the model takes, prompt and answer together; None when nobody knows.

        Args:
            model: a model's name, or empty for the default.
        """

    def at_once(self, most: int) -> int:
        """Of up to `most` model calls, how many a run may make at once: no more than its caller may have open."""

    def remembering(self, chain: Chain, question: str, history: str) -> Chain:
        """The chain with a memory, for runs with a `session_id` in their config's `configurable`.

        What was said in the session comes before the input's own history, and each question with its answer goes into
        it. Runs without a session remember nothing.

        Args:
            question: the field of the chain's input that is the user's turn, a string.
            history: the field that is a list of messages.
        """
