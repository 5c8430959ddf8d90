"""The chains with LangServe's own client, and the playground in a browser."""

import httpx
import pytest
from playwright.async_api import expect

from tests.chatbot.page import open_tab
from tests.e2e.stack import CHAT_MODEL, EMBEDDING_MODEL
from tests.remote import remote_runnable

# This model may go on until its context is full when nobody stops it.
HELLO = {"input": "Say hello.", "max_tokens": 32}


@pytest.fixture
def chat(stack):
    return remote_runnable(f"{stack.url}/chains/chat/", timeout=120)


async def test_invoke_and_batch(chat):
    assert isinstance(await chat.ainvoke(HELLO), str)
    assert len(await chat.abatch([HELLO, HELLO | {"system": "Answer in French."}])) == 2
    assert isinstance(chat.invoke(HELLO), str)


async def test_stream(chat):
    pieces = [piece async for piece in chat.astream(HELLO)]
    assert len(pieces) > 1
    assert all(isinstance(piece, str) for piece in pieces)


async def test_events_come_from_the_model_in_process(chat):
    events = [event async for event in chat.astream_events(HELLO, version="v2")]
    assert events[0]["event"] == "on_chain_start"
    assert "on_chat_model_stream" in {event["event"] for event in events}
    assert events[-1]["event"] == "on_chain_end"


async def test_history_and_the_choice_of_a_model(chat):
    history = [{"type": "human", "content": "My name is Ada."}, {"type": "ai", "content": "Hello Ada."}]
    assert await chat.ainvoke(HELLO | {"history": history}, {"configurable": {"model": CHAT_MODEL}})
    for model, status in (("nope", 404), (EMBEDDING_MODEL, 400)):
        with pytest.raises(httpx.HTTPStatusError) as error:
            await chat.ainvoke(HELLO, {"configurable": {"model": model}})
        assert error.value.response.status_code == status


async def test_summarizes(stack):
    """A text that fits; test_updates.py has a longer one, for a model whose context is small."""
    summarize = remote_runnable(f"{stack.url}/chains/summarize/", timeout=300)
    text = "In the year 1500 the river rose, and the people of the town moved on. " * 4
    assert await summarize.ainvoke({"text": text, "max_tokens": 32})


async def test_the_playground_runs_the_chain(stack, browser):
    async with open_tab(browser) as page:
        await page.goto(f"{stack.url}/chains/chat/playground/")
        await expect(page.get_by_role("textbox")).to_have_count(4, timeout=30_000)  # model, session, input, system
        await page.get_by_role("textbox").nth(2).fill("Say hello.")
        await page.get_by_role("button", name="Start").click()
        await expect(page.get_by_text("Output", exact=True)).to_be_visible(timeout=30_000)
