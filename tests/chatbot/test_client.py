"""The chat page's client against a real engine, and against a scripted one for exact faults."""

import asyncio
from collections.abc import Callable

import pytest

from chatbot.client import Failure, Gateway, Interrupted, KeyRequired, Prompt, Refused, Unreachable
from tests.chatbot.engine import MODEL
from tests.chatbot.upstream import Upstream, error_event, piece, refuse, reply, silence, stream
from tests.polling import eventually


def prompt(question: str, max_tokens: int = 300, model: str = MODEL) -> Prompt:
    return Prompt(model, [{"role": "user", "content": question}], temperature=0, max_tokens=max_tokens)


async def failure_of(gateway: Gateway, key: str | None = None) -> tuple[str, Failure]:
    """What an answer had become when it failed, and how it failed."""
    text = ""
    try:
        async for delta in gateway.answer(prompt("Hi"), key):
            text += delta.text
    except Failure as failure:
        return text, failure
    raise AssertionError(f"no failure after {text!r}")


async def test_an_answer_comes_in_pieces(engine_url: str) -> None:
    async with Gateway(engine_url) as gateway:
        assert await gateway.models() == [MODEL]
        deltas = [delta async for delta in gateway.answer(prompt("What is a river?", max_tokens=12))]
    assert len([delta for delta in deltas if delta.text]) > 3
    assert deltas[-1].finish_reason == "length"


async def test_leaving_an_answer_stops_the_engine(engine_url: str, slots_busy: Callable[[], int]) -> None:
    async with Gateway(engine_url) as gateway:
        answer = gateway.answer(prompt("Write a very long story about a river.", max_tokens=1500))
        while not (await anext(answer)).text:
            pass
        assert slots_busy() == 1
        await answer.aclose()
        await eventually(lambda: slots_busy() == 0)


async def test_cancelling_before_the_first_piece_leaves_too(upstream: Upstream) -> None:
    upstream.chat = silence
    async with Gateway(upstream.url) as gateway:
        reading = asyncio.ensure_future(anext(gateway.answer(prompt("Hi"))))
        await eventually(lambda: upstream.requests)
        reading.cancel()
        await eventually(lambda: upstream.gone == 1)
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_the_engines_own_verdict_is_passed_on(engine_url: str) -> None:
    async with Gateway(engine_url) as gateway:
        with pytest.raises(Refused, match="context"):
            await anext(gateway.answer(prompt("river " * 4000)))


async def test_an_error_event_interrupts(upstream: Upstream) -> None:
    upstream.chat = stream("It began ", "well ", error_event("Every replica is gone."))
    async with Gateway(upstream.url) as gateway:
        text, failure = await failure_of(gateway)
    assert (text, type(failure), failure.message) == ("It began well ", Interrupted, "Every replica is gone.")


async def test_a_stream_that_ends_early_interrupts(upstream: Upstream) -> None:
    """A clean end of the connection proves nothing; a finish reason does."""
    upstream.chat = stream("It began ")
    async with Gateway(upstream.url) as gateway:
        text, failure = await failure_of(gateway)
    assert (text, type(failure)) == ("It began ", Interrupted)


async def test_a_finish_reason_is_enough(upstream: Upstream) -> None:
    upstream.chat = stream("All ", piece("of it", "stop"))
    async with Gateway(upstream.url) as gateway:
        assert "".join([delta.text async for delta in gateway.answer(prompt("Hi"))]) == "All of it"


@pytest.mark.parametrize(
    ("status", "kind"), [(401, KeyRequired), (404, Refused), (400, Refused), (429, Refused), (503, Refused)]
)
async def test_a_refusal_is_told_in_the_gateways_words_and_once(
    upstream: Upstream, status: int, kind: type[Failure]
) -> None:
    upstream.chat = upstream.models = refuse(status, "This is why.")
    async with Gateway(upstream.url) as gateway:
        text, failure = await failure_of(gateway)
        assert (text, type(failure), failure.message) == ("", kind, "This is why.")
        with pytest.raises(kind, match="This is why"):
            await gateway.models()
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("body", [{}, [], "hello", {"data": "no"}, {"data": [{"tasks": 1}]}, None])
async def test_a_server_that_is_no_gateway(upstream: Upstream, body: object) -> None:
    upstream.models = reply(200, body)
    async with Gateway(upstream.url) as gateway:
        with pytest.raises(Refused, match="not as a gateway does"):
            await gateway.models()


async def test_nobody_there(upstream: Upstream) -> None:
    async with Gateway("http://127.0.0.1:1") as gateway:
        assert type((await failure_of(gateway))[1]) is Unreachable
        with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1 does not answer"):
            await gateway.models()


async def test_the_users_key_stands_in_for_the_pages(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "for-somebody-else")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "for-somebody-else")
    monkeypatch.setenv("OPENAI_ORG_ID", "for-somebody-else")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "for-somebody-else")
    async with Gateway(upstream.url) as gateway, Gateway(upstream.url, "page") as keyed:
        await gateway.models()
        await keyed.models()
        await keyed.models("user")
    sent = [request.headers.get("authorization") for request in upstream.requests]
    assert sent == [None, "Bearer page", "Bearer user"]
    assert "for-somebody-else" not in str(upstream.requests)


@pytest.mark.parametrize("key", ["schlüssel", "two\nlines"])
async def test_a_key_that_cannot_be_one(upstream: Upstream, key: str) -> None:
    async with Gateway(upstream.url) as gateway:
        with pytest.raises(KeyRequired):
            await gateway.models(key)
        assert type((await failure_of(gateway, key))[1]) is KeyRequired
    assert upstream.requests == []
