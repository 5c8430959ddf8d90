"""The link to Redis over TLS."""

import asyncio
import ssl

import pytest
import trustme

from gateway import redis_link
from gateway.redis_link import RedisLink
from tests.gateway.limits.links import answers, linked, running, tls_in_front
from tests.polling import eventually


@pytest.fixture
def news(caplog):
    """Every line the link logs."""
    caplog.set_level("INFO", redis_link.__name__)
    return lambda: [record.getMessage() for record in caplog.records if record.name == redis_link.__name__]


def tls_context(authority: trustme.CA, name: str = "127.0.0.1", clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        clients.configure_trust(context)
    return context


@pytest.fixture
def authority(tmp_path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


async def test_speaks_tls_with_an_authority_of_ones_own(redis_server, redis, authority, tmp_path):
    await redis.config_set("requirepass", "pw")
    path = redis_server.url.removeprefix("unix://")
    async with tls_in_front(path, tls_context(authority)) as port:
        async with linked(f"rediss://:pw@127.0.0.1:{port}/2?ssl_ca_certs={tmp_path / 'ca.pem'}") as link:
            assert b" db=2 " in await link.call("CLIENT", "INFO")
            assert await asyncio.gather(*(link.call("ECHO", str(number)) for number in range(100))) == [
                str(number).encode() for number in range(100)
            ]


async def test_shows_its_own_certificate_when_it_has_one(redis_server, authority, tmp_path):
    authority.issue_cert("gateway").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    path, given = redis_server.url.removeprefix("unix://"), f"?ssl_ca_certs={tmp_path / 'ca.pem'}"
    async with tls_in_front(path, tls_context(authority, clients=authority)) as port:
        async with linked(f"rediss://127.0.0.1:{port}{given}&ssl_certfile={tmp_path / 'own.pem'}"):
            pass


@pytest.mark.parametrize("wrong", ["authority", "name", "no authority", "no such file"])
async def test_never_connects_to_whom_it_cannot_trust(redis_server, redis, authority, tmp_path, news, wrong):
    before = (await redis.info("stats"))["total_connections_received"]
    context = {
        "authority": lambda: tls_context(trustme.CA()),
        "name": lambda: tls_context(authority, "other.example"),
    }.get(wrong, lambda: tls_context(authority))()
    file = {"no authority": None, "no such file": "nothing.pem"}.get(wrong, "ca.pem")
    query = f"?ssl_ca_certs={tmp_path / file}" if file else ""
    async with tls_in_front(redis_server.url.removeprefix("unix://"), context) as port:
        link = RedisLink(f"rediss://127.0.0.1:{port}{query}")
        async with running(link) as task:
            await eventually(news)
            await asyncio.sleep(0.2)  # some more tries
            assert not task.done()
            assert not await answers(link)
    assert [line.partition(" (")[0] for line in news()] == ["no connection to Redis"]
    assert (await redis.info("stats"))["total_connections_received"] == before
