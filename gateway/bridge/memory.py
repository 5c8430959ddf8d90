"""A chain with a memory: what was said in a session comes before what is said now, and both are kept.

LangChain's own RunnableWithMessageHistory is on its way out, and keeps a turn from a callback, where a failure is
logged and forgotten.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig
from langchain_core.runnables.utils import get_unique_config_specs

from gateway import context
from gateway.errors import UnprocessableInput
from gateway.sessions.store import MAX_BYTES, Sessions, Turn

SESSION = ConfigurableFieldSpec(
    id="session_id",
    annotation=str,
    name="Session",
    description="What was said under this name is remembered; empty for no memory.",
    default="",
    is_shared=True,
)
# Of the model's context, in characters per token: the memory gets three quarters of what English comes to.
_CHARACTERS_PER_TOKEN = 3

Chunks = AsyncGenerator[Any]


class Remembering(Runnable[dict[str, Any], str]):
    """A chain that remembers, where its run names a session. It is no run of its own in LangChain's traces.

    Args:
        question: the field of the input that is kept, with the answer.
        history: the field that what was said goes into.
        context_size: of a model in tokens, where it is known.

    Raises:
        SessionsUnavailable: a session is asked for and cannot be read, or the turn cannot be kept.
        TooManySessions: a new one is asked for, or sessions begun at the same time have taken its place.
    """

    def __init__(
        self,
        chain: Runnable[Any, str],
        question: str,
        history: str,
        sessions: Sessions,
        context_size: Callable[[str], int | None],
    ) -> None:
        self._chain = chain
        self._question = question
        self._history = history
        self._sessions = sessions
        self._context_size = context_size

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return get_unique_config_specs([*self._chain.config_specs, SESSION])

    def invoke(self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> str:
        raise NotImplementedError("The gateway's chains are asynchronous: use ainvoke, abatch or astream.")

    async def ainvoke(self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> str:
        async def whole(turn: dict[str, Any]) -> Chunks:
            yield await self._chain.ainvoke(turn, config, **kwargs)

        async with aclosing(self._run(input, config, whole)) as chunks:
            return "".join([chunk async for chunk in chunks])

    async def astream(
        self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[str]:
        def streamed(turn: dict[str, Any]) -> Chunks:
            return cast(Chunks, self._chain.astream(turn, config, **kwargs))

        async with aclosing(self._run(input, config, streamed)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _run(
        self, input_: dict[str, Any], config: RunnableConfig | None, run: Callable[[dict[str, Any]], Chunks]
    ) -> Chunks:
        configurable = (config or {}).get("configurable", {})
        session = configurable.get(SESSION.id)
        if not session:
            async with aclosing(run(input_)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        tenant, question, said = context.current.get().tenant, input_[self._question], ""
        if len(question.encode()) > MAX_BYTES:
            raise UnprocessableInput(f"A session keeps {MAX_BYTES} bytes; say less at once.", param=self._question)
        remembered = self._that_fit(await self._sessions.open(tenant, session), configurable.get("model", ""))
        while True:
            before = [*_messages(remembered), *input_[self._history]]
            try:
                async with aclosing(run({**input_, self._history: before})) as chunks:
                    async for chunk in chunks:
                        said += chunk
                        yield chunk
                break
            except ContextOverflowError:
                if said or not remembered:
                    raise
                remembered = remembered[(len(remembered) + 1) // 2 :]
        await self._sessions.add(tenant, session, Turn(question, said))

    def _that_fit(self, turns: Sequence[Turn], model: str) -> Sequence[Turn]:
        """The last ones that leave room for an answer, by estimate."""
        size = self._context_size(model)
        if size is None:
            return turns
        room, count = size * _CHARACTERS_PER_TOKEN, 0
        for turn in reversed(turns):
            room -= len(turn.question) + len(turn.answer)
            if room < 0:
                break
            count += 1
        return turns[len(turns) - count :]


def _messages(turns: Sequence[Turn]) -> list[BaseMessage]:
    return [message for turn in turns for message in (HumanMessage(turn.question), AIMessage(turn.answer))]
