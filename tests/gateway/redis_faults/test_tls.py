"""TLS that Redis itself speaks, a Cluster and the Sentinels too; the packaged server is built without."""

import subprocess

import pytest
import trustme

from gateway import redis_address
from gateway.redis_cluster import TAG
from tests.conftest import REDIS
from tests.gateway.limits.links import linked
from tests.gateway.redis_faults.servers import free_port, server


@pytest.fixture(scope="module", autouse=True)
def speaks_tls():
    argv = [REDIS, "--port", "0", "--tls-port", str(free_port())]  # and no certificate, so that none starts
    if b"Failed finding TLS support" in subprocess.run(argv, capture_output=True, timeout=20, check=False).stdout:
        pytest.skip("this redis-server is built without TLS; TEST_REDIS_SERVER may name another")


@pytest.fixture
def tls(tmp_path):
    """The words of a server that wants certificates, and the query of a URL that shows one."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    own = authority.issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(tmp_path / "key.pem")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    words = ["--tls-replication", "yes"]
    for name, file in {"ca-cert": "ca", "cert": "cert", "key": "key"}.items():
        words += [f"--tls-{name}-file", f"{tmp_path}/{file}.pem"]
    return words, f"ssl_ca_certs={tmp_path}/ca.pem&ssl_certfile={tmp_path}/cert.pem&ssl_keyfile={tmp_path}/key.pem"


async def test_a_server_and_the_sentinels_that_name_it(tmp_path, tls):
    words, query = tls
    port, sentinel_port = free_port(), free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"sentinel monitor ours 127.0.0.1 {port} 1\n")
    with (
        server(tmp_path / "redis", *words, "--tls-port", str(port), "--save", ""),
        server(tmp_path / "sentinel", str(config), "--sentinel", *words, "--tls-port", str(sentinel_port)),
    ):
        for url in (
            f"rediss://127.0.0.1:{port}/2?{query}",
            f"rediss+sentinel://127.0.0.1:{sentinel_port}/ours/2?{query}",
        ):
            async with linked(url) as link:
                assert f"laddr=127.0.0.1:{port} " in (await link.call("CLIENT", "INFO")).decode()
                await link.call("SET", "k", url)
            async with redis_address.client(url, 2.0) as redis:
                assert await redis.get("k") == url.encode()
            with redis_address.blocking_client(url, 2.0) as redis:
                assert redis.get("k") == url.encode()


async def test_a_node_of_a_cluster(tmp_path, tls):
    words, query = tls
    port = free_port()
    own = ("--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", str(free_port()), "--save", "")
    with server(tmp_path / "redis", *words, "--tls-port", str(port), *own) as node:
        with node.blocking() as redis:
            redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        url = f"rediss+cluster://127.0.0.1:{port}?{query}"
        async with linked(url) as link:
            assert f"laddr=127.0.0.1:{port} " in (await link.call("CLIENT", "INFO")).decode()
            await link.call("SET", f"{TAG}:k", url)
        async with redis_address.client(url, 2.0) as redis:
            assert await redis.get(f"{TAG}:k") == url.encode()
        with redis_address.blocking_client(url, 2.0) as redis:
            assert redis.get(f"{TAG}:k") == url.encode()
