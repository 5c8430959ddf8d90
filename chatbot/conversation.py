"""What was said in one browser session: as the model reads it, and as the page shows it.

Knows neither Gradio's components nor the network.
"""

from dataclasses import dataclass, field
from typing import Any

from chatbot.client import Message


@dataclass(slots=True, eq=False)
class Turn:
    """A question and what has been answered so far; `note` is shown beneath it and never sent to the model."""

    question: str
    answer: str = ""
    note: str = ""


@dataclass(slots=True)
class Conversation:
    turns: list[Turn] = field(default_factory=list)

    def ask(self, question: str) -> Turn:
        turn = Turn(question)
        self.turns.append(turn)
        return turn

    def take_back(self, turn: Turn) -> str:
        """Forget a question that got no answer, since many models accept only alternating roles.

        Gives its text, or nothing if the conversation was cleared in the meantime.
        """
        if turn not in self.turns:
            return ""
        self.turns.remove(turn)
        return turn.question

    def messages(self, system: str) -> list[Message]:
        """The OpenAI messages of the whole conversation; the last one is the question that is open."""
        messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.question})
            if turn.answer:
                messages.append({"role": "assistant", "content": turn.answer})
        return messages

    def bubbles(self) -> list[dict[str, Any]]:
        """The value of a `gr.Chatbot`."""
        bubbles = []
        for turn in self.turns:
            bubbles.append(_bubble("user", turn.question))
            if turn.answer:
                bubbles.append(_bubble("assistant", turn.answer, turn.note))
        return bubbles


def _bubble(role: str, *texts: str) -> dict[str, Any]:
    # As typed parts, because Gradio re-indents a plain string, and with it the code in it.
    return {"role": role, "content": [{"type": "text", "text": text} for text in texts if text]}
