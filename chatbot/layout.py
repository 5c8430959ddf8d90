"""What is on the page: the components, their looks and nothing of what they do."""

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

_HERE = Path(__file__).parent
CSS = _HERE / "page.css"
ICON = _HERE / "favicon.svg"

_SUGGESTIONS = (
    "Explain caching in two sentences.",
    "Write a haiku about rivers.",
    "Three ideas for a rainy day, please.",
)

_FORMULAS: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": r"\[", "right": r"\]", "display": True},
    {"left": r"\(", "right": r"\)", "display": False},
]


def theme() -> gr.themes.Base:
    """The reader's own system fonts: the page loads nothing that it does not serve itself."""
    fonts = ("ui-sans-serif", "system-ui", "sans-serif")
    return gr.themes.Default(
        primary_hue="indigo", neutral_hue="slate", radius_size="lg", font=fonts, font_mono=("ui-monospace", "monospace")
    )


@dataclass(frozen=True, slots=True)
class Page:
    model: gr.Dropdown
    new_chat: gr.Button
    chat: gr.Chatbot
    notice: gr.Markdown
    key: gr.Textbox
    box: gr.Textbox
    system: gr.Textbox
    temperature: gr.Slider
    max_tokens: gr.Slider
    retry: gr.Timer


def build() -> Page:
    """Lay the page out, top to bottom, inside the current `gr.Blocks`."""
    with gr.Row(elem_id="header"):
        gr.Markdown(f"<div>{ICON.read_text('utf-8')}<h1>LLM gateway</h1></div>", elem_id="brand", sanitize_html=False)
        model = gr.Dropdown([], label="Model", show_label=False, container=False, elem_id="model", filterable=False)
        new_chat = gr.Button("New chat", elem_id="new-chat", size="sm")
    chat = _chat()
    with gr.Column(elem_id="composer"):
        notice = gr.Markdown(visible=False, elem_id="notice")
        key = gr.Textbox("", type="password", label="API key", visible=False, elem_id="key", submit_btn="Use this key")
        box = _box()
        with gr.Accordion("Settings", open=False, elem_id="settings"):
            system = gr.Textbox(
                "", label="System prompt", placeholder="How the model should behave", lines=2, max_lines=6
            )
            with gr.Row():
                temperature = gr.Slider(0, 2, value=0.7, step=0.1, label="Temperature")
                max_tokens = gr.Slider(1, 8192, value=512, step=1, label="Max tokens")
    return Page(model, new_chat, chat, notice, key, box, system, temperature, max_tokens, gr.Timer(2, active=False))


def _chat() -> gr.Chatbot:
    return gr.Chatbot(
        elem_id="chat",
        show_label=False,
        container=False,
        layout="panel",
        buttons=["copy"],
        placeholder="## What would you like to know?",
        examples=[{"text": text} for text in _SUGGESTIONS],
        allow_tags=False,
        latex_delimiters=_FORMULAS,
        feedback_options=None,
        scale=1,
        height="100%",
    )


def _box() -> gr.Textbox:
    return gr.Textbox(
        "",
        elem_id="box",
        label="Message",
        show_label=False,
        container=False,
        placeholder="Message the model",
        lines=1,
        max_lines=8,
        autofocus=True,
        submit_btn=True,
    )


def notice(text: str) -> Any:
    """One line above the message box; an empty one takes it away. Inside the tag no Markdown is read."""
    line = " ".join(text.split())
    return gr.update(value=f'<div role="alert">{escape(line)}</div>' if line else "", visible=bool(line))


def box_while_writing() -> Any:
    """The box is empty again, and its button stops the answer."""
    return gr.update(value="", submit_btn=False, stop_btn=True)


def box_ready(text: str) -> Any:
    """The box takes a question again; `text` is put into it unless empty, so that what is being typed stays."""
    value: dict[str, Any] = {"value": text} if text else {}
    return gr.update(submit_btn=True, stop_btn=False, **value)
