from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from backend.engines import engines
from backend.engines.base import KEY_VARIABLE, Launch, Load, Place, Share
from backend.engines.vllm import api_servers
from backend.spec import ClusterSpec, ModelSpec

VLLM = engines()["vllm"]
PLACE = Place("10.0.0.7", 4711, threads=4, cores=(2, 3, 6, 7))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret-key")


def model(gpus: float = 1, options: dict[str, Any] | None = None, **fields: Any) -> ModelSpec:
    base = {"name": "llama", "engine": "vllm", "source": "meta-llama/Llama-2-7b-chat-hf", "max_model_len": 4096}
    return ModelSpec.model_validate(base | {"resources": {"num_gpus": gpus}, "options": options or {}} | fields)


def launch(gpus: float = 1, options: dict[str, Any] | None = None, **fields: Any) -> Launch:
    return VLLM.launch(model(gpus, options, **fields), PLACE)


def value(argv: tuple[str, ...], name: str) -> str | None:
    return argv[argv.index(name) + 1] if name in argv else None


def test_a_spec_becomes_a_command_line() -> None:
    options = {
        "dtype": "bfloat16",
        "quantization": "fp8",
        "load_format": "safetensors",
        "kv_cache_dtype": "fp8",
        "tool_call_parser": "llama3_json",
        "reasoning_parser": "deepseek_r1",
        "chat_template": "/templates/chat.jinja",
        "prefix_caching": False,
        "enforce_eager": True,
        "extra_args": ["--seed", "7"],
    }
    argv = launch(2, options, max_num_seqs=256).argv
    expected = {
        "--model": "meta-llama/Llama-2-7b-chat-hf",
        "--served-model-name": "llama",
        "--host": "10.0.0.7",
        "--port": "4711",
        "--max-model-len": "4096",
        "--max-num-seqs": "256",
        "--dtype": "bfloat16",
        "--quantization": "fp8",
        "--load-format": "safetensors",
        "--kv-cache-dtype": "fp8",
        "--tool-call-parser": "llama3_json",
        "--reasoning-parser": "deepseek_r1",
        "--chat-template": "/templates/chat.jinja",
        "--tensor-parallel-size": "2",
        "--pipeline-parallel-size": "1",
        "--gpu-memory-utilization": "0.9",
        "--distributed-executor-backend": "mp",
    }
    assert {name: value(argv, name) for name in expected} == expected
    assert {"--no-enable-prefix-caching", "--enforce-eager", "--enable-auto-tool-choice"} <= set(argv)
    assert argv[-2:] == ("--seed", "7")


def test_the_key_is_in_the_environment_only() -> None:
    started = launch()
    assert "secret-key" not in " ".join(started.argv)
    assert started.env["VLLM_API_KEY"] == "secret-key"


def test_what_is_not_said_is_left_to_vllm() -> None:
    argv = launch().argv
    assert not {"--quantization", "--load-format", "--kv-cache-dtype", "--enforce-eager", "--enable-lora"} & set(argv)
    assert not {"--enable-prefix-caching", "--no-enable-prefix-caching"} & set(argv)


@pytest.mark.parametrize(("gpus", "share"), [(1, "0.9"), (0.5, "0.45"), (0.25, "0.225"), (4, "0.9")])
def test_a_part_of_a_card_gets_that_part_of_its_memory(gpus: float, share: str) -> None:
    assert value(launch(gpus).argv, "--gpu-memory-utilization") == share


def test_a_share_that_is_said_stays() -> None:
    assert value(launch(0.5, {"gpu_memory_utilization": 0.3}).argv, "--gpu-memory-utilization") == "0.3"


@pytest.mark.parametrize(
    ("gpus", "options"),
    [
        (4, {"tensor_parallel_size": 2}),
        (4, {"pipeline_parallel_size": 3}),
        (1, {"tensor_parallel_size": 2}),
        (0, {"data_parallel_size": 2}),
    ],
)
def test_parallel_sizes_agree_with_the_reservation(gpus: float, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="GPUs"):
        model(gpus, options)


def test_parallel_sizes_divide_the_reservation() -> None:
    argv = launch(8, {"pipeline_parallel_size": 2, "data_parallel_size": 2}).argv
    assert value(argv, "--tensor-parallel-size") == "2"
    assert value(argv, "--data-parallel-size") == "2"


@pytest.mark.parametrize(
    ("gpus", "seqs", "cores", "servers"),
    [(1, 1024, 16, 4), (1, 1024, 8, 2), (1, 1024, 2, 1), (1, 100, 64, 1), (1, 300, 64, 2), (0, 1024, 64, 1)],
)
def test_api_servers_follow_load_and_cores(gpus: float, seqs: int, cores: int, servers: int) -> None:
    assert api_servers(model(gpus, max_num_seqs=seqs), cores) == servers


def test_several_api_servers_need_vllms_own_command_line() -> None:
    argv = launch(1, {"api_server_count": 4}).argv
    assert argv[2:6] == ("vllm.entrypoints.cli.main", "serve", "meta-llama/Llama-2-7b-chat-hf", "--api-server-count")
    assert "vllm.entrypoints.openai.api_server" in launch(1, {"api_server_count": 1}).argv


def test_a_cpu_replica_has_cores_and_memory_of_its_own() -> None:
    started = launch(0, {"kv_cache_gib": 24})
    assert started.env["VLLM_CPU_OMP_THREADS_BIND"] == "2,3,6,7"
    assert started.env["VLLM_CPU_KVCACHE_SPACE"] == "24"
    assert not {"--gpu-memory-utilization", "--tensor-parallel-size"} & set(started.argv)
    assert VLLM.pins_cores(model(0))
    assert not VLLM.pins_cores(model(1))


def test_replicas_with_a_part_of_a_core_share_it() -> None:
    assert not VLLM.pins_cores(model(resources={"num_cpus": 0.5}))
    assert VLLM.pins_cores(model(resources={"num_cpus": 1.5}))


def test_an_adapter_is_a_model_of_its_own() -> None:
    adapters = {"llama-sql": "me/sql-lora", "llama-law": "me/law-lora"}
    spec = model(1, {"adapters": adapters})
    argv = VLLM.launch(spec, PLACE).argv
    assert VLLM.names(spec) == ("llama", "llama-sql", "llama-law")
    assert argv[argv.index("--lora-modules") + 1 :][:2] == ("llama-sql=me/sql-lora", "llama-law=me/law-lora")
    assert value(argv, "--max-loras") == "2"


def test_an_adapter_has_a_name_that_no_other_model_has() -> None:
    one = model(1, {"adapters": {"twin": "me/lora"}}).model_dump()
    with pytest.raises(ValidationError, match="the same name: twin"):
        ClusterSpec.model_validate({"models": [one, one | {"name": "twin", "options": {}, "route_prefix": "/twin"}]})


@pytest.mark.parametrize(("task", "kind"), [("embeddings", "embed"), ("score", "classify")])
def test_pooling_models(task: str, kind: str) -> None:
    argv = launch(1, task=task).argv
    assert (value(argv, "--runner"), value(argv, "--convert")) == ("pooling", kind)
    assert VLLM.capabilities(model(1, task=task)) == ()


def test_tools_are_promised_where_they_are_parsed() -> None:
    assert VLLM.capabilities(model()) == ("continue", "logprobs", "cache_salt")
    with_tools = model(1, {"tool_call_parser": "hermes"})
    assert VLLM.capabilities(with_tools) == ("continue", "logprobs", "cache_salt", "tools")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"quantisation": "fp8"}, "options.quantisation"),
        ({"quantization": "int3"}, "options.quantization"),
        ({"gpu_memory_utilization": 1.5}, "options.gpu_memory_utilization"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        model(1, options)


def test_another_engines_option_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"options\.dtype"):
        model(engine="llamacpp", options={"dtype": "auto"})


def test_a_folder_is_named_by_its_path(tmp_path: Path) -> None:
    assert value(launch(source=str(tmp_path)).argv, "--model") == str(tmp_path)


def test_the_load_is_read_from_a_scrape() -> None:
    scrape = (
        'vllm:num_requests_running{engine="0",model_name="llama"} 3.0\n'
        'vllm:num_requests_running{engine="1",model_name="llama"} 2.0\n'
        'vllm:num_requests_waiting{engine="0",model_name="llama"} 1.0\n'
        'vllm:num_requests_waiting_by_reason{engine="0",model_name="llama",reason="capacity"} 1.0\n'
        'vllm:kv_cache_usage_perc{engine="0",model_name="llama"} 0.25\n'
        'vllm:kv_cache_usage_perc{engine="1",model_name="llama"} 0.75\n'
    )
    assert VLLM.load(scrape) == Load(running=5, waiting=1, kv_cache=0.75)
    assert VLLM.load("") == Load()


def test_on_amd_cards_it_sees_those_that_ray_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "CUDA_VISIBLE_DEVICES" not in launch().env
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "2,3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    started = launch(2, resources={"num_gpus": 2, "accelerator_type": "AMD-Instinct-MI300X-OAM"})
    assert started.env["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert value(started.argv, "--tensor-parallel-size") == "2"


def parts(spec: ModelSpec) -> list[Launch]:
    first = Share(0, spec.nodes, "10.0.0.7", 5000)
    return [VLLM.launch(spec, replace(PLACE, host=f"10.0.0.{7 + n}", share=first.of(n))) for n in range(spec.nodes)]


def test_a_replica_over_two_nodes_is_two_parts_of_one_server() -> None:
    options = {"tensor_parallel_size": 8, "pipeline_parallel_size": 2, "api_server_count": 4}
    first, second = parts(model(8, options, nodes=2))
    for rank, part in enumerate((first, second)):
        expected = {
            "--nnodes": "2",
            "--node-rank": str(rank),
            "--master-addr": "10.0.0.7",
            "--master-port": "5000",
            "--tensor-parallel-size": "8",
            "--pipeline-parallel-size": "2",
            "--distributed-executor-backend": "mp",
            "--gpu-memory-utilization": "0.9",
        }
        assert {name: value(part.argv, name) for name in expected} == expected
        assert part.env["VLLM_HOST_IP"] == f"10.0.0.{7 + rank}"
    assert value(first.argv, "--port") == "4711"
    assert value(first.argv, "--api-server-count") == "4"
    assert "--headless" in second.argv
    assert not {"--port", "--api-server-count", "--middleware"} & set(second.argv)


def test_two_nodes_of_cpus_are_two_devices() -> None:
    first, second = parts(model(0, {"pipeline_parallel_size": 2}, nodes=2))
    assert value(second.argv, "--pipeline-parallel-size") == "2"
    assert first.env["VLLM_CPU_OMP_THREADS_BIND"] == "2,3,6,7"


@pytest.mark.parametrize(
    ("gpus", "nodes", "options", "words"),
    [
        (8, 2, {"tensor_parallel_size": 8}, "16 GPUs"),
        (8, 2, {"tensor_parallel_size": 8, "data_parallel_size": 2}, "num_replicas"),
        (0, 1, {"pipeline_parallel_size": 2}, "num_gpus is 0"),
    ],
)
def test_sizes_that_do_not_fit_the_nodes_are_refused(
    gpus: int, nodes: int, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        model(gpus, options, nodes=nodes)
