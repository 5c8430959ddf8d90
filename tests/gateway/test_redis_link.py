"""The link to Redis: on a real one, and on servers that misbehave byte by byte."""

import asyncio
import gc
import socket
import time
from asyncio import selector_events
from urllib.parse import quote

import pytest
import uvloop
from redis.asyncio import Redis

from gateway import redis_channel, redis_link
from gateway.redis_channel import RedisUnavailable
from gateway.redis_link import RedisLink
from gateway.redis_script import Script
from tests.gateway.limits.links import (
    answers,
    fake_redis,
    is_up,
    linked,
    pid_of,
    polite,
    running,
    stopped,
)
from tests.gateway.upstream.clients import open_sockets
from tests.polling import eventually

ECHO_KEY = Script("return {KEYS[1], ARGV[1]}")
NEVER = 30.0


@pytest.fixture(autouse=True)
def times(monkeypatch):
    """Sets the link's constants. Unless a test is about one, no busy machine shall run into it."""

    def set_times(**values: float) -> None:
        for name, value in values.items():
            of = redis_channel if name in ("TIMEOUT", "STALLED") else redis_link
            monkeypatch.setattr(of, f"{name}_S", value)

    set_times(TIMEOUT=NEVER, STALLED=2 * NEVER, CONNECT=NEVER, RECONNECT=0.05)
    return set_times


@pytest.fixture(autouse=True)
async def quiet():
    """Whatever happens, asyncio never has to report an error that nobody took."""
    loop, reported = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: reported.append(context["message"]))
    yield
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert reported == []


@pytest.fixture
async def redis(redis):
    await eventually(lambda: is_up(redis))
    return redis


@pytest.fixture
def news(caplog):
    """Every line the link logs, as the words it begins with."""
    caplog.set_level("INFO", redis_link.__name__)
    return lambda: [record.getMessage() for record in caplog.records if record.name == redis_link.__name__]


def states(lines: list[str]) -> list[str]:
    return [line.partition(" ")[0] for line in lines]


async def client_id(link: RedisLink) -> int:
    return await link.call("CLIENT", "ID")


async def refusals(count: int, server) -> None:
    await eventually(lambda: server.connections >= count)


# Commands and replies


async def test_commands_of_one_turn_of_the_loop_go_out_in_one_write(redis_server, monkeypatch):
    written = []
    transport = selector_events._SelectorSocketTransport
    write = transport.write

    def spy(self, data):
        written.append(bytes(data))
        write(self, data)

    async with linked(redis_server.url) as link:
        monkeypatch.setattr(transport, "write", spy)
        first = [link.call("ECHO", f"a{number}") for number in range(50)]
        assert await asyncio.gather(*first) == [f"a{number}".encode() for number in range(50)]
        second = [link.evaluate(ECHO_KEY, "k", number) for number in range(50)]
        assert await asyncio.gather(*second) == [[b"k", str(number).encode()] for number in range(50)]
    echoes = [data for data in written if b"ECHO" in data]
    assert [data.count(b"ECHO") for data in echoes] == [50]
    assert [data.count(b"EVALSHA") for data in written if b"EVALSHA" in data] == [50]


async def test_replies_find_their_callers_among_hundreds(redis_server):
    async def ask(link: RedisLink, number: int) -> None:
        word = f"{number}:" + "x" * (number % 7 * 5000)
        assert await link.call("SET", f"k{number}", word) == b"OK"
        assert await link.call("GET", f"k{number}") == word.encode()
        assert await link.evaluate(ECHO_KEY, f"k{number}", number) == [f"k{number}".encode(), str(number).encode()]
        with pytest.raises(RedisUnavailable, match=f"odd-{number}'"):
            await link.call(f"odd-{number}")

    async with linked(redis_server.url) as link:
        await asyncio.gather(*(ask(link, number) for number in range(200)))


async def test_callers_who_leave_do_not_shift_the_replies(redis_server):
    async with linked(redis_server.url) as link:
        calls = [asyncio.ensure_future(link.call("ECHO", str(number))) for number in range(200)]
        for call in calls[::3]:
            call.cancel()
        await asyncio.sleep(0)
        for call in calls[1::3]:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[2::3] == [str(number).encode() for number in range(2, 200, 3)]
        assert all(isinstance(result, asyncio.CancelledError) for result in results[::3])
        assert await link.call("ECHO", "after") == b"after"


async def test_replies_may_come_in_any_pieces():
    def reply(command: list[bytes]) -> bytes:
        return b"*3\r\n:7\r\n$-1\r\n$4\r\n\r\nab\r\n" if command == [b"GET", b"k"] else polite(command)

    async with fake_redis(reply, pieces=1) as server, linked(f"redis://{server.address}") as link:
        assert await asyncio.gather(*(link.call("GET", "k") for _ in range(3))) == [[7, None, b"\r\nab"]] * 3


@pytest.mark.parametrize("argument", ["", "é\u2028😀", b"\xff\x00", "a\r\n$3\r\nGET\r\n", "x" * 1_000_000, -5, 2**63])
async def test_arguments_arrive_as_they_are(redis_server, argument):
    expected = argument if isinstance(argument, bytes) else str(argument).encode()
    async with linked(redis_server.url) as link:
        assert await link.call("ECHO", argument) == expected
        assert await link.evaluate(ECHO_KEY, "k", argument) == [b"k", expected]


async def test_an_error_reply_is_told_in_redis_words(redis_server):
    async with linked(redis_server.url) as link:
        await link.call("RPUSH", "list", 1)
        with pytest.raises(RedisUnavailable, match=r"^WRONGTYPE Operation against a key"):
            await link.call("GET", "list")
        with pytest.raises(RedisUnavailable, match=r"^MINE too bad$"):
            await link.evaluate(Script("return redis.error_reply('MINE too bad')"), "k")
        assert await link.call("LLEN", "list") == 1


async def test_an_error_for_a_caller_who_left_is_no_noise(redis_server):
    async with linked(redis_server.url) as link:
        for _ in range(3):
            call = link.call("NOPE")
            await asyncio.sleep(0)
            call.cancel()
        assert await answers(link)


async def test_a_script_is_sent_once_and_again_after_a_flush(redis_server, redis):
    async def calls() -> dict[str, int]:
        stats = await redis.info("commandstats")
        return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha")}

    async with linked(redis_server.url) as link:
        await redis.config_resetstat()  # the link itself has asked with a script whether it may
        for number in range(3):
            assert await link.evaluate(ECHO_KEY, "k", number) == [b"k", str(number).encode()]
        assert await calls() == {"eval": 1, "evalsha": 3}
        await redis.script_flush()
        together = (link.evaluate(ECHO_KEY, "k", number) for number in range(20))
        assert await asyncio.gather(*together) == [[b"k", str(number).encode()] for number in range(20)]
        assert await link.evaluate(ECHO_KEY, "k", 1) == [b"k", b"1"]
        assert (await calls())["eval"] <= 21


# Addresses and passwords


@pytest.fixture
async def port(redis) -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    await redis.config_set("port", number)
    return number


@pytest.mark.parametrize("password", ["plain", "p@ss:/?#% é"])
@pytest.mark.parametrize("user", [None, "default", "gate way"])
@pytest.mark.parametrize("over", ["tcp", "unix"])
async def test_connects_with_password_user_and_database(redis_server, redis, port, over, user, password):
    await redis.config_set("requirepass", password)
    if user == "gate way":
        await redis.execute_command("ACL", "SETUSER", "gateway", "on", f">{password}", "~*", "&*", "+@all")
        user = "gateway"
    who = f"{user or ''}:{quote(password, safe='')}@"
    path = redis_server.url.removeprefix("unix://")
    url = f"redis://{who}127.0.0.1:{port}/3" if over == "tcp" else f"unix://{who}{path}?db=3"
    async with linked(url) as link:
        assert await link.call("ACL", "WHOAMI") == (user or "default").encode()
        assert b" db=3 " in await link.call("CLIENT", "INFO")
        assert b" name=llmgw " in await link.call("CLIENT", "INFO")


@pytest.mark.parametrize("who", [":wrong@", "default:wrong@", "nobody:s3cret@", ""])
async def test_without_the_right_password_it_never_connects_and_says_so_once(redis_server, redis, times, news, who):
    await redis.config_set("requirepass", "s3cret")
    before = (await redis.info("stats"))["total_connections_received"]
    times(RECONNECT=0.01)
    link = RedisLink(redis_server.url.replace("unix://", f"unix://{who}"))

    async def attempts() -> int:
        return (await redis.info("stats"))["total_connections_received"] - before

    async with running(link):
        await eventually(lambda: _at_least(attempts, 5))
        assert not await answers(link)
    assert states(news()) == ["no"]
    assert ("WRONGPASS" if who else "NOAUTH") in news()[0]
    assert not any("s3cret" in line or "wrong@" in line for line in news())


async def _at_least(count, enough: int) -> bool:
    return await count() >= enough


async def test_a_refused_connection_is_closed_before_the_next_try(times):
    times(RECONNECT=0.01)
    most = 0

    def refuse(_: list[bytes]) -> bytes:
        nonlocal most
        most = max(most, server.open)
        return b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"

    async with fake_redis(refuse) as server, running(RedisLink(f"redis://:pw@{server.address}")):
        await refusals(6, server)
    assert most <= 2  # the server may learn of the last one's end after it has heard of the next


async def test_the_password_is_not_logged_by_way_of_redis_own_words(news):
    """Redis answers so where AUTH has been renamed: it shows the arguments."""
    words = b"-ERR unknown command 'AUTH', with args beginning with: 'default' 's3cret' \r\n"
    async with fake_redis(lambda _: words) as server, running(RedisLink(f"redis://:s3cret@{server.address}")):
        await refusals(2, server)
    assert states(news()) == ["no"]
    assert "s3cret" not in news()[0]


async def test_a_database_that_does_not_exist_is_never_connected_to(redis_server, news):
    link = RedisLink(f"{redis_server.url}?db=99")
    async with running(link):
        await eventually(news)
        assert not await answers(link)
    assert "out of range" in news()[0]


# Late, gone, and back


async def test_a_server_that_is_late_costs_the_timeout_once_and_comes_back_by_itself(redis_server, redis, times, news):
    times(TIMEOUT=0.3)
    async with linked(redis_server.url) as link:
        connection = await client_id(link)
        with stopped(await pid_of(redis)) as go_on:
            began = time.monotonic()
            waiting = [link.call("ECHO", f"lost {number}") for number in range(20)]
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert {str(result) for result in results} == {"no answer in time"}
            assert 0.29 <= time.monotonic() - began < 2
            for _ in range(3):
                with pytest.raises(RedisUnavailable, match="late"):
                    link.call("PING")  # not even awaited
            go_on()
            await eventually(lambda: answers(link))
        assert await link.call("ECHO", "mine") == b"mine"
        assert await client_id(link) == connection
    assert states(news()) == ["connected"]


async def test_a_paused_redis_is_late_for_writes_and_comes_back(redis_server, redis, times):
    times(TIMEOUT=0.3)
    async with linked(redis_server.url) as link:
        connection = await client_id(link)
        await redis.client_pause(10_000, all=False)
        with pytest.raises(RedisUnavailable, match="no answer in time"):
            await link.evaluate(Script("return redis.call('INCR', KEYS[1])"), "k")
        await redis.client_unpause()
        await eventually(lambda: answers(link))
        assert await client_id(link) == connection


async def test_a_connection_that_stands_still_is_given_up_and_made_anew(redis_server, redis, times, news):
    times(TIMEOUT=0.2, STALLED=0.5, RECONNECT=0.02)
    async with linked(redis_server.url) as link:
        connection = await client_id(link)
        with stopped(await pid_of(redis)):
            with pytest.raises(RedisUnavailable):
                await link.call("PING")
            await eventually(lambda: states(news()) == ["connected", "lost", "no"])
            assert "stopped answering" in news()[1]
            await asyncio.sleep(0.3)  # some more tries
        times(TIMEOUT=NEVER)
        await eventually(lambda: answers(link))
        assert await client_id(link) != connection
    assert states(news()) == ["connected", "lost", "no", "connected"]


async def test_redis_may_be_killed_and_started_again(redis_server, times, news):
    times(RECONNECT=0.02)
    async with linked(redis_server.url) as link:
        for _ in range(2):
            redis_server.kill()
            await eventually(lambda: states(news())[-1] == "no")
            with pytest.raises(RedisUnavailable, match="no connection"):
                link.call("PING")
            await asyncio.sleep(0.1)  # some more tries
            redis_server.start()
            await eventually(lambda: answers(link))
            assert await link.evaluate(ECHO_KEY, "k", "again") == [b"k", b"again"]
    assert states(news()) == ["connected", *("lost", "no", "connected") * 2]


async def test_who_waits_when_the_connection_ends_is_told(redis_server, redis):
    async with linked(redis_server.url) as link:
        with stopped(await pid_of(redis)):
            waiting = [link.call("PING") for _ in range(10)]
            redis_server.kill()
            results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, RedisUnavailable) for result in results)


async def test_redis_need_not_be_there_at_first(redis_server, news):
    redis_server.kill()
    link = RedisLink(redis_server.url)
    async with running(link):
        await eventually(news)
        redis_server.start()
        await eventually(lambda: answers(link))
    assert states(news()) == ["no", "connected"]


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\xff\r\n", b"$x\r\n", b"*99999999999\r\n"]
)
async def test_what_is_not_redis_protocol_ends_the_connection(garbage, news):
    def reply(command: list[bytes]) -> bytes:
        return garbage if command[0] == b"GET" else polite(command)

    async with fake_redis(reply) as server, linked(f"redis://{server.address}") as link:
        results = await asyncio.gather(*(link.call("GET", "k") for _ in range(3)), return_exceptions=True)
        assert all("protocol" in str(result) for result in results)
        await eventually(lambda: answers(link))
        assert server.connections == 2
        await eventually(lambda: server.open == 1)
    assert states(news())[:2] == ["connected", "lost"]


async def test_a_reply_that_nobody_asked_for_never_answers_the_next_call():
    def reply(command: list[bytes]) -> bytes:
        return b"+OK\r\n+one too many\r\n" if command[0] == b"SET" else polite(command)

    async with fake_redis(reply) as server, linked(f"redis://{server.address}") as link:
        await link.call("SET", "k", "v")
        await asyncio.sleep(0.01)
        try:
            assert await link.call("PING") == b"PONG"
        except RedisUnavailable:
            await eventually(lambda: answers(link))


async def test_a_server_that_hangs_up_at_once_is_not_asked_in_a_tight_loop(times):
    times(RECONNECT=0.2)

    def hang_up(command: list[bytes]) -> bytes:
        if command == [b"PING"]:
            raise ConnectionError
        return polite(command)

    async with fake_redis(hang_up) as server:
        link = RedisLink(f"redis://{server.address}")
        began = time.monotonic()
        async with running(link):
            for _ in range(50):
                await answers(link)
                await asyncio.sleep(0.01)
        assert server.connections <= 2 + (time.monotonic() - began) / 0.2


# Nothing is left


async def test_nothing_is_left_of_a_connected_link(redis_server, redis):
    await redis.ping()
    sockets, tasks = open_sockets(), len(asyncio.all_tasks())
    async with linked(redis_server.url) as link:
        assert open_sockets() == sockets + 1
    with pytest.raises(RedisUnavailable, match="no connection"):
        link.call("PING")
    assert len(asyncio.all_tasks()) == tasks
    await eventually(lambda: open_sockets() == sockets, within=3)
    assert "llmgw" not in [client["name"] for client in await redis.client_list()]


async def test_who_waits_when_the_link_stops_is_told(redis_server, redis):
    link = RedisLink(redis_server.url)
    async with running(link) as task:
        await eventually(lambda: answers(link))
        with stopped(await pid_of(redis)):
            waiting = asyncio.ensure_future(link.call("PING"))
            task.cancel()
            with pytest.raises(RedisUnavailable, match="stops"):
                await asyncio.wait_for(waiting, 3)


@pytest.mark.parametrize("at", ["handshake", "TLS"])
async def test_nothing_is_left_of_a_link_that_was_connecting(at):
    async with fake_redis(lambda _: None) as server:
        sockets, tasks = open_sockets(), len(asyncio.all_tasks())
        scheme = "rediss" if at == "TLS" else "redis"
        async with running(RedisLink(f"{scheme}://:pw@{server.address}")):
            await eventually(lambda: server.open == 1)
            await eventually(lambda: at == "TLS" or server.commands)
        await eventually(lambda: server.open == 0, within=3)
        await eventually(lambda: open_sockets() == sockets)
        assert len(asyncio.all_tasks()) == tasks


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
async def test_a_server_that_takes_too_long_to_connect_to_is_named_with_a_reason(times, news, scheme):
    times(CONNECT=0.1, RECONNECT=0.01)
    async with fake_redis(lambda _: None) as server, running(RedisLink(f"{scheme}://{server.address}")):
        await refusals(3, server)
    (line,) = news()
    assert line.startswith("no connection to Redis (")
    assert "()" not in line


async def test_a_silent_server_is_given_up_and_leaves_nothing(times):
    times(TIMEOUT=0.05, STALLED=NEVER, RECONNECT=0.01)
    async with fake_redis(lambda _: None) as server, running(RedisLink(f"redis://{server.address}")):
        await refusals(8, server)
        assert server.open <= 3


async def test_it_does_the_same_on_the_loop_that_serves(redis_server, times):
    times(TIMEOUT=0.2)

    async def scenario() -> None:
        async with Redis.from_url(redis_server.url) as redis, linked(redis_server.url) as link:
            connection = await client_id(link)
            calls = [asyncio.ensure_future(link.call("ECHO", str(number))) for number in range(200)]
            for call in calls[::2]:
                call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert results[1::2] == [str(number).encode() for number in range(1, 200, 2)]
            with stopped(await pid_of(redis)) as go_on:
                with pytest.raises(RedisUnavailable):
                    await link.call("PING")
                go_on()
                await eventually(lambda: answers(link))
            assert await client_id(link) == connection
            # A loop that was busy for longer than the timeout has not heard the answer yet; it is not late.
            call = link.call("ECHO", "there")
            await asyncio.sleep(0.01)
            time.sleep(0.3)  # noqa: ASYNC251
            assert await link.call("ECHO", "here") == b"here"
            assert await call == b"there"

    await asyncio.to_thread(uvloop.run, scenario())
