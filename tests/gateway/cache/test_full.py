"""A Redis that takes no writes."""

from typing import NamedTuple

from tests.polling import eventually


class Sets(NamedTuple):
    """The commands SET that Redis has had: claims and answers."""

    taken: int
    refused: int


async def _sets(redis) -> Sets:
    told = (await redis.info("commandstats")).get("cmdstat_set", {"calls": 0, "rejected_calls": 0})
    return Sets(told["calls"], told["rejected_calls"])


async def _become(redis, sets: Sets) -> None:
    async def so() -> bool:
        return await _sets(redis) == sets

    await eventually(so)


async def test_a_redis_that_is_full_is_asked_once_a_request_until_it_is_not(cached, redis):
    await redis.config_set("maxmemory", 1)
    taken, refused = await _sets(redis)
    await cached.post(temperature=0, max_tokens=1)
    await _become(redis, Sets(taken, refused + 2))  # the claim, and the answer
    for number in range(2, 5):
        assert (await cached.post(temperature=0, max_tokens=number)).headers["x-llmgw-cache"] == "miss"
        await _become(redis, Sets(taken, refused + 1 + number))  # the answer alone
    await redis.config_set("maxmemory", 0)
    await cached.post(temperature=0, max_tokens=5)
    await _become(redis, Sets(taken + 1, refused + 5))
    await cached.post(temperature=0, max_tokens=6)
    await _become(redis, Sets(taken + 3, refused + 5))
