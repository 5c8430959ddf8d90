"""The semantic cache through the door, on a real Redis, with embeddings that the test chooses."""

import hashlib
import logging
import time

import pytest

from gateway.settings import ConfigError, Key, Settings
from tests.gateway.cache.meanings import elements, gateway, known, renaming
from tests.gateway.raw_server import sized
from tests.polling import eventually

ASKED = "How do I fix a broken chair?"
SAME = "What is the best way to repair a broken chair?"
NEGATED = "How do I not fix a broken chair?"
WEAK = "In which way does one repair a broken chair?"
MEANINGS = {ASKED: 1.0, SAME: 0.95, NEGATED: 0.99, WEAK: 0.75}


@pytest.fixture
async def running(redis_server):
    async with gateway(redis_server.url, MEANINGS) as started:
        yield started


async def test_a_question_in_other_words_gets_the_answer(running, redis):
    first = await running.ask(ASKED)
    await known(redis, ASKED)
    second = await running.ask(SAME)
    assert (first.headers["x-llmgw-cache"], second.headers["x-llmgw-cache"]) == ("miss", "semantic")
    assert second.content == first.content
    assert 0 <= int(second.headers["age"]) < 10
    assert running.engines.chats == 1
    (key,) = await redis.keys("{llmgw}:semantic:*")
    assert 0 < await redis.ttl(key) <= 3600
    metrics = (await running.client.get("/metrics")).text
    assert 'llmgw_cache_answers_total{cache="semantic"} 1.0' in metrics


async def test_a_stream_gets_it_as_a_stream(running, redis):
    await running.ask(ASKED)
    await known(redis, ASKED)
    answer = await running.ask(SAME, stream=True)
    assert answer.headers["x-llmgw-cache"] == "semantic"
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_word_for_word_asks_for_no_embedding(running, redis):
    await running.ask(ASKED)
    await known(redis, ASKED)
    assert await running.outcome(ASKED) == "hit"
    assert running.engines.embedded == [ASKED]


async def test_an_answer_that_was_lent_is_not_lent_on(running, redis):
    """Else answers would drift: from one question to the next, each near the one before."""
    await running.ask(ASKED)
    await known(redis, ASKED)
    assert await running.outcome(SAME) == "semantic"
    assert await elements(redis) == [ASKED.encode()]
    assert len(await redis.keys("{llmgw}:cache:*")) == 1


@pytest.mark.parametrize(
    ("text", "why"), [(NEGATED, "the guard objects"), (WEAK, "below the threshold"), ("Hello!", "something else")]
)
async def test_what_is_another_question_is_a_miss(running, redis, text, why):
    await running.ask(ASKED)
    await known(redis, ASKED)
    assert await running.outcome(text) == "miss", why
    assert running.engines.chats == 2


async def test_behind_a_false_friend_the_friend_is_found(running, redis):
    for text in (NEGATED, ASKED):
        await running.ask(text)
        await known(redis, text)
    assert await running.outcome(SAME) == "semantic"


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"max_tokens": 3},
        {"seed": 2},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"cache_salt": "x"},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SAME}]},
        {"messages": [{"role": "user", "content": SAME, "name": "ann"}]},
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hi."},
                {"role": "user", "content": SAME},
            ]
        },
    ],
    ids=lambda change: next(iter(change)),
)
async def test_only_the_last_turn_may_differ(running, redis, change):
    await running.ask(ASKED)
    await known(redis, ASKED)
    assert await running.outcome(SAME, **change) == "miss"


async def test_in_the_same_conversation_it_may(running, redis):
    def conversation(text: str) -> list[dict]:
        return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]

    await running.ask(ASKED, messages=conversation(ASKED))
    await known(redis, ASKED)
    assert await running.outcome(SAME, messages=conversation(SAME)) == "semantic"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [{"type": "text", "text": SAME}]}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": SAME}],
        [{"role": "user", "content": " "}],
        [{"role": "user", "content": f"{SAME} " * 10}],
    ],
    ids=["parts", "assistant", "blank", "long"],
)
async def test_other_turns_have_no_part(running, messages):
    assert await running.outcome("", messages=messages) == "miss"
    assert running.engines.embedded == []


async def test_no_tenant_gets_the_answer_of_another(redis_server, redis):
    secrets = {name: f"sk-{name}" for name in ("a-1", "a-2", "b-1")}
    keys = tuple(
        Key(name=name, tenant=name[0], hash=f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}")
        for name, secret in secrets.items()
    )
    async with gateway(redis_server.url, MEANINGS, keys=keys) as started:

        async def outcome(name: str, text: str) -> str:
            return await started.outcome(text, {"authorization": f"Bearer {secrets[name]}"})

        assert await outcome("a-1", ASKED) == "miss"
        await known(redis, ASKED)
        assert await outcome("b-1", SAME) == "miss"
        assert await outcome("a-2", SAME) == "semantic"


async def test_a_key_that_may_not_call_the_embeddings_model_has_it_too(redis_server, redis):
    digest = hashlib.sha256(b"sk-1").hexdigest()
    key = Key(name="k", tenant="t", hash=f"sha256:{digest}", models=frozenset({"m"}))
    async with gateway(redis_server.url, MEANINGS, keys=(key,)) as started:
        await started.ask(ASKED, {"authorization": "Bearer sk-1"})
        await known(redis, ASKED)
        assert await started.outcome(SAME, {"authorization": "Bearer sk-1"}) == "semantic"


@pytest.mark.parametrize("name", ["threshold", "cache_thresholds", "semantic_threshold"])
async def test_a_client_can_not_lower_the_threshold(running, redis, name):
    for text in (ASKED, WEAK):
        await running.ask(ASKED, **{name: 0.1})
        await known(redis, ASKED)
        assert await running.outcome(text, {f"x-llmgw-{name}": "0.1"}, **{name: 0.1}) == (
            "hit" if text == ASKED else "miss"
        )


@pytest.mark.parametrize(("control", "outcome"), [("no-cache", "miss"), ("no-store", "bypass"), ("max-age=50", "miss")])
async def test_a_client_can_do_without(running, redis, monkeypatch, control, outcome):
    await running.ask(ASKED)
    await known(redis, ASKED)
    now = time.time()
    monkeypatch.setattr("gateway.cache.entry.time.time", lambda: now + 100)
    assert await running.outcome(SAME, {"cache-control": control}) == outcome
    assert await running.outcome(SAME, {"cache-control": "max-age=200"}) == ("hit" if outcome == "miss" else "semantic")


async def test_what_is_drawn_at_random_is_asked_again(running, redis):
    await running.ask(ASKED)
    await known(redis, ASKED)
    assert await running.outcome(SAME, temperature=0.7) == "bypass"


async def test_a_model_without_a_threshold_has_none(redis_server, redis):
    async with gateway(redis_server.url, MEANINGS, {"other": 0.8}) as started:
        for text in (ASKED, SAME):
            assert await started.outcome(text) == "miss"
        assert started.engines.embedded == []


async def test_thresholds_want_an_embeddings_model():
    with pytest.raises(ConfigError, match="cache_embeddings_model"):
        Settings.load(cache_thresholds={"m": 0.8})


async def test_a_question_whose_answer_is_gone_is_a_miss_and_is_gone(running, redis):
    await running.ask(ASKED)
    await known(redis, ASKED)
    await redis.delete(*await redis.keys("{llmgw}:cache:*"))
    assert await running.outcome(SAME) == "miss"
    await known(redis, SAME)
    assert await elements(redis) == [SAME.encode()]


async def test_a_set_has_a_bound(redis_server, redis, monkeypatch):
    monkeypatch.setattr("gateway.cache.semantic.MAX_QUESTIONS", 3)
    async with gateway(redis_server.url, {}) as started:
        for number in range(8):
            await started.ask(f"question {number}")
        await eventually(lambda: _added(redis, 8))
    assert len(await elements(redis)) == 3


async def _added(redis, count: int) -> bool:
    calls = await redis.info("commandstats")
    return {name.lower(): stats for name, stats in calls.items()}.get("cmdstat_vadd", {}).get("calls") == count


@pytest.mark.parametrize(
    ("answer", "reason", "tries"),
    [
        (sized(b'{"error": {"message": "no"}}', "500 Internal Server Error"), "failed (status 500)", 3),
        (sized(b'{"data": []}'), "sent no embedding", 1),
        (sized(b'{"data": [{"embedding": [0.0, 0.0]}]}'), "without a direction", 1),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", "did not answer in time", 1),
    ],
    ids=["error", "nothing", "zeros", "silence"],
)
async def test_without_embeddings_it_is_a_miss(running, redis, caplog, monkeypatch, answer, reason, tries):
    await running.ask(ASKED)
    await known(redis, ASKED)
    running.engines.embeddings = answer
    if "in time" in reason:
        monkeypatch.setattr("gateway.completion.semantic.EMBEDDING_S", 0.25)
    for text in (SAME, WEAK, NEGATED):  # the second and third within the pause
        assert await running.outcome(text) == "miss"
    assert [reason in record.message for record in caplog.records if "semantic cache is off" in record.message] == [
        True
    ]
    assert len(running.engines.embedded) == 1 + tries
    assert "llmgw_semantic_failures_total 1.0" in (await running.client.get("/metrics")).text


async def test_it_comes_back_by_itself(running, redis, caplog, monkeypatch):
    monkeypatch.setattr("gateway.completion.semantic.PAUSE_S", 0.0)
    caplog.set_level(logging.INFO)
    await running.ask(ASKED)
    await known(redis, ASKED)
    running.engines.embeddings = sized(b"{}")
    assert await running.outcome(SAME, max_tokens=1) == "miss"
    running.engines.embeddings = None
    assert await running.outcome(SAME) == "semantic"
    assert "the semantic cache is in use" in caplog.text


async def test_a_redis_without_vector_sets_has_the_exact_cache_only(redis_server, caplog):
    async with renaming(redis_server.url, b"VSIM", b"WSIM") as url:
        async with gateway(url, MEANINGS) as started:
            for text in (ASKED, SAME):
                assert await started.outcome(text) == "miss"
            await eventually(lambda: _is_hit(started))
            assert len(started.engines.embedded) == 1
    said = [record.message for record in caplog.records if "semantic cache" in record.message]
    assert said == ["the semantic cache is off: this Redis has no vector sets, which came with Redis 8"]


async def _is_hit(started) -> bool:
    return await started.outcome(ASKED) == "hit"


async def test_while_redis_is_away_no_embedding_is_asked_for(running, redis_server):
    redis_server.kill()
    await eventually(lambda: _no_longer_asked(running))
    assert await running.outcome(SAME) == "miss"


async def _no_longer_asked(running) -> bool:
    before = len(running.engines.embedded)
    assert await running.outcome(SAME) == "miss"
    return len(running.engines.embedded) == before


async def test_two_gateways_share_it(redis_server, redis):
    async with gateway(redis_server.url, MEANINGS) as one, gateway(redis_server.url, MEANINGS) as other:
        await one.ask(ASKED)
        await known(redis, ASKED)
        assert await other.outcome(SAME) == "semantic"
        assert other.engines.chats == 0


async def test_an_embeddings_model_that_nobody_serves_is_a_miss(redis_server, caplog):
    async with gateway(redis_server.url, MEANINGS, cache_embeddings_model="absent") as started:
        for text in (ASKED, SAME):
            assert await started.outcome(text) == "miss"
        assert await started.outcome(ASKED) == "hit"
    assert caplog.text.count("'absent' of the semantic cache has no replica") == 1
