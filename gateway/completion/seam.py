"""Where one engine's stream breaks off and another's goes on: what was said, how to ask for the rest, how to join it.

The text so far becomes the beginning of the assistant's message. vLLM goes on with it when it is told to
(`continue_final_message`), llama.cpp in any case; a text completion has it as the end of its prompt. The continuation
is always asked for as a stream: llama.cpp repeats the beginning in a whole answer, and in a stream never does.

Not everything can be joined. What was said is gone on with only if it is one choice's plain text.
"""

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from typing import Any, NamedTuple

import orjson

from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call
from gateway.upstream.sse import payloads
from gateway.upstream.usage import Usage

Json = dict[str, Any]
# Fields of a request with which a text cannot simply be gone on with: what is told of each token, what the whole has
# to look like, and answers of which there are several.
_NOT_WITH = frozenset(
    {
        "logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids", "return_tokens_as_token_ids", "n_probs",
        "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "grammar",
        "json_schema", "audio", "echo", "suffix", "use_beam_search", "continue_final_message",
    }
)  # fmt: skip
# Of a text completion the first one only.
_TOKEN_BOUNDS = ("max_tokens", "max_completion_tokens")


class Said(NamedTuple):
    """What a broken stream has said.

    Attributes:
        common: the fields that are the same in all its events: `id`, `created`, `model`, `object`.
        text: so far.
        tokens: about how many that were: the events that had some of it.
        role: whose message it is was told.
    """

    common: Json
    text: str
    tokens: int
    role: bool

    @classmethod
    def in_frames(cls, frames: Sequence[bytes]) -> "Said | None":
        """None where there is more than the text of one choice, or the end of it."""
        common: Json = {}
        texts: list[str] = []
        role = False
        for payload in payloads(b"".join(frames)):
            event = orjson.loads(payload)
            common = common or {name: event[name] for name in ("id", "created", "model", "object") if name in event}
            for choice in event.get("choices") or ():
                text = _plain_text(choice)
                if text is None:
                    return None
                texts.append(text)
                role = role or "role" in (choice.get("delta") or ())
        return cls(common, "".join(texts), sum(map(bool, texts)), role)


def _plain_text(choice: Json) -> str | None:
    """The text of a choice in one event; None where it carries anything else."""
    delta = choice.get("delta")
    content = (choice.get("text") if delta is None else delta.get("content")) or ""
    others = [value for name, value in (delta or {}).items() if name not in ("role", "content")]
    whole = choice.get("index", 0) == 0 and isinstance(content, str)
    if not whole or any(others) or choice.get("logprobs") is not None or choice.get("finish_reason"):
        return None
    return content


def can_continue(call: Call) -> bool:
    """Whether an answer to this call could be gone on with, as far as the call tells."""
    payload = call.payload
    if call.choices != 1 or (payload.get("best_of") or 1) != 1 or any(payload.get(name) for name in _NOT_WITH):
        return False
    if (payload.get("response_format") or {"type": "text"}).get("type") != "text":
        return False
    if call.endpoint is Endpoint.COMPLETIONS:
        return isinstance(payload.get("prompt"), str)
    forced = payload.get("tool_choice") not in (None, "auto", "none")
    return not forced and payload["messages"][-1]["role"] != "assistant"


def continuation(call: Call, said: Said) -> Call:
    """The call for the rest; for the whole where nothing was said yet."""
    payload = dict(call.payload)
    for name in _TOKEN_BOUNDS:
        if payload.get(name) is not None:
            payload[name] = max(payload[name] - said.tokens, 1)
    if payload.get("min_tokens"):
        payload["min_tokens"] = max(payload["min_tokens"] - said.tokens, 0)
    if not said.text:
        pass
    elif call.endpoint is Endpoint.COMPLETIONS:
        payload["prompt"] += said.text
    else:
        payload["messages"] = [*payload["messages"], {"role": "assistant", "content": said.text}]
        payload |= {"continue_final_message": True, "add_generation_prompt": False}
    return Call(call.endpoint, payload, orjson.dumps(payload))


def is_used_up(call: Call, said: Said) -> bool:
    """Only the end was missing: all the tokens that were asked for have been said."""
    names = _TOKEN_BOUNDS if call.endpoint is Endpoint.CHAT else _TOKEN_BOUNDS[:1]
    bounds = [call.payload[name] for name in names if call.payload.get(name) is not None]
    return bool(bounds) and said.tokens >= min(bounds)


class Seam:
    """Makes a continuation's events those of the stream that it goes on with.

    Args:
        used_up: see `is_used_up`: nothing of what is said now counts.
    """

    def __init__(self, said: Said, *, used_up: bool) -> None:
        self._said = said
        self._used_up = used_up

    def joined(self, used: Usage) -> Usage:
        """Of both parts. The text so far was read with the prompt, and is a part of the answer."""
        prompt = max(used.prompt - self._said.tokens, 0)
        completion = self._said.tokens + (0 if self._used_up else used.completion)
        return Usage(prompt, completion, min(used.cached, prompt))

    async def join(self, events: AsyncIterable[Json]) -> AsyncGenerator[bytes]:
        async for event in events:
            if event.get("usage"):
                event["usage"] = self._add(event["usage"])
            choices = [choice for choice in event.get("choices") or () if self._goes_on(choice)]
            if choices or not event.get("choices"):
                yield b"data: %b\n\n" % orjson.dumps(event | self._said.common | {"choices": choices})

    def _goes_on(self, choice: Json) -> bool:
        """Whether something is left of it beside what was told before."""
        part = choice if choice.get("delta") is None else choice["delta"]
        if self._said.role:
            part.pop("role", None)
        if self._used_up:
            part |= {"content": ""} if "delta" in choice else {"text": ""}
            if choice.get("finish_reason"):
                choice["finish_reason"] = "length"
        said = any(value for name, value in part.items() if name not in ("index", "finish_reason", "logprobs"))
        return said or bool(choice.get("finish_reason"))

    def _add(self, usage: Json) -> Json:
        details = usage.get("prompt_tokens_details")
        told = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        both = self.joined(Usage(*told, (details or {}).get("cached_tokens") or 0))
        total = both.prompt + both.completion
        counts = {"prompt_tokens": both.prompt, "completion_tokens": both.completion, "total_tokens": total}
        if details:
            counts["prompt_tokens_details"] = details | {"cached_tokens": both.cached}
        return usage | counts
