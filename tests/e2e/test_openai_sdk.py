"""The OpenAI door with OpenAI's own SDK, down to the model."""

import json

import openai
import pytest

from tests.e2e.stack import CHAT_MODEL, EMBEDDING_MODEL

HELLO = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
async def sdk(stack):
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


async def test_lists_the_models(sdk):
    assert {model.id async for model in sdk.models.list()} == {CHAT_MODEL, EMBEDDING_MODEL}


async def test_chat(sdk):
    answer = await sdk.chat.completions.create(model=CHAT_MODEL, messages=HELLO, max_tokens=8, temperature=0)
    assert answer.object == "chat.completion"
    assert answer.model == CHAT_MODEL
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert (answer.usage.completion_tokens, answer.usage.total_tokens) == (8, answer.usage.prompt_tokens + 8)


async def test_a_stream_is_the_same_answer_in_pieces(sdk):
    options = {"model": CHAT_MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0}
    whole = await sdk.chat.completions.create(**options)
    stream = await sdk.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    *content, last, usage = chunks
    assert [chunk.choices[0].finish_reason for chunk in content] == [None] * len(content)
    assert last.choices[0].finish_reason == "length"
    assert usage.choices == []
    assert usage.usage.completion_tokens == 8
    assert "".join(chunk.choices[0].delta.content or "" for chunk in content) == whole.choices[0].message.content


async def test_a_stream_ends_in_done(client):
    body = {"model": CHAT_MODEL, "messages": HELLO, "max_tokens": 2, "stream": True}
    text = (await client.post("/v1/chat/completions", json=body)).text
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["choices"] for event in events)


async def test_completions(sdk):
    whole = await sdk.completions.create(model=CHAT_MODEL, prompt="One, two,", max_tokens=6, temperature=0)
    stream = await sdk.completions.create(
        model=CHAT_MODEL, prompt="One, two,", max_tokens=6, temperature=0, stream=True
    )
    assert whole.choices[0].text
    assert "".join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text


async def test_embeddings(sdk):
    answer = await sdk.embeddings.create(model=EMBEDDING_MODEL, input=["a cat", "a kitten", "tax law"])
    cat, kitten, law = (item.embedding for item in answer.data)
    assert len(cat) == 384

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(cat, cat) == pytest.approx(1.0, abs=1e-3)
    assert cosine(cat, kitten) > cosine(cat, law) + 0.2
    assert answer.usage.prompt_tokens > 0


async def test_errors_are_the_sdks_own(sdk):
    with pytest.raises(openai.NotFoundError) as unknown:
        await sdk.chat.completions.create(model="nope", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as empty:
        await sdk.chat.completions.create(model=CHAT_MODEL, messages=[])
    with pytest.raises(openai.BadRequestError) as long:
        await sdk.chat.completions.create(model=CHAT_MODEL, messages=[{"role": "user", "content": "a," * 4000}])
    assert [error.value.code for error in (unknown, empty, long)] == [
        "model_not_found", "invalid_value", "context_length_exceeded",
    ]  # fmt: skip
