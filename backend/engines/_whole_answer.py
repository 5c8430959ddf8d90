"""A whole completion from the chunks of a streamed one, as the same server gives it when nobody asks for a stream."""

from typing import Any

Json = dict[str, Any]


def whole(chunks: list[Json]) -> Json:
    """One `chat.completion` or `text_completion` from its chunks, choices in the order of their index."""
    answer: Json = {}
    choices: dict[int, Json] = {}
    for chunk in chunks:
        # Usage and timings come with the last chunk; what is in all of them is the same in all.
        answer |= {name: value for name, value in chunk.items() if name != "choices"}
        for part in chunk["choices"]:
            _add(choices.setdefault(part["index"], {"index": part["index"], "finish_reason": None}), part)
    answer["object"] = answer["object"].removesuffix(".chunk")
    return answer | {"choices": [_finished(choices[index]) for index in sorted(choices)]}


def _add(choice: Json, part: Json) -> None:
    if part.get("finish_reason"):
        choice["finish_reason"] = part["finish_reason"]
    if part.get("logprobs"):
        choice.setdefault("logprobs", {"content": []})["content"] += part["logprobs"]["content"]
    if "text" in part:
        choice["text"] = choice.get("text", "") + part["text"]
    if "delta" in part:
        _add_delta(choice.setdefault("message", {"role": "assistant", "content": None}), part["delta"])


def _add_delta(message: Json, delta: Json) -> None:
    for name in ("content", "reasoning_content"):
        if delta.get(name) is not None:
            message[name] = (message.get(name) or "") + delta[name]
    for call in delta.get("tool_calls", ()):
        calls = message.setdefault("tool_calls", {})
        known = calls.setdefault(
            call["index"], {"type": "function", "id": "", "function": {"name": "", "arguments": ""}}
        )
        known["id"] += call.get("id", "")
        for name, text in call.get("function", {}).items():
            known["function"][name] += text


def _finished(choice: Json) -> Json:
    message = choice.get("message")
    if message and "tool_calls" in message:
        calls = message["tool_calls"]
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    elif message and message["content"] is None:
        message["content"] = ""
    return choice
