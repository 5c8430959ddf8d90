"""The form of an entry, and answers turned from one form into the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.entry import BadEntry, Entry, decode, encode
from gateway.cache.policy import policy
from gateway.completion import assembly
from gateway.errors import InvalidField
from tests.gateway.cache.conftest import USAGE, chunks, whole

BYTES = st.text(st.characters(codec="utf-8"), max_size=3000).map(str.encode)
PARTS = st.lists(st.tuples(st.integers(0, 10**6), BYTES.filter(bool)), min_size=1, max_size=5)
ENTRIES = st.builds(Entry, st.integers(0, 2**40), st.booleans(), PARTS, st.just(b"")) | st.builds(
    Entry, st.integers(0, 2**40), st.just(True), st.just([]), BYTES.filter(bool)
)


@given(ENTRIES)
def test_what_was_encoded_is_decoded(entry):
    assert _fields(decode(encode(entry, "key"), "key", 10**6)) == _fields(entry)


def _fields(entry: Entry) -> tuple:
    return entry.at, entry.usage, entry.parts, entry.whole


@given(ENTRIES, st.data())
def test_no_change_goes_unnoticed(entry, data):
    encoded = bytearray(encode(entry, "key"))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    try:
        found = decode(bytes(encoded), "key", 10**6)
    except BadEntry:
        return
    # The one byte that the digest leaves out says whether the rest is compressed.
    assert (at, _fields(found)) == (1, _fields(entry))


@given(st.binary(max_size=200))
def test_anything_else_is_no_entry(data):
    with pytest.raises(BadEntry):
        decode(data, "key", 10**6)


def test_an_entry_does_not_grow_without_bound():
    bomb = encode(Entry(0, True, [], b"0" * 10**6), "key")
    assert len(bomb) < 10_000
    with pytest.raises(BadEntry, match="larger"):
        decode(bomb, "key", 10**5)


def test_the_chunks_of_a_stream_make_the_whole():
    assert assembly.whole(chunks(1, usage=True)) == whole(1)


@pytest.mark.parametrize("usage", [True, False])
def test_the_whole_makes_a_stream_that_makes_the_whole(usage):
    stream = assembly.chunks(whole(1), usage)
    assert [chunk.get("usage") for chunk in stream if chunk["choices"]] == [None, None]
    assert assembly.whole(stream) == (whole(1) if usage else {k: v for k, v in whole(1).items() if k != "usage"})
    assert (stream[-1].get("usage") == USAGE) is usage


def test_several_answers_and_their_logprobs_stay_apart():
    first = {"index": 1, "delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}, "finish_reason": None}
    more = {"index": 1, "delta": {"content": "B"}, "logprobs": {"content": [{"token": "B"}]}, "finish_reason": "stop"}
    other = {"index": 0, "delta": {"content": "a"}, "finish_reason": "length"}
    answer = assembly.whole([{"object": "chat.completion.chunk", "choices": [c]} for c in (first, other, more)])
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["a", "bB"]
    assert answer["choices"][1]["logprobs"] == {"content": [{"token": "b"}, {"token": "B"}]}
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length", "stop"]


def test_choices_and_calls_without_an_index_are_told_by_their_place():
    calls = [{"id": name, "function": {"name": name, "arguments": "{}"}} for name in ("look", "go")]
    deltas = [{"tool_calls": calls}, {"content": "b"}]
    parts = [{"delta": delta, "finish_reason": "stop"} for delta in deltas]
    answer = assembly.whole([{"object": "chat.completion.chunk", "choices": parts}])
    assert [choice["message"] for choice in answer["choices"]] == deltas
    stream = assembly.chunks(answer, usage=False)
    assert [choice["index"] for chunk in stream for choice in chunk["choices"]] == [0, 0, 1, 1]
    assert [call["index"] for call in stream[0]["choices"][0]["delta"]["tool_calls"]] == [0, 1]


def test_text_completions_too():
    parts = [{"index": 0, "text": "a", "finish_reason": None}, {"index": 0, "text": "b", "finish_reason": "stop"}]
    answer = assembly.whole([{"object": "text_completion", "choices": [part]} for part in parts])
    assert answer == {"object": "text_completion", "choices": [{"index": 0, "text": "ab", "finish_reason": "stop"}]}
    assert assembly.whole(assembly.chunks(answer, usage=False)) == answer


@given(st.text(max_size=40).map(lambda text: text.encode("latin-1", "replace")))
def test_no_cache_control_breaks_the_policy(control):
    try:
        chosen = policy({"temperature": 0}, sampled=True, key="reproducible", cache_control=control)
    except InvalidField:
        assert b"max-age" in control.lower()
    else:
        assert chosen is None or chosen.read == (
            b"no-cache" not in {part.strip() for part in control.lower().split(b",")}
        )
