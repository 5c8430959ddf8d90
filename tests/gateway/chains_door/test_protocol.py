"""The chains door as LangServe's own client and raw HTTP see it."""

import asyncio
import json
from dataclasses import replace

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from openapi_spec_validator import validate

from gateway.bridge.event_stream import EventStreamResponse
from tests.gateway.chains_door.door import EXTRA, TURN, Door, hashed, request
from tests.gateway.doors import sse
from tests.gateway.scripted_path import MODEL, Script
from tests.remote import remote_runnable


async def test_remote_runnable(door: Door) -> None:
    chain = door.chain()
    turn = {"input": "And now?", "history": [HumanMessage("Hi"), AIMessage("Hello")], "system": "Be brief."}
    assert await chain.ainvoke(turn) == "Hello world"
    assert door.path.calls[0].payload["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And now?"},
    ]
    assert await chain.abatch([TURN, TURN]) == ["Hello world"] * 2
    assert [chunk async for chunk in chain.astream(TURN) if chunk] == ["Hello", " world"]


async def test_remote_runnable_follows_a_run(door: Door) -> None:
    events = [event async for event in door.chain().astream_events(TURN)]
    tokens = [event["data"]["chunk"].content for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(tokens) == "Hello world"
    assert events[0]["event"] == "on_chain_start"
    assert events[-1]["data"]["output"] == "Hello world"

    log = None
    async for patch in door.chain().astream_log(TURN):
        log = patch if log is None else log + patch
    assert log is not None
    assert log.state["final_output"] == "Hello world"  # type: ignore[attr-defined]
    assert "".join(log.state["streamed_output"]) == "Hello world"  # type: ignore[attr-defined]


async def test_stream_on_the_wire(door: Door) -> None:
    response = await door.post("/chat/stream", request("stream"))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    events = sse(response.text)
    assert events[0][0] == "metadata"
    assert json.loads(events[0][1])["run_id"]
    assert [json.loads(data) for name, data in events if name == "data"][:2] == ["Hello", " world"]
    assert events[-1] == ("end", "")


async def test_a_thinking_model_is_pinged(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventStreamResponse, "ping_seconds", 0.01)
    hold = asyncio.Event()
    door.path.reply = lambda call: Script(hold=hold)
    text = ""
    async with door.http.stream("POST", "/chat/stream", json=request("stream")) as response:
        async for piece in response.aiter_text():
            text += piece
            if text.count(": ping\r\n\r\n") > 2:
                hold.set()
    assert [name for name, _ in sse(text.replace(": ping\r\n\r\n", ""))][-1] == "end"


async def test_line_breaks_of_unicode_stay_inside_their_event(door: Door) -> None:
    odd = "a\u0085b\u2028c\u2029d"
    door.path.reply = lambda call: Script(tokens=[odd])
    assert "".join([chunk async for chunk in door.chain().astream(TURN)]) == odd
    assert not {"\u0085", "\u2028", "\u2029"} & set((await door.post("/chat/stream", request("stream"))).text)


async def test_dict_chunks_arrive(door: Door) -> None:
    assert [chunk async for chunk in door.chain("lines").astream("x")] == [{"line": "x"}]


async def test_config_in_the_body_and_in_the_path(door: Door) -> None:
    door.path.catalog.known = [MODEL, replace(MODEL, model="other", max_model_len=None)]
    other = {"configurable": {"model": "other", "unknown": 1}, "tags": ["x"], "run_name": "x"}
    path = f"/chat/c/{hashed(other)}"
    await door.post("/chat/invoke", request("invoke"))
    await door.post("/chat/invoke", request("invoke", config=other))
    await door.post(f"{path}/invoke", request("invoke"))
    await door.post(f"{path}/batch", request("batch"))
    await door.post(f"{path}/stream", request("stream"))
    await door.post(f"{path}/invoke", request("invoke", config={"configurable": {"model": "small"}}))
    await door.post(f"/chat/invoke?config_hash={hashed(other)}", request("invoke"))
    assert [call.model for call in door.path.calls] == ["small", "other", "other", "other", "other", "small", "small"]
    assert await remote_runnable(f"{door.url}/chains{path}").ainvoke(TURN) == "Hello world"


async def test_schemas_playground_and_index(door: Door) -> None:
    assert (await door.http.get("/chat/input_schema")).json()["required"] == ["input"]
    assert (await door.http.get("/chat/output_schema")).json()["type"] == "string"
    config = (await door.http.get("/summarize/config_schema")).json()
    assert "model" in str(config)
    page = await door.http.get("/chat/playground/")
    assert page.status_code == 200
    script = page.text.split('src="')[1].split('"')[0]
    assert (await door.http.get(f"{door.url}{script}")).headers["content-type"].startswith("application/javascript")
    evil = await door.http.get(f"/chat/c/{hashed({'configurable': {'model': '</script><script>evil'}})}/playground/")
    assert evil.status_code == 200
    assert "evil" not in evil.text
    for name in ("assets", "%00", "nothing.js", "..%2f..%2fapi_handler.py"):
        response = await door.http.get(f"/chat/playground/{name}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"
    names = [entry["name"] for entry in (await door.http.get(f"{door.url}/chains")).json()["chains"]]
    assert names == ["chat", "summarize", *EXTRA]


async def test_the_openapi_document_is_valid_and_typed(door: Door) -> None:
    document = (await door.http.get(f"{door.url}/openapi.json")).json()
    validate(document)
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    body = document["components"]["schemas"]["chatInvokeRequest"]["properties"]["input"]
    assert "ChatInput" in str(body)


async def test_chains_run_in_their_requests_context(door: Door) -> None:
    await door.http.post("/chat/stream", json=request("stream"), headers={"x-request-id": "me-1"})
    assert door.path.contexts[0].request_id == "me-1"
