"""The forms of a Redis URL."""

import pytest

from gateway.redis_address import Address, blocking_client, client, parse

TLS = {"ssl": True, "ssl_ca_certs": "/ca.pem"}


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://", {"ssl": False}),
        ("redis://h:1/3", {"host": "h", "port": 1, "db": 3, "ssl": False}),
        ("redis://u:p%40%2F@h", {"host": "h", "username": "u", "password": "p@/", "ssl": False}),
        ("rediss://h?ssl_ca_certs=/ca.pem", {"host": "h"} | TLS),
        ("redis://[::1]:7", {"host": "::1", "port": 7, "ssl": False}),
    ],
)
def test_a_server(url, options):
    assert parse(url) == Address(options)


def test_a_socket():
    options = parse("unix://:pw@/run/redis.sock?db=2").options
    assert (options["path"], options["db"], options["password"]) == ("/run/redis.sock", 2, "pw")


def test_sentinels_with_all_that_there_is():
    url = "rediss+sentinel://u:p%2Fw@a,b:1,[::1]:5,[::2]/ours/4?sentinel_username=s&sentinel_password=x&ssl_ca_certs=/ca.pem"
    options = {"username": "u", "password": "p/w", "db": 4} | TLS
    hosts = (("a", 26379), ("b", 1), ("::1", 5), ("::2", 26379))
    assert parse(url) == Address(options, hosts, "ours", {"username": "s", "password": "x"} | TLS)


def test_sentinels_with_no_more_than_needed():
    own = {"username": None, "password": None, "ssl": False}
    assert parse("redis+sentinel://a/ours") == Address({"ssl": False}, (("a", 26379),), "ours", own)


def test_a_cluster_with_all_that_there_is():
    url = "rediss+cluster://u:p%2Fw@a,b:1,[::1]:5,[::2]/?ssl_ca_certs=/ca.pem"
    options = {"username": "u", "password": "p/w"} | TLS
    assert parse(url) == Address(options, nodes=(("a", 6379), ("b", 1), ("::1", 5), ("::2", 6379)))


def test_a_cluster_with_no_more_than_needed():
    assert parse("redis+cluster://a") == parse("redis+cluster://a/0") == Address({"ssl": False}, nodes=(("a", 6379),))


@pytest.mark.parametrize("url", ["redis://:s3cret@a", "redis+sentinel://:s3cret@a/ours", "redis+cluster://:s3cret@a"])
def test_a_client_that_is_shown_keeps_the_password(url):
    for shown in (client(url, 1.0), blocking_client(url, 1.0)):
        assert "s3cret" not in repr(shown)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://h", "begins with redis://"),
        ("redis:/h", "begins with redis://"),
        ("redis://:pass/word@h:1", "special characters as %XX"),
        ("redis+sentinel://a:1", "names its service"),
        ("redis+sentinel://a:1/", "names its service"),
        ("redis+sentinel:///ours", "host:port"),
        ("redis+sentinel://a:word/ours", "host:port"),
        ("redis+sentinel://a,,b/ours", "host:port"),
        ("redis+cluster://a:word", "host:port"),
        ("redis+cluster://", "host:port"),
        ("redis+cluster://a,,b", "host:port"),
        ("redis+cluster://a/1", "has no databases"),
        ("redis+cluster://:pass/word@h:1", "has no databases"),
        ("unix+cluster://a", "begins with redis://"),
        ("redis+other://a", "begins with redis://"),
    ],
)
def test_what_is_none_is_refused_and_not_repeated(url, says):
    with pytest.raises(ValueError, match=says) as refused:
        parse(url)
    assert "word" not in str(refused.value).replace("password", "")
