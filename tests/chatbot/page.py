"""How a person drives the chat page, in a real Chromium. Needs the browser and the page's address."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect

from tests.polling import eventually

expect.set_options(timeout=15_000)  # Generous, for a machine that is busy.

_SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class ChatPage:
    """One open tab. `outside` are the answers that came from another host than the page's own; `broken` are script
    errors in the browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.box = page.locator("#box textarea")
        self.model = page.get_by_label("Model")
        self.answers = page.locator("#chat .bot-row")
        self.questions = page.locator("#chat .user-row")
        self.notice = page.get_by_role("alert")
        self.key = page.get_by_label("API key")
        self.stop_button = page.locator("#box .stop-button")
        self.asked = 0
        self.outside: list[str] = []
        self.broken: list[str] = []
        page.on("requestfinished", lambda request: self._finished(request.url))
        page.on("pageerror", lambda error: self.broken.append(str(error)))

    def _finished(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.hostname != "127.0.0.1":
            self.outside.append(url)

    async def ask(self, question: str) -> None:
        await expect(self.model).not_to_have_value("")
        self.asked += 1
        await self.box.fill(question)
        await self.box.press("Enter")

    async def answered(self) -> None:
        """Every question has been taken, and the last answer has ended, in whatever way."""
        await expect(self.questions).to_have_count(self.asked)
        await self.ready()

    async def ready(self) -> None:
        """The box takes a question."""
        await expect(self.page.locator("#box .submit-button")).to_be_visible(timeout=60_000)

    async def answer(self) -> str:
        """The text of the last answer so far."""
        return await self.answers.last.inner_text() if await self.answers.count() else ""

    async def stop(self) -> None:
        await self.stop_button.click()

    async def set_max_tokens(self, count: int) -> None:
        await expect(self.model).not_to_have_value("")
        await self.page.get_by_role("button", name="Settings").click()

        async def taken() -> bool:
            """Gradio puts its own value back while it is still building the page, so a person would type again."""
            await self.page.get_by_label("number input for Max tokens").fill(str(count))
            await self.page.keyboard.press("Tab")
            return await self.page.locator("#settings input[type=range]").last.input_value() == str(count)

        await eventually(taken)

    async def set_system_prompt(self, text: str) -> None:
        await self.page.get_by_label("System prompt").fill(text)

    async def new_chat(self) -> None:
        await self.page.get_by_role("button", name="New chat").click()


@pytest.fixture(scope="package")
async def browser() -> AsyncIterator[Browser]:
    """It takes a second to start: the tests of a folder share it, and nothing in it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(_SWITCHES))
        yield browser
        await browser.close()


@asynccontextmanager
async def open_tab(browser: Browser, width: int = 1280, height: int = 800) -> AsyncIterator[Page]:
    """A new user's only tab."""
    user = await browser.new_context(viewport=ViewportSize(width=width, height=height))
    try:
        yield await user.new_page()
    finally:
        await user.close()


@asynccontextmanager
async def open_chat(browser: Browser, url: str, width: int = 1280, height: int = 800) -> AsyncIterator[ChatPage]:
    async with open_tab(browser, width, height) as page:
        chat = ChatPage(page)  # listens before anything is loaded
        await page.goto(url)
        await expect(chat.box).to_be_visible(timeout=30_000)
        yield chat
