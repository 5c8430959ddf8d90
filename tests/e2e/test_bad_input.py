"""Bad input on every door: a typed 4xx, nothing above INFO in the log, and no work for the engine."""

import pytest

from tests.e2e.stack import CHAT_MODEL

TOO_LONG = "word " * 5000

BAD = {
    "openai, no JSON": ("/v1/chat/completions", b"{", 400),
    "openai, no messages": ("/v1/chat/completions", {"model": CHAT_MODEL, "messages": []}, 400),
    "openai, wrong type": ("/v1/completions", {"model": CHAT_MODEL, "prompt": {"a": 1}}, 400),
    "openai, unknown model": ("/v1/embeddings", {"model": "nope", "input": "x"}, 404),
    "openai, too long": (
        "/v1/chat/completions",
        {"model": CHAT_MODEL, "messages": [{"role": "user", "content": TOO_LONG}]},
        400,
    ),
    "openai, too large": ("/v1/chat/completions", b" " * (8 << 20) + b"{}", 413),
    "chain, no JSON": ("/chains/chat/invoke", b"{", 400),
    "chain, no input": ("/chains/chat/invoke", {"input": {}}, 422),
    "chain, wrong type": ("/chains/chat/stream", {"input": {"input": 3}}, 422),
    "chain, bad batch": ("/chains/chat/batch", {"inputs": [{"input": 3}]}, 422),
    "chain, unknown model": (
        "/chains/chat/stream",
        {"input": {"input": "x"}, "config": {"configurable": {"model": "nope"}}},
        404,
    ),
    "chain, too long": ("/chains/chat/invoke", {"input": {"input": TOO_LONG}}, 400),
    "chain, too large": ("/chains/chat/invoke", b" " * (8 << 20) + b"{}", 413),
    "chain, unknown": ("/chains/nope/invoke", {"input": "x"}, 404),
    "skill, no JSON": ("/skills/text/summarize", b"{", 400),
    "skill, wrong type": ("/skills/text/summarize", {"text": 3}, 422),
    "skill, missing": ("/skills/text/summarize", {}, 422),
    "skill, unknown zone": ("/skills/time/now", {"timezone": "Mars/Olympus"}, 422),
    "skill, too long": ("/skills/text/summarize", {"text": TOO_LONG}, 400),
    "skill, too large": ("/skills/text/summarize", b" " * (8 << 20) + b"{}", 413),
    "skill, unknown": ("/skills/text/nope", {}, 404),
}


@pytest.mark.parametrize("name", BAD)
async def test_is_refused_before_the_engine(stack, client, name):
    path, body, status = BAD[name]
    log, work = len(stack.log("gateway")), stack.engine_metrics()["llamacpp:prompt_tokens_total"]
    content = (
        {"content": body, "headers": {"content-type": "application/json"}}
        if isinstance(body, bytes)
        else {"json": body}
    )
    answer = await client.post(path, **content)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (status, "invalid_request_error")
    assert error["message"]
    written = stack.log("gateway")[log:]
    assert [line for line in written.splitlines() if " INFO " not in line] == []
    assert stack.engine_metrics()["llamacpp:prompt_tokens_total"] == work
