"""Requests on llama.cpp's slots: each runs in a worker thread and can be left between any two of its events.

There are as many threads as slots, so llama.cpp's own queue stays empty: a request that finds no thread free waits
here, where leaving costs nothing. A request that runs reports its prompt's progress too, so that it has an event, and
with it a chance to be ended, after every step of the prefill as after every token.
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from xllamacpp.xllamacpp import Server

Json = dict[str, Any]
TOO_LONG = "exceed_context_size_error"
# One step of a model that is far too large for its cores takes some seconds. A grammar with too many ways to read what
# was written takes for ever, and every other request waits.
STALL_S = 60.0


class Rejected(Exception):
    """The engine refused the request, or failed on it: an HTTP status and the fields of OpenAI's error object."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}


class Slots:
    def __init__(self, server: Server, parallel: int) -> None:
        self._server = server
        self._parallel = parallel
        self._threads = ThreadPoolExecutor(parallel, thread_name_prefix="slot")
        self._jobs: set[Future[Any]] = set()
        self._asker = ThreadPoolExecutor(1, thread_name_prefix="asker")
        self._question: Future[Any] | None = None
        self._asked_at = 0.0

    def chat(self, request: Json) -> AsyncGenerator[Json, None]:
        """The chunks of a chat completion; see `_events`."""
        return self._events(self._server.handle_chat_completions, request)

    def completions(self, request: Json) -> AsyncGenerator[Json, None]:
        """The chunks of a text completion; see `_events`."""
        return self._events(self._server.handle_completions, request)

    async def embeddings(self, request: Json) -> Json:
        """One answer for all inputs, which go in groups of one per slot: the rest of a list ends with its client."""
        given = request.get("input")
        texts = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
        data: list[Json] = []
        tokens = 0
        answer: Json = {}
        for start in range(0, len(texts), self._parallel):
            answer = await self._embed(request | {"input": texts[start : start + self._parallel]})
            data += [item | {"index": start + item["index"]} for item in answer["data"]]
            tokens += answer["usage"]["prompt_tokens"]
        return answer | {"data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}

    async def metrics(self) -> str:
        """llama.cpp's own metrics in Prometheus' text form, and the number of requests that wait for a thread."""
        waiting = sum(not job.running() for job in tuple(self._jobs))
        text = await asyncio.to_thread(self._server.handle_metrics)
        return f"{text.rstrip()}\n# TYPE llamacpp:requests_waiting gauge\nllamacpp:requests_waiting {waiting}\n"

    def stalled(self) -> bool:
        """Whether llama.cpp has made no step for STALL_S, as far as one can tell who asks again and again."""
        if self._question is None or self._question.done():
            self._question, self._asked_at = self._asker.submit(self._server.handle_metrics), time.monotonic()
        return time.monotonic() - self._asked_at > STALL_S

    async def close(self) -> None:
        """Waits for the requests that have just been left; none may reach the event loop after its end."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        await asyncio.to_thread(self._asker.shutdown, cancel_futures=True)

    async def _events(self, handle: Callable[..., None], request: Json) -> AsyncGenerator[Json, None]:
        """The events of one request. Closing the generator, or cancelling the task that reads it, ends the request.

        Raises:
            Rejected: in place of an event; nothing follows.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Json | None] = asyncio.Queue()
        left = threading.Event()
        body = json.dumps(request | {"stream": True, "return_progress": True})

        def deliver(text: str) -> bool:
            if (event := json.loads(text)) is not None:
                loop.call_soon_threadsafe(events.put_nowait, event)
            return left.is_set()  # True ends the request in llama.cpp

        job = self._submit(handle, body, deliver)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(events.put_nowait, None))
        created: Json = {}
        try:
            while (event := await events.get()) is not None:
                _raise_error(event)
                if "prompt_progress" not in event:
                    # llama.cpp stamps each chunk when it leaves; one answer has one time.
                    created = created or {"created": event["created"]}
                    yield event | created
            _result(job)
        finally:
            left.set()
            job.cancel()

    async def _embed(self, request: Json) -> Json:
        job = self._submit(self._server.handle_embeddings, json.dumps(request))
        await asyncio.wait([asyncio.wrap_future(job)])
        answer: Json = json.loads(_result(job))
        _raise_error(answer)
        return answer

    def _submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        job = self._threads.submit(function, *args)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job


def _raise_error(event: Json) -> None:
    """llama.cpp's error events carry an HTTP status as their code, and two forms of the same too long prompt."""
    if error := event.get("error"):
        message, status, kind = error["message"], error.get("code", 500), error.get("type", "server_error")
        if "too large to process" in message:
            message, status, kind = message.partition(". ")[0], 400, TOO_LONG
        if kind == TOO_LONG:
            raise Rejected(status, message, code="context_length_exceeded")
        raise Rejected(status, message, kind)


def _result(job: Future[Any]) -> Any:
    """What the job returned. What it raised is llama.cpp's reading of the request: faults of its own come as events."""
    try:
        return job.result()
    except (ValueError, RuntimeError) as error:
        raise Rejected(400, str(error)) from error
