"""What backend and gateway share without importing each other: the directory record and the default cluster file."""

import asyncio
from dataclasses import replace

import pytest

from backend import directory as writer
from backend.doorbell import Doorbell
from backend.replica import NOTICE_S
from backend.spec import ClusterSpec
from gateway.cli.up import default_cluster
from gateway.metrics import Metrics
from gateway.routing import directory as reader
from gateway.routing.replica import State
from gateway.settings import Settings
from tests.polling import eventually
from tests.sources import ROOT

RECORD = writer.Record(
    id="m-1",
    state=writer.State.READY,
    model="m",
    url="http://127.0.0.1:9000",
    served_name="internal-m",
    engine="llamacpp",
    tasks=("chat", "completions"),
    capabilities=("continue",),
    max_model_len=4096,
    max_num_seqs=4,
    revision="r1",
    weight=2.0,
    priority=1,
    running=3,
    waiting=2,
    kv_cache=0.5,
    measured_at=7.0,
)


def test_both_read_the_same_cluster_file():
    path = default_cluster()
    assert Settings.load(config=path).models == tuple(model.name for model in ClusterSpec.load(path).models)


@pytest.mark.parametrize("module", ["redis_address", "redis_cluster", "redis_master"])
def test_both_find_redis_in_the_same_way(module):
    gateway, backend = (ROOT / package / f"{module}.py" for package in ("gateway", "backend"))
    assert gateway.read_text().replace("from gateway.", "from backend.") == backend.read_text()


def test_both_read_yaml_in_the_same_way():
    gateway, backend = ROOT / "gateway" / "settings" / "strict_yaml.py", ROOT / "backend" / "strict_yaml.py"
    assert gateway.read_text() == backend.read_text()


def test_both_mean_the_same_model_by_its_public_name(tmp_path):
    path = tmp_path / "cluster.yaml"
    common = "engine: llamacpp, source: /m.gguf, max_model_len: 128"
    path.write_text(
        f"models:\n  - {{name: m, {common}}}\n  - {{name: m-cpu, served_as: m, weight: 0.5, priority: 1, {common}}}\n"
    )
    assert Settings.load(config=path).models == ("m",)
    written = [writer.records(spec, "1", writer.State.READY) for spec in ClusterSpec.load(path).models]
    described = [(r.id, r.model, r.served_name, r.weight, r.priority) for (r,) in written]
    assert described == [("m-1", "m", "m", 1.0, 0), ("m-cpu-1", "m", "m-cpu", 0.5, 1)]


def test_both_mean_the_same_keys_and_times():
    assert (writer.PREFIX, writer.EXPIRY_S) == (reader.PREFIX, reader.EXPIRY_S)
    assert writer.HEARTBEAT_S * 3 < writer.EXPIRY_S
    assert [*writer.State] == [*State]
    assert NOTICE_S >= reader.POLL_S


@pytest.fixture
async def directory(redis):
    directory = reader.Directory([], redis, "engine-key", Metrics())
    follower = asyncio.create_task(directory.run())
    yield directory
    follower.cancel()


async def test_the_gateway_reads_what_the_backend_writes(directory, redis_server):
    backend = writer.connect(redis_server.url)
    await backend.publish([RECORD])
    await eventually(lambda: directory.pool("m") and directory.pool("m").replicas)
    (replica,) = directory.pool("m").replicas["chat"]
    assert (replica.id, replica.model, replica.served_name) == (RECORD.id, RECORD.model, RECORD.served_name)
    assert f"http://{replica.origin.authority}" == RECORD.url
    assert (replica.tasks, replica.max_model_len) == (frozenset(RECORD.tasks), RECORD.max_model_len)
    assert (replica.revision, replica.capabilities) == (RECORD.revision, frozenset(RECORD.capabilities))
    assert replica.max_concurrency == directory.pool("m").capacity == RECORD.max_num_seqs
    assert (replica.weight, replica.priority) == (RECORD.weight, RECORD.priority)
    assert replica.load == (RECORD.running + RECORD.waiting, RECORD.kv_cache, RECORD.measured_at)
    await backend.withdraw([RECORD])
    await eventually(lambda: not directory.pool("m").replicas)


async def test_the_backend_hears_the_demand_for_a_model_that_sleeps(directory, redis_server):
    asleep = replace(RECORD, id="m-asleep", state=writer.State.ASLEEP, url="")
    doorbell = Doorbell(redis_server.url, [asleep])
    assert not doorbell.rung()
    await eventually(lambda: directory.pool("m"))
    assert directory.pool("m").asleep
    await directory.demand("m")
    await eventually(doorbell.rung)
