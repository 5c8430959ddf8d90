"""Hostile and mistaken input at the chains door."""

import json
from typing import Any

import pytest

from gateway.bridge.untrusted import MAX_ITEMS
from gateway.routes.chains import MAX_BATCH
from tests.gateway.chains_door.door import RUNS, TURN, Door, hashed, request

DEEP = b'{"input": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"
CONSTRUCTOR = {"lc": 1, "type": "constructor", "id": ["langchain_core", "messages", "HumanMessage"], "kwargs": {}}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"text"',
        b"{}",
        b'{"input": "a string", "inputs": "a string"}',
        b'{"input": {"input": 5}, "inputs": [{"input": 5}]}',
        b'{"input": {"input": ""}, "inputs": [{"input": ""}]}',
        b'{"input": {"input": "x"}, "inputs": [{"input": "x"}], "config": 5}',
        b'{"input": {"input": "x"}, "inputs": [{"input": "x"}], "config": {"configurable": {"model": 5}}}',
        b'{"input": {"input": "x", "history": [{"type": "alien", "content": ""}]}, "inputs": [{}]}',
        json.dumps(request("invoke", {"input": "x", "history": [CONSTRUCTOR]})).encode(),
        json.dumps(request("batch", {"input": "x", "history": [CONSTRUCTOR]})).encode(),
    ],
)
async def test_bad_input_is_a_typed_422(door: Door, run: str, body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    response = await door.post(f"/chat/{run}", body)
    assert response.status_code == 422
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert door.path.calls == []
    assert [record for record in caplog.records if record.levelname not in ("DEBUG", "INFO")] == []


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("body", [b"{", b'{"input": {"input": "\\ud800"}}', b'{"input": NaN}', DEEP])
async def test_what_is_not_json_is_a_typed_400(door: Door, run: str, body: bytes) -> None:
    response = await door.post(f"/chat/{run}", body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
    assert door.path.calls == []


@pytest.mark.parametrize("run", RUNS)
async def test_serialized_objects_are_never_built(door: Door, run: str) -> None:
    response = await door.post(f"/echo/{run}", request(run, {"deep": [{"x": CONSTRUCTOR}]}))
    assert response.status_code == 422
    assert "Serialized LangChain objects" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "message",
    [
        "a",
        0,
        None,
        {"type": 5},
        {"role": "user", "content": "x"},
        {"type": "tool", "content": "x"},
        {"type": "human", "content": [{"type": "image", "base64": "x"}]},
        {
            "type": "human",
            "content": [{"type": "image", "source_type": "base64", "data": "x", "mime_type": "a", "id": 1}],
        },
        {"type": "human", "content": [{"type": []}]},
        {"type": "human", "content": [{"type": "file", "source_type": "base64"}]},
        {"type": "ai", "content": [{"type": "file", "file": "x", "source_type": "url"}]},
        {"type": "human", "content": [{"type": "input_audio", "input_audio": 5, "base64": "x"}]},
        {"type": "human", "content": [{"type": "image_url"}]},
        {"type": "human", "content": [{"type": "tool_use", "id": 1}]},
        {"type": "ai", "content": "", "tool_calls": [{}]},
    ],
    ids=str,
)
async def test_a_history_of_no_messages_is_the_clients_mistake(door: Door, message: object) -> None:
    response = await door.post("/chat/invoke", request("invoke", {"input": "x", "history": [message]}))
    assert response.status_code == 422


@pytest.mark.parametrize("content", [[0] * 3_000, [[0]] * 2_000, [0] * 20_000])
@pytest.mark.parametrize("run", RUNS)
async def test_lists_without_end_are_refused_before_every_item_is_told_of(door: Door, run: str, content: Any) -> None:
    turn = {"input": "x", "history": [{"type": "human", "content": content}] * 4}
    response = await door.post(f"/chat/{run}", request(run, turn))
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "There are more than 10000 items in lists."


async def test_a_long_history_is_taken(door: Door) -> None:
    history = [{"type": "human", "content": "x"}] * MAX_ITEMS
    assert (await door.post("/chat/invoke", request("invoke", {**TURN, "history": history}))).status_code == 200


@pytest.mark.parametrize("segment", ["7", "Q", "zz", "N4", "-", "xyz"])
async def test_a_config_hash_that_is_none_is_the_clients_mistake(door: Door, segment: str) -> None:
    assert (await door.http.get(f"/chat/c/{segment}/config_schema")).status_code in (400, 422)


async def test_a_content_block_of_no_known_form_is_the_clients_mistake(door: Door) -> None:
    turn = {"input": "x", "history": [{"type": "human", "content": [{"type": "image", "x": 1}]}]}
    assert (await door.post("/chat/invoke", request("invoke", turn))).status_code == 422


async def test_batches_are_bounded_and_their_configs_match(door: Door) -> None:
    full = await door.post("/chat/batch", {"inputs": [TURN] * MAX_BATCH})
    assert len(full.json()["output"]) == MAX_BATCH
    assert len(full.json()["metadata"]["run_ids"]) == MAX_BATCH
    assert (await door.post("/chat/batch", {"inputs": [TURN] * (MAX_BATCH + 1)})).status_code == 422
    assert (await door.post("/chat/batch", {"inputs": [TURN] * 2, "config": [{}]})).status_code == 422
    assert (await door.post("/chat/batch", {"inputs": [], "config": []})).json()["output"] == []


@pytest.mark.parametrize(
    ("segment", "status"),
    [
        ("A" * 60_000, 422),
        (hashed("x" * 200_000), 422),
        (hashed("[" * 3_000), 400),
        (hashed([]), 422),
        (hashed("not JSON"), 400),
        (hashed({"configurable": {"model": 5}}), 422),
        (hashed({"configurable": CONSTRUCTOR}), 422),
        ("%21%21%21", 422),
        ("A", 422),
        ("undefined", 422),
    ],
)
@pytest.mark.parametrize("target", ["invoke", "input_schema", "playground/"])
async def test_hostile_config_hashes(door: Door, segment: str, status: int, target: str) -> None:
    url = f"/chat/c/{segment}/{target}"
    response = await (door.post(url, request("invoke")) if target == "invoke" else door.http.get(url))
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"
