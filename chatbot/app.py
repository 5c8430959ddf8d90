"""The chat page: what each event on it does, and the ASGI application that serves it.

A conversation lives in the Gradio session of one browser tab. The gateway is the judge of every request: the page
checks nothing that the gateway checks.
"""

from collections.abc import AsyncGenerator, Iterable
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp

from chatbot import layout
from chatbot.allowlist import Allowlist
from chatbot.answer import Answer, Answers
from chatbot.client import Failure, Gateway, Interrupted, KeyRequired, Prompt
from chatbot.conversation import Conversation

# What an event changes: components and their new values.
Changes = dict[Any, Any]

# Events that may be under way at once, over all tabs. Each streaming answer is one.
_CONCURRENT_EVENTS = 512


class Chat:
    """The handlers of one page's events."""

    def __init__(self, page: layout.Page, gateway: Gateway) -> None:
        self._page = page
        self._gateway = gateway
        self._answers = Answers()

    async def ask(
        self,
        text: str,
        conversation: Conversation,
        model: str | None,
        system: str,
        temperature: float,
        max_tokens: int,
        key: str,
        request: gr.Request,
    ) -> AsyncGenerator[Changes, None]:
        """Stream an answer. A question that gets none goes back into the box, with the reason above it."""
        page = self._page
        if not text.strip() or model is None:
            yield {page.notice: layout.notice("There is no model to ask yet." if model is None else "")}
            return
        turn = conversation.ask(text)
        prompt = Prompt(model, conversation.messages(system), temperature, max_tokens)
        yield {page.chat: conversation.bubbles(), page.notice: layout.notice(""), page.box: layout.box_while_writing()}

        failure: Failure | None = None
        async with self._answers.write(_session(request), self._gateway.answer(prompt, key)) as answer:
            try:
                async for turn.answer in answer.texts():
                    yield {page.chat: conversation.bubbles()}
            except Failure as error:
                failure = error
        turn.note = _note(answer, failure)
        unanswered = "" if turn.answer else conversation.take_back(turn)
        yield {
            page.chat: conversation.bubbles(),
            page.box: layout.box_ready(unanswered),
            **(self._explain(failure) if failure else {}),
        }

    def stop(self, request: gr.Request) -> None:
        """End the session's answer; `ask` then finishes by itself and puts the page in order."""
        self._answers.stop(_session(request))

    def new_chat(self, conversation: Conversation, request: gr.Request) -> Changes:
        conversation.turns.clear()
        self.stop(request)
        return {self._page.chat: [], self._page.notice: layout.notice("")}

    async def refresh(self, chosen: str | None, key: str) -> Changes:
        """Fill the picker; ask again every few seconds as long as there is nothing to pick."""
        page = self._page
        try:
            models = await self._gateway.models(key)
        except Failure as error:
            return {page.retry: gr.Timer(active=not isinstance(error, KeyRequired)), **self._explain(error)}
        return {
            page.model: gr.Dropdown(models, value=chosen if chosen in models else next(iter(models), None)),
            page.key: gr.update(visible=False),
            page.notice: layout.notice("" if models else "Waiting for the first model to be ready."),
            page.retry: gr.Timer(active=not models),
        }

    def _explain(self, failure: Failure) -> Changes:
        changes: Changes = {self._page.notice: layout.notice(failure.message)}
        if isinstance(failure, KeyRequired):
            changes[self._page.key] = gr.update(visible=True)
        return changes


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


def _note(answer: Answer, failure: Failure | None) -> str:
    if isinstance(failure, Interrupted):
        return "*The answer was cut off here.*"
    if answer.stopped:
        return "*Stopped.*"
    if answer.finish_reason == "length":
        return "*The answer reached its length limit.*"
    return ""


def create_page(gateway: Gateway) -> gr.Blocks:
    blocks = gr.Blocks(title="LLM gateway", fill_height=True, analytics_enabled=False)
    with blocks:
        page = layout.build()
        conversation = gr.State(Conversation())
        chat = Chat(page, gateway)

        # Private: no named API beside the page. Nothing is covered by a spinner.
        event: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        asking: dict[str, Any] = {
            "fn": chat.ask,
            "inputs": [page.box, conversation, page.model, page.system, page.temperature, page.max_tokens, page.key],
            "outputs": [page.box, page.chat, page.notice, page.key],
            **event,
        }
        page.box.submit(**asking)
        page.chat.example_select(_chosen_example, None, page.box, **event).then(**asking)
        page.box.stop(chat.stop, None, None, **event)
        page.new_chat.click(chat.new_chat, conversation, [page.chat, page.notice], **event)
        gr.on(
            [blocks.load, page.retry.tick, page.key.submit],
            chat.refresh,
            [page.model, page.key],
            [page.model, page.key, page.notice, page.retry],
            **event,
        )
        blocks.unload(chat.stop)
    blocks.max_threads = _CONCURRENT_EVENTS
    blocks.queue(default_concurrency_limit=None)
    return blocks


def _chosen_example(example: gr.SelectData) -> str:
    return str(example.value["text"])


def create_app(gateway: Gateway, hosts: Iterable[str] = ()) -> ASGIApp:
    """The page and nothing else of what Gradio would serve beside it; see `chatbot.allowlist`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        create_page(gateway),
        path="/",
        theme=layout.theme(),
        css_paths=[layout.CSS],
        favicon_path=str(layout.ICON),
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        show_error=False,
    )
    return Allowlist(app, hosts)
