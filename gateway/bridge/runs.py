"""One chain, run the five ways LangServe's protocol knows.

Every run ends with its task: cancel the task, or close the generator, and the model call behind it stops.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, cast

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tracers.log_stream import LogStreamCallbackHandler, RunLogPatch
from langserve.serialization import WellKnownLCSerializer

from gateway.bridge.event_stream import event
from gateway.bridge.places import divided

Chain = Runnable[Any, Any]
Chunks = AsyncGenerator[Any]
serializer = WellKnownLCSerializer()

_MODEL_ANSWERS = {"on_chat_model_stream", "on_chat_model_end", "on_llm_stream", "on_llm_end"}


async def batch(chain: Chain, inputs: Sequence[Any], configs: Sequence[RunnableConfig]) -> list[Any]:
    """All outputs, in order. The first failure stops the rest, which `abatch` would let run on."""
    places = divided(len(inputs))

    async def run(input_: Any, config: RunnableConfig) -> Any:
        async with places:
            return await chain.ainvoke(input_, config)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(*of)) for of in zip(inputs, configs, strict=True)]
    return [task.result() for task in tasks]


async def stream(chain: Chain, input_: Any, config: RunnableConfig) -> AsyncGenerator[bytes]:
    """`metadata` and a `data` event per chunk; the metadata waits for the first chunk."""
    head = event("metadata", serializer.dumps({"run_id": config["run_id"]}))
    async with aclosing(cast(Chunks, chain.astream(input_, config))) as chunks:
        async for chunk in chunks:
            yield head + event("data", serializer.dumps(chunk))
            head = b""


async def stream_events(
    chain: Chain, input_: Any, config: RunnableConfig, filters: dict[str, Any]
) -> AsyncGenerator[bytes]:
    """LangChain's events, version 2, without the metadata that LangChain keeps for itself."""
    async with aclosing(cast(Chunks, chain.astream_events(input_, config, version="v2", **filters))) as items:
        async for data in _once_answered(items, _answers, _public_event):
            yield data


async def stream_log(
    chain: Chain, input_: Any, config: RunnableConfig, filters: dict[str, Any]
) -> AsyncGenerator[bytes]:
    """The run's log as JSON patches."""
    async with aclosing(_patches(chain, input_, config, filters)) as patches:
        async for data in _once_answered(patches, _has_output, lambda patch: {"ops": patch.ops}):
            yield data


async def _once_answered(
    items: AsyncGenerator[Any], answers: Callable[[Any], bool], form: Callable[[Any], Any]
) -> AsyncGenerator[bytes]:
    """Holds back what comes before the first answer of a model or of the chain: until then a failure has a status."""
    held, answered = b"", False
    async for item in items:
        held += event("data", serializer.dumps(form(item)))
        answered = answered or answers(item)
        if answered:
            yield held
            held = b""
    if held:
        yield held


def _answers(item: dict[str, Any]) -> bool:
    of_the_chain = not item["parent_ids"] and not item["event"].endswith("_start")
    return of_the_chain or item["event"] in _MODEL_ANSWERS


def _has_output(patch: RunLogPatch) -> bool:
    """Whether it holds a chunk of the chain's output, or a model's token."""
    paths = [op["path"] for op in patch.ops]
    return "/streamed_output/-" in paths or any(path.endswith("/streamed_output_str/-") for path in paths)


def _public_event(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "metadata": {key: value for key, value in item["metadata"].items() if not key.startswith("__")}}


async def _patches(
    chain: Chain, input_: Any, config: RunnableConfig, filters: dict[str, Any]
) -> AsyncGenerator[RunLogPatch]:
    """What `Runnable.astream_log` does, except that a reader who leaves ends the run: that one waits for it."""
    log = LogStreamCallbackHandler(auto_close=False, **filters)

    async def run() -> None:
        output: Any = None
        try:
            async with aclosing(cast(Chunks, chain.astream(input_, {**config, "callbacks": [log]}))) as chunks:
                async for chunk in chunks:
                    output = _sum(output, chunk)
                    await log.send_stream.send(RunLogPatch({"op": "add", "path": "/streamed_output/-", "value": chunk}))
            await log.send_stream.send(RunLogPatch({"op": "replace", "path": "/final_output", "value": output}))
        finally:
            await log.send_stream.aclose()

    task = asyncio.create_task(run())
    try:
        async for patch in log:
            yield patch
        await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _sum(output: Any, chunk: Any) -> Any:
    if output is None:
        return chunk
    try:
        return output + chunk
    except TypeError:  # chunks that do not add up, such as numbered steps: the last one is the output
        return chunk
