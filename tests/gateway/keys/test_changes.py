"""Changes of the keys in Redis that come at once, and those that a failover loses."""

import pytest
from redis import Redis

from gateway.keys import ring, stored
from gateway.keys.stored import HASH, VERSION, KeyChanged, NameTaken
from tests.gateway.keys.conftest import all_say, known
from tests.polling import eventually


@pytest.fixture
def unpolled(monkeypatch):
    """A gateway reads the keys when a word of a change has come, and no sooner."""
    monkeypatch.setattr(ring, "POLL_S", 60.0)


async def test_a_key_that_is_revoked_after_a_failover_that_lost_another_change_stops(
    unpolled, gateways, store, redis_server
):
    (_, one), (_, two) = store.create(name="one", tenant="a"), store.create(name="two", tenant="a")
    await known(gateways, two)
    with Redis.from_url(redis_server.url) as redis:
        behind = {name: redis.dump(name) for name in (HASH, VERSION)}
        store.revoke("one")
        await eventually(lambda: all_say(gateways, one, 401))
        for name, value in behind.items():
            redis.restore(name, 0, value, replace=True)
    store.revoke("two")
    await eventually(lambda: all_say(gateways, two, 401))


@pytest.fixture
def at_once(monkeypatch):
    """Lets somebody else do something right behind a reading of all keys."""

    def at_once(reading, what) -> None:
        parse, readings = stored.parse, iter([*[None] * (reading - 1), what])

        def interrupted(records):
            found = parse(records)
            if (now := next(readings, None)) is not None:
                now()
            return found

        monkeypatch.setattr(stored, "parse", interrupted)

    return at_once


@pytest.mark.parametrize("reading", [1, 2], ids=["before it is checked", "before it is written"])
def test_a_rotation_brings_no_key_back_that_was_revoked_meanwhile(store, at_once, reading):
    store.create(name="alice", tenant="a")
    at_once(reading, lambda: store.revoke("alice"))
    with pytest.raises(KeyChanged, match="try again"):
        store.rotate("alice", 3600)
    assert store.read().keys == []


@pytest.mark.parametrize("reading", [1, 2], ids=["before it is checked", "before it is written"])
def test_of_two_rotations_at_once_the_one_that_shows_a_key_has_made_it(store, at_once, reading):
    store.create(name="alice", tenant="a")
    rotated = []
    at_once(reading, lambda: rotated.append(store.rotate("alice", 0)[0]))
    with pytest.raises(KeyChanged, match="alice"):
        store.rotate("alice", 0)
    assert store.read().keys == rotated


def test_of_two_keys_of_one_name_at_once_there_is_one(store, at_once):
    made = []
    at_once(1, lambda: made.append(store.create(name="alice", tenant="a")[0]))
    with pytest.raises(NameTaken, match="alice"):
        store.create(name="alice", tenant="a")
    assert store.read().keys == made


def test_a_change_of_another_key_is_in_nobody_s_way(store, at_once):
    store.create(name="alice", tenant="a")
    at_once(2, lambda: store.create(name="bob", tenant="a"))
    record, _ = store.rotate("alice", 0)
    assert record in store.read().keys
