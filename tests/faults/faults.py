"""What engines do wrong."""

import asyncio
import gzip
from typing import Any

from tests.faults.upstream import Fault, Reply, reset, well
from tests.gateway.raw_server import END, STREAM_HEAD, chunk, event, sized


async def forever() -> None:
    await asyncio.Event().wait()


# Before a word is said


async def closes(reply: Reply) -> None:
    raise ConnectionError


async def resets(reply: Reply) -> None:
    reset(reply.writer)
    raise ConnectionError


async def says_nothing(reply: Reply) -> None:
    await forever()


async def sends_headers_only(reply: Reply) -> None:
    reply.writer.write(STREAM_HEAD if reply.body.get("stream") else sized(reply.whole())[:-20])
    await forever()


async def sends_pings_only(reply: Reply) -> None:
    if not reply.body.get("stream"):
        await forever()
    reply.writer.write(STREAM_HEAD)
    while True:
        reply.writer.write(chunk(b": ping\n\n"))
        await reply.writer.drain()
        await asyncio.sleep(0.05)


def answers(status: str, body: bytes = b'{"error":{"message":"no"}}', **headers: Any) -> Fault:
    async def fault(reply: Reply) -> None:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{lines}content-length: {len(body)}\r\n\r\n"
        reply.writer.write(head.encode() + body)

    return fault


async def sends_a_page(reply: Reply) -> None:
    reply.writer.write(sized(b"<html>", content_type="text/html"))


async def zips(reply: Reply) -> None:
    body = gzip.compress(reply.whole())
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n"
    reply.writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)


async def succeeds_with_an_error(reply: Reply) -> None:
    body = b'{"error":{"message":"out of memory","code":500}}'
    reply.writer.write(STREAM_HEAD + chunk(event(body)) + END if reply.body.get("stream") else sized(body))


def answers_whole(body: bytes) -> Fault:
    """Under a status of success; a stream has nothing in it."""

    async def fault(reply: Reply) -> None:
        reply.writer.write(STREAM_HEAD + END if reply.body.get("stream") else sized(body))

    return fault


async def never_ends_its_headers(reply: Reply) -> None:
    reply.writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        reply.writer.write(b"x-more: " + b"x" * 4000 + b"\r\n")
        await reply.writer.drain()


# In the middle of a stream; a whole answer breaks off as well


def _after(tokens: int, then: Fault) -> Fault:
    async def fault(reply: Reply) -> None:
        if reply.body.get("stream"):
            reply.begin(tokens)
        else:
            reply.writer.write(sized(reply.whole())[:-10])
        await reply.writer.drain()
        await asyncio.sleep(0.05)  # a reset overtakes what has not been read yet
        await then(reply)

    return fault


def closes_after(tokens: int) -> Fault:
    return _after(tokens, closes)


def resets_after(tokens: int) -> Fault:
    return _after(tokens, resets)


def stalls_after(tokens: int, then: Fault = says_nothing) -> Fault:
    return _after(tokens, then)


async def pings(reply: Reply) -> None:
    """For ever, where the next token should come."""
    while reply.body.get("stream"):
        reply.send(b": ping\n\n")
        await reply.writer.drain()
        await asyncio.sleep(0.05)
    await forever()


async def gives_up(reply: Reply) -> None:
    """As vLLM ends what it was told to abort."""
    if not reply.body.get("stream"):
        reply.writer.write(sized(reply.whole().replace(b'"finish_reason": "stop"', b'"finish_reason": "abort"')))
        return
    reply.begin(6)
    await reply.writer.drain()
    await asyncio.sleep(0.05)
    reply.send(reply.event(finish_reason="abort", **({"delta": {}} if reply.chat else {"text": ""})) + DONE_ONLY)
    reply.writer.write(END)


def sends_after(tokens: int, data: bytes) -> Fault:
    """Ends its stream as if nothing had happened behind these bytes; a whole answer is one that is none."""

    async def fault(reply: Reply) -> None:
        if not reply.body.get("stream"):
            reply.writer.write(sized(b"nonsense"))
            return
        reply.begin(tokens)
        reply.writer.write(chunk(data) + END)

    return fault


# Strange, and still an answer


async def forgets_done(reply: Reply) -> None:
    if not reply.body.get("stream"):
        return await well(reply)
    reply.begin()
    return reply.finish(done=b"")


def after_its_last_word(then: Fault) -> Fault:
    """All is said, and why it ends; only the stream's own end is missing."""

    async def fault(reply: Reply) -> None:
        if not reply.body.get("stream"):
            return await well(reply)
        reply.begin()
        reply.finish(done=b"", end=b"")
        await reply.writer.drain()
        await asyncio.sleep(0.05)
        return await then(reply)

    return fault


async def says_who_speaks_each_time(reply: Reply) -> None:
    if not (reply.body.get("stream") and reply.chat):  # a completion has no roles
        return await well(reply)
    reply.writer.write(STREAM_HEAD)
    for text in reply.tokens:
        reply.send(reply.event(delta={"role": "assistant", "content": text}))
    return reply.finish()


DONE_ONLY = event(b"[DONE]")
BEFORE: dict[str, Fault] = {
    "closes": closes,
    "resets": resets,
    "says nothing": says_nothing,
    "headers only": sends_headers_only,
    "pings only": sends_pings_only,
    "500": answers("500 Internal Server Error"),
    "503": answers("503 Service Unavailable"),
    "503 with retry-after": answers("503 Service Unavailable", retry_after=1, retry_after_ms=200),
    "429": answers("429 Too Many Requests"),
    "429 with retry-after": answers("429 Too Many Requests", retry_after=1, retry_after_ms=200),
    "html": sends_a_page,
    "gzip": zips,
    "error in a 200": succeeds_with_an_error,
    "error in a 200, later": answers_whole(b'{\n  "id": "c", "error": {"message": "out of memory"}\n}'),
    "nothing in a 200": answers_whole(b"{}"),
    "endless headers": never_ends_its_headers,
}
MIDDLE: dict[str, Fault] = {
    "cut before a word": closes_after(0),
    "cut": closes_after(3),
    "cut beside a character": closes_after(10),
    "reset": resets_after(5),
    "stall": stalls_after(4),
    "pings for tokens": stalls_after(4, pings),
    "given up": gives_up,
    "cut before the end": closes_after(99),
    "error event": sends_after(6, event(b'{"error":{"message":"out of memory"}}') + DONE_ONLY),
    "done without an end": sends_after(6, DONE_ONLY),
    "no JSON": sends_after(6, event(b"Internal Server Error") + DONE_ONLY),
    "half an event": sends_after(6, event(b'{"choices":[{"index":0,"delta":{"conte') + DONE_ONLY),
}
STRANGE: dict[str, Fault] = {
    "no done": forgets_done,
    "the role again and again": says_who_speaks_each_time,
    "cut for done": after_its_last_word(closes),
    "reset for done": after_its_last_word(resets),
    "stall for done": after_its_last_word(says_nothing),
}
