"""The chat page in a real browser, in front of a real engine.

Needs three fixtures: `browser`, `chat_url`, the page's address, and `slots_busy`, the number of generations under way
in the engine.
"""

from collections.abc import Callable

from playwright.async_api import Browser, expect

from tests.chatbot.page import open_chat
from tests.polling import eventually

LONG = "Write a very long story about a river, with many chapters."


async def test_an_answer_streams(browser: Browser, chat_url: str, slots_busy: Callable[[], int]) -> None:
    async with open_chat(browser, chat_url) as chat:
        await expect(chat.model).to_have_value("smollm2-135m-instruct")
        await chat.ask(LONG)
        seen: set[str] = set()

        async def grew_twice() -> bool:
            seen.add(await chat.answer())
            return len(seen - {""}) >= 3

        await eventually(grew_twice, within=60)
        assert all(longer.startswith(shorter.rstrip()[:40]) for shorter in seen for longer in seen if shorter < longer)
        await expect(chat.questions).to_have_count(1)
        await chat.stop()
        await chat.answered()
        assert chat.broken == []


async def test_the_next_question_carries_the_conversation(browser: Browser, chat_url: str) -> None:
    async with open_chat(browser, chat_url) as chat:
        await chat.set_max_tokens(16)
        await chat.ask("Say hello to Ada.")
        await chat.answered()
        await chat.ask("Say it again.")
        await chat.answered()
        await expect(chat.questions).to_have_count(2)
        await expect(chat.answers).to_have_count(2)
        await expect(chat.notice).to_be_hidden()


async def test_stop_stops_the_engine_and_keeps_the_text(
    browser: Browser, chat_url: str, slots_busy: Callable[[], int]
) -> None:
    async with open_chat(browser, chat_url) as chat:
        await chat.ask(LONG)
        await eventually(chat.answer, within=60)
        assert slots_busy() == 1
        await chat.stop()
        await eventually(lambda: slots_busy() == 0)
        await chat.answered()
        await expect(chat.answers.last).to_contain_text("Stopped.")
        assert len(await chat.answer()) > len("Stopped.")
        await expect(chat.notice).to_be_hidden()


async def test_new_chat_stops_the_engine_and_clears(
    browser: Browser, chat_url: str, slots_busy: Callable[[], int]
) -> None:
    async with open_chat(browser, chat_url) as chat:
        await chat.ask(LONG)
        await eventually(chat.answer, within=60)
        await chat.new_chat()
        await eventually(lambda: slots_busy() == 0)
        await chat.ready()
        await expect(chat.questions).to_have_count(0)
        await expect(chat.box).to_have_value("")


async def test_a_closed_tab_stops_the_engine(browser: Browser, chat_url: str, slots_busy: Callable[[], int]) -> None:
    async with open_chat(browser, chat_url) as chat:
        await chat.ask(LONG)
        await eventually(lambda: slots_busy() == 1)
        await chat.page.close()
        await eventually(lambda: slots_busy() == 0)


async def test_two_tabs_are_served_at_once_and_share_nothing(
    browser: Browser, chat_url: str, slots_busy: Callable[[], int]
) -> None:
    async with open_chat(browser, chat_url) as ada, open_chat(browser, chat_url) as bob:
        await ada.ask(LONG)
        await bob.ask(LONG)
        await eventually(lambda: slots_busy() == 2)
        await ada.new_chat()
        await eventually(bob.answer, within=60)
        await expect(ada.questions).to_have_count(0)
        await expect(bob.questions).to_have_count(1)


async def test_markup_in_a_message_is_inert(browser: Browser, chat_url: str) -> None:
    async with open_chat(browser, chat_url) as chat:
        await chat.set_max_tokens(16)
        await chat.ask("<script>window.ran = 1</script><img src=x onerror='window.ran = 2'> a tale")
        await expect(chat.questions.last).to_contain_text("a tale")
        await chat.answered()
        assert await chat.page.evaluate("window.ran") is None
        assert await chat.page.locator("#chat [onerror], #chat script").count() == 0


async def test_the_page_talks_to_nobody_else(browser: Browser, chat_url: str) -> None:
    async with open_chat(browser, chat_url, width=390, height=780) as chat:
        await chat.set_max_tokens(16)
        await chat.ask("Hello!")
        await chat.answered()
        assert chat.outside == []
        assert chat.broken == []
        assert await chat.page.evaluate("document.documentElement.scrollWidth") == 390


async def test_an_example_is_asked_with_one_click(browser: Browser, chat_url: str) -> None:
    async with open_chat(browser, chat_url) as chat:
        await chat.set_max_tokens(16)
        await chat.page.get_by_role("button", name="haiku").click()
        await expect(chat.questions.last).to_contain_text("haiku")
        await chat.ready()
        await expect(chat.answers).to_have_count(1)
