from typing import Any

from backend.engines._whole_answer import whole

FRAME = {"id": "chatcmpl-1", "created": 1, "model": "m", "object": "chat.completion.chunk"}


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> dict[str, Any]:
    return FRAME | {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def test_tool_calls_are_joined_by_their_index() -> None:
    def call(index: int, **fields: Any) -> dict[str, Any]:
        return chunk({"tool_calls": [{"index": index, **fields}]})

    answer = whole(
        [
            chunk({"role": "assistant", "content": None}),
            call(0, id="a", type="function", function={"name": "time", "arguments": ""}),
            call(1, id="b", type="function", function={"name": "date", "arguments": "{"}),
            call(0, function={"arguments": '{"zone":'}),
            call(1, function={"arguments": "}"}),
            call(0, function={"arguments": '"UTC"}'}),
            chunk({}, finish="tool_calls"),
            FRAME | {"choices": [], "usage": {"total_tokens": 9}},
        ]
    )
    assert answer == FRAME | {
        "object": "chat.completion",
        "usage": {"total_tokens": 9},
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "time", "arguments": '{"zone":"UTC"}'}},
                        {"id": "b", "type": "function", "function": {"name": "date", "arguments": "{}"}},
                    ],
                },
            }
        ],
    }


def test_reasoning_is_kept_apart_from_the_content_and_choices_from_each_other() -> None:
    answer = whole(
        [
            chunk({"content": "B"}, index=1),
            chunk({"reasoning_content": "hm"}),
            chunk({"reasoning_content": "m"}),
            chunk({"content": "A"}),
            chunk({}, finish="stop", index=1),
            chunk({}, finish="length"),
        ]
    )
    first, second = answer["choices"]
    assert first["message"] == {"role": "assistant", "content": "A", "reasoning_content": "hmm"}
    assert (first["finish_reason"], second["finish_reason"]) == ("length", "stop")
    assert second["message"]["content"] == "B"


def test_an_empty_answer_is_an_empty_text() -> None:
    answer = whole([chunk({"role": "assistant", "content": None}), chunk({}, finish="stop")])
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": ""}
