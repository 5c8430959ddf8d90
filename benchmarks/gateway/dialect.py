"""How a system is asked, and whether what it answers is right."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.gateway.mock import TEXT, TOKENS

KEY = "sk-bench"
WHOLE, STREAM, PACED, SLOW, LATE = "whole", "stream", "paced", "slow", "late"
_STREAMED = (STREAM, PACED, SLOW)
_WORDS = {PACED: " [paced]", SLOW: " [slow]", LATE: " [late]"}


class WrongAnswer(Exception):
    """The answer is not what the mock engine said."""


def _prompt(kind: str) -> tuple[str, str]:
    return "You are a helpful assistant.", f"Hello, how are you?{_WORDS.get(kind, '')}"


def events(body: bytes) -> Iterator[Any]:
    """The JSON of each `data:` line, in order; `[DONE]` as it is."""
    for line in body.splitlines():
        if line.startswith(b"data:"):
            data = line[5:].strip()
            yield data.decode() if data == b"[DONE]" else json.loads(data)


@dataclass(frozen=True)
class OpenAI:
    """The chat completions of the OpenAI API."""

    model: str = "m"
    path: str = "/v1/chat/completions"

    def url_path(self, kind: str) -> str:
        return self.path

    def body(self, kind: str) -> bytes:
        system, user = _prompt(kind)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        request: dict[str, Any] = {"model": self.model, "messages": messages, "max_tokens": 64}
        if kind in _STREAMED:
            request["stream"] = True
        return json.dumps(request, separators=(",", ":")).encode()

    def text(self, body: bytes) -> str:
        return json.loads(body)["choices"][0]["message"]["content"]

    def tokens(self, body: bytes) -> list[str]:
        answered = list(events(body))
        if not answered or answered[-1] != "[DONE]":
            raise WrongAnswer("the stream does not end with [DONE]")
        choices = [choice for event in answered[:-1] for choice in event["choices"]]
        if not any(choice.get("finish_reason") == "stop" for choice in choices):
            raise WrongAnswer("the stream has no finish reason")
        return [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]


@dataclass(frozen=True)
class LangServe:
    """A LangServe route over a chat model."""

    path: str = "/chat"

    def url_path(self, kind: str) -> str:
        return f"{self.path}/{'stream' if kind in _STREAMED else 'invoke'}"

    def body(self, kind: str) -> bytes:
        system, user = _prompt(kind)
        messages = [{"type": "system", "content": system}, {"type": "human", "content": user}]
        return json.dumps({"input": messages}, separators=(",", ":")).encode()

    def text(self, body: bytes) -> str:
        return json.loads(body)["output"]["content"]

    def tokens(self, body: bytes) -> list[str]:
        if b"event: end" not in body:
            raise WrongAnswer("the stream does not end with `event: end`")
        return [event["content"] for event in events(body) if isinstance(event, dict) and event.get("content")]


Dialect = OpenAI | LangServe


def headers(extra: Mapping[str, str]) -> dict[str, str]:
    return {"content-type": "application/json", "authorization": f"Bearer {KEY}"} | dict(extra)


def check_text(text: str) -> None:
    if text != TEXT:
        raise WrongAnswer(f"the answer is {text[:80]!r}")


def check_tokens(tokens: list[str]) -> None:
    if tokens != [" tok"] * TOKENS:
        raise WrongAnswer(f"{len(tokens)} tokens of {TOKENS}, {''.join(tokens)[:40]!r}")
