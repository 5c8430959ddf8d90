"""A whole answer from the chunks of a stream, and the chunks of a stream from a whole answer.

Where engines leave an index out, the place counts.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]
# The texts that come in pieces; every other field is said once, or the same each time.
_PIECES = frozenset({"text", "content", "reasoning", "reasoning_content", "refusal", "name", "arguments"})


def whole(chunks: Iterable[Json]) -> Json:
    """One `chat.completion` or `text_completion`, its choices in the order of their index."""
    answer: Json = {}
    choices: dict[int, Json] = {}
    for chunk in chunks:
        answer |= {name: value for name, value in chunk.items() if name != "choices" and value is not None}
        for position, part in enumerate(chunk.get("choices", ())):
            choice = choices.setdefault(part.get("index", position), {})
            delta = part.get("delta")
            _add(choice, part if delta is None else {**part, "delta": None, "message": delta})
    for choice in choices.values():
        choice.pop("delta", None)
        for call in choice.get("message", {}).get("tool_calls") or ():
            call.pop("index", None)
    answer["object"] = str(answer.get("object", "")).removesuffix(".chunk")
    return answer | {"choices": [choices[index] for index in sorted(choices)]}


def chunks(answer: Json, usage: bool) -> list[Json]:
    """A stream of two chunks for each choice: what it says, and why it ends; then one with the usage, if wanted."""
    common = {name: value for name, value in answer.items() if name not in ("choices", "usage")}
    if "message" in answer["choices"][0]:
        common["object"] = f"{common['object']}.chunk"
    if usage:
        common["usage"] = None
    stream: list[Json] = []
    for position, choice in enumerate(answer["choices"]):
        index = choice.get("index", position)
        end = {"index": index, "finish_reason": choice["finish_reason"]}
        said = {name: value for name, value in choice.items() if name not in ("message", "finish_reason")}
        said["index"] = index
        if "message" in choice:
            said["delta"], end["delta"] = _delta(choice["message"]), {}
        else:
            end["text"] = ""
        stream += [common | {"choices": [said | {"finish_reason": None}]}, common | {"choices": [end]}]
    return [*stream, common | {"choices": [], "usage": answer.get("usage")}] if usage else stream


def without_usage(chunks: Iterable[Json]) -> list[Json]:
    """The same stream for who did not ask for the usage."""
    return [
        {name: value for name, value in chunk.items() if name != "usage"}
        for chunk in chunks
        if chunk.get("choices") or not chunk.get("usage")
    ]


def _delta(message: Json) -> Json:
    calls = message.get("tool_calls")
    if not calls:
        return message
    return message | {"tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]}


def _add(into: Json, more: Json) -> None:
    """Adds what a chunk says to what the chunks before it said."""
    for name, value in more.items():
        known = into.get(name)
        if value is None:
            into.setdefault(name, None)
        elif isinstance(value, dict):
            if not isinstance(known, dict):
                known = into[name] = {}
            _add(known, value)
        elif name == "tool_calls":
            into[name] = _add_calls(known or [], value)
        elif isinstance(value, list):
            into[name] = (known or []) + value
        elif name in _PIECES and isinstance(known, str):
            into[name] = known + value
        else:
            into[name] = value


def _add_calls(known: list[Json], more: list[Json]) -> list[Json]:
    for position, part in enumerate(more):
        index = part.get("index", position)
        call = next((call for call in known if call["index"] == index), None)
        if call is None:
            known.append(call := {"index": index})
        _add(call, part)
    return known
