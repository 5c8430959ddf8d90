"""Keys in a real Redis, followed by two gateways."""

import asyncio
import json
import time

import httpx
import pytest
from redis import Redis

from gateway.app import create_app
from gateway.keys.stored import HASH, VERSION, NameTaken, UnknownKey, digest
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.keys.conftest import SECRET, all_say, known, ready, status
from tests.polling import eventually

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_key_opens_every_gateway_and_closes_them_to_others(gateways, store):
    assert await all_say(gateways, None, 200)
    _, key = store.create(name="alice", tenant="team-a")
    await known(gateways, key)
    assert await all_say(gateways, None, 401)
    assert await all_say(gateways, key + "x", 401)


async def test_a_revoked_key_stops_everywhere(gateways, store):
    store.create(name="other", tenant="team-a")
    _, key = store.create(name="alice", tenant="team-a")
    await known(gateways, key)
    store.revoke("alice")
    await eventually(lambda: all_say(gateways, key, 401))


async def test_a_word_that_is_lost_is_made_up_for_by_the_poll(gateways, store, redis_server):
    record, key = store.create(name="alice", tenant="team-a")
    await known(gateways, key)
    with Redis.from_url(redis_server.url) as redis:
        redis.hdel(HASH, record.id)
        redis.incr(VERSION)
    await eventually(lambda: all_say(gateways, key, 401))


async def test_a_rotated_key_overlaps_with_its_successor(gateways, store):
    _, old = store.create(name="alice", tenant="team-a")
    _, new = store.rotate("alice", overlap_s=2)
    await known(gateways, new)
    assert await all_say(gateways, old, 200)
    await eventually(lambda: all_say(gateways, old, 401))
    assert await all_say(gateways, new, 200)


async def test_an_expired_key_is_told_so(gateways, store):
    store.create(name="bob", tenant="team-a")
    _, key = store.create(name="alice", tenant="team-a", expires_at=int(time.time()) - 1)
    await eventually(lambda: all_say(gateways, None, 401))
    answer = await gateways[0].get("/v1/models", headers={"authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "expired" in answer.json()["error"]["message"]


async def test_a_key_opens_what_it_names(gateways, store):
    _, key = store.create(name="alice", tenant="t", models=["m"], chains=["chat"], skills=["time"])
    client = gateways[0]
    await known(gateways, key)
    client.headers["authorization"] = f"Bearer {key}"
    assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["m"]
    assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200
    assert (await client.post("/v1/chat/completions", json=ASK | {"model": "other"})).status_code == 404
    assert [chain["name"] for chain in (await client.get("/chains")).json()["chains"]] == ["chat"]
    assert (await client.get("/chains/chat/input_schema")).status_code == 200
    for path in ("input_schema", "c/N4XyA/input_schema", "playground/"):
        assert (await client.get(f"/chains/summarize/{path}")).status_code == 404
    assert (await client.post("/chains/summarize/invoke", json={"input": {"text": "x"}})).status_code == 404
    assert {skill["plugin"] for skill in (await client.get("/skills")).json()["skills"]} == {"time"}
    assert all(path.startswith("/skills/time/") for path in (await client.get("/skills/openapi.json")).json()["paths"])
    assert (await client.post("/skills/time/now", json={})).status_code == 200
    assert (await client.post("/skills/text/summarize", json={"text": "x"})).status_code == 404


async def test_the_last_known_keys_outlive_redis_and_a_lost_one_opens_nothing(gateways, store, redis_server):
    _, key = store.create(name="alice", tenant="team-a")
    await known(gateways, key)
    redis_server.kill()
    await asyncio.sleep(1.5)
    assert await all_say(gateways, key, 200)
    assert await all_say(gateways, None, 401)
    redis_server.start()  # empty
    await eventually(lambda: all_say(gateways, key, 401))
    assert await all_say(gateways, None, 401)


async def test_nobody_is_served_before_the_keys_are_known(redis_server):
    redis_server.kill()
    settings = Settings.load(redis_url=redis_server.url, key_secret=SECRET)
    async with served(create_app(settings), lifespan="on") as base, httpx.AsyncClient(base_url=base) as client:
        for key in (None, "sk-x"):
            answer = await client.get("/v1/models", headers={"authorization": f"Bearer {key}"} if key else {})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "keys_unavailable")
        assert not await ready(client)
        redis_server.start()
        await eventually(lambda: ready(client))
        assert await status(client, None) == 200


async def test_a_public_gateway_without_any_key_serves_nobody(redis_server):
    settings = Settings.load(redis_url=redis_server.url, key_secret=SECRET, host="0.0.0.0")
    async with served(create_app(settings), lifespan="on") as base, httpx.AsyncClient(base_url=base) as client:
        await eventually(lambda: ready(client))
        assert await status(client, None) == 401


async def test_a_record_that_cannot_be_read_opens_nothing_and_holds_up_no_change(gateways, store, redis_server, caplog):
    _, key = store.create(name="alice", tenant="team-a")
    await known(gateways, key)
    with Redis.from_url(redis_server.url) as redis:
        forged = {"id": "k-1", "name": "eve", "tenant": "team-a", "hash": "sha256:" + "0" * 64, "prefix": "x"}
        redis.hset(HASH, "k-1", json.dumps(forged))
        redis.incr(VERSION)
    await eventually(lambda: "'k-1' is not usable" in caplog.text)
    assert await all_say(gateways, key, 200)
    store.revoke("alice")
    await eventually(lambda: all_say(gateways, key, 401))
    settings = Settings.load(redis_url=redis_server.url, key_secret=SECRET)
    async with served(create_app(settings), lifespan="on") as base, httpx.AsyncClient(base_url=base) as client:
        await eventually(lambda: ready(client))
        assert await status(client, None) == 401
    assert "0" * 64 not in caplog.text


def test_redis_never_holds_a_key(store, redis_server):
    record, key = store.create(name="alice", tenant="team-a")
    with Redis.from_url(redis_server.url) as redis:
        (stored,) = redis.hvals(HASH)
    assert key.encode() not in stored
    assert key[len(record.prefix) :].encode() not in stored
    assert record.hash == digest(key.encode(), SECRET.encode()) != digest(key.encode(), b"t" * 32)


def test_a_name_is_a_tenants_once(store):
    first, _ = store.create(name="alice", tenant="a")
    with pytest.raises(NameTaken, match="alice"):
        store.create(name="alice", tenant="a")
    store.create(name="alice", tenant="b")
    with pytest.raises(UnknownKey, match="2 keys"):
        store.show("alice")
    assert store.show(first.id) == first
    with pytest.raises(UnknownKey, match="bob"):
        store.revoke("bob")
