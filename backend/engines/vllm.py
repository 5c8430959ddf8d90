"""vLLM: any Hugging Face model on NVIDIA and AMD GPUs and on CPUs, as vLLM's own server in its own Python environment.

Source: https://docs.vllm.ai/en/latest/cli/serve/
"""

import os
import sys
from collections.abc import Iterator
from enum import StrEnum
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.engines.base import KEY_VARIABLE, Engine, Launch, Load, Place, Share, sample, values
from backend.sources import locate, size

if TYPE_CHECKING:
    from backend.spec import ModelSpec

GIB = 2**30
PYTHON_VARIABLE = "LLMGW_VLLM_PYTHON"
# One API server tokenizes, parses and frames for about so many sequences before it is what the GPU waits for.
SEQUENCES_PER_API_SERVER = 256
CORES_PER_API_SERVER = 4
PROCESS_BYTES = 2 * GIB
_DOOR = Path(__file__).with_name("_vllm_door")
_POOLING = {"embeddings": "embed", "score": "classify"}


class Quantization(StrEnum):
    """How the weights are stored. `compressed-tensors` covers int8 (W8A8) and more; the files say which."""

    FP8 = "fp8"
    AWQ = "awq"
    GPTQ = "gptq"
    COMPRESSED_TENSORS = "compressed-tensors"
    BITSANDBYTES = "bitsandbytes"


class VllmOptions(BaseModel):
    """What a model's `options` may say when its engine is vllm. Whatever is not said is vLLM's own default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: str = Field(default="auto", description="of weights and activations, such as bfloat16")
    quantization: Quantization | None = None
    load_format: str | None = Field(default=None, description="such as safetensors, bitsandbytes, dummy")
    tensor_parallel_size: int | None = Field(default=None, gt=0, description="default: all devices that are reserved")
    pipeline_parallel_size: int = Field(default=1, gt=0)
    data_parallel_size: int = Field(default=1, gt=0)
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="of a whole card; default 0.9, or that part of it that is reserved"
    )
    kv_cache_dtype: str | None = Field(default=None, description="such as fp8")
    kv_cache_gib: int = Field(default=1, gt=0, description="memory for the KV cache where there is no GPU")
    prefix_caching: bool | None = None
    enforce_eager: bool = Field(default=False, description="no compilation: starts sooner, runs slower")
    api_server_count: int | None = Field(default=None, gt=0, description="default: by cores and max_num_seqs")
    adapters: dict[str, str] = Field(default_factory=dict, description="LoRA: a model name to a path or a hub's name")
    max_lora_rank: int = Field(default=16, gt=0)
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: str | None = Field(default=None, description="a file")
    extra_args: tuple[str, ...] = Field(default=(), description="passed on as they are")


class Vllm(Engine):
    tasks: ClassVar[frozenset[str]] = frozenset({"chat", "embeddings", "score"})
    options: ClassVar[type[BaseModel]] = VllmOptions
    spans_nodes: ClassVar[bool] = True

    def check(self, spec: "ModelSpec") -> None:
        options, gpus = _options(spec), spec.resources.num_gpus
        parallel = _tensor_parallel(spec) * options.pipeline_parallel_size * options.data_parallel_size
        if gpus <= 1 < parallel and spec.nodes == 1:
            raise ValueError(f"the parallel sizes need {parallel} GPUs and resources.num_gpus is {gpus:g}")
        if parallel != (devices := _devices(spec)):
            raise ValueError(
                f"{devices} GPUs are reserved, tensor x pipeline x data parallel sizes make {parallel}: let them agree"
            )
        if spec.nodes > 1 and options.data_parallel_size > 1:
            raise ValueError("data parallel over several nodes is what num_replicas is for")

    def names(self, spec: "ModelSpec") -> tuple[str, ...]:
        return (spec.name, *_options(spec).adapters)

    def serves(self, spec: "ModelSpec") -> tuple[str, ...]:
        # Texts with embeddings have scores too: how near these are.
        return ("embeddings", "score") if spec.task == "embeddings" else super().serves(spec)

    def pins_cores(self, spec: "ModelSpec") -> bool:
        # Who has a part of a core shares it: as many parts as Ray places there would ask for more cores than it has.
        return not spec.resources.num_gpus and spec.resources.num_cpus >= 1

    def launch(self, spec: "ModelSpec", place: Place) -> Launch:
        options = _options(spec)
        argv = [*_server(spec, place), "--served-model-name", spec.name]
        argv += ["--max-model-len", str(spec.max_model_len), "--max-num-seqs", str(spec.max_num_seqs)]
        argv += [*_arguments(options), *_placement(spec, place.share), *_task(spec), *options.extra_args]
        return Launch((python(), *argv), _environment(spec, place))

    def load(self, metrics: str) -> Load:
        running, waiting = sample(metrics, "vllm:num_requests_running"), sample(metrics, "vllm:num_requests_waiting")
        # Each engine core of a data-parallel server has a cache of its own.
        return Load(running, waiting, max(values(metrics, "vllm:kv_cache_usage_perc"), default=0.0))

    def capabilities(self, spec: "ModelSpec") -> tuple[str, ...]:
        if spec.task != "chat":
            return ()
        return ("continue", "logprobs", "cache_salt", *(("tools",) if _options(spec).tool_call_parser else ()))

    def memory(self, spec: "ModelSpec") -> int:
        if spec.resources.num_gpus:
            return PROCESS_BYTES
        weights = 0 if _is_hub_name(spec.source) else size(locate(spec.source))
        return PROCESS_BYTES + weights + _options(spec).kv_cache_gib * GIB


def python() -> str:
    """The interpreter that has vLLM: LLMGW_VLLM_PYTHON, or `.venv-vllm` beside this environment, or this one."""
    beside = Path(sys.prefix).with_name(".venv-vllm") / "bin" / "python"
    return os.environ.get(PYTHON_VARIABLE) or (str(beside) if beside.exists() else sys.executable)


def api_servers(spec: "ModelSpec", cores: int) -> int:
    """How many API server processes keep up with the engine, on a node with so many cores."""
    if not spec.resources.num_gpus:
        return 1  # the model itself needs the cores
    by_load = ceil(spec.max_num_seqs / SEQUENCES_PER_API_SERVER)
    return max(_options(spec).data_parallel_size, min(by_load, cores // CORES_PER_API_SERVER), 1)


def _options(spec: "ModelSpec") -> VllmOptions:
    return VllmOptions.model_validate(spec.options)


def _tensor_parallel(spec: "ModelSpec") -> int:
    options = _options(spec)
    others = options.pipeline_parallel_size * options.data_parallel_size
    return options.tensor_parallel_size or max(1, _devices(spec) // others)


def _devices(spec: "ModelSpec") -> int:
    """How many GPUs one replica has, or CPU nodes, each of which is one device to vLLM."""
    return spec.nodes * max(1, int(spec.resources.num_gpus))


def _is_hub_name(source: str) -> bool:
    """`organisation/model`, where no such folder is: vLLM finds it in its cache or on the hub."""
    return source.count("/") == 1 and not source.startswith(("package:", ".", "~", "/")) and not Path(source).exists()


def _source(source: str) -> str:
    return source if _is_hub_name(source) else str(locate(source))


def _server(spec: "ModelSpec", place: Place) -> list[str]:
    """The program, and where its door is; every part but the first of a replica over several nodes has none."""
    source = _source(spec.source)
    serve = ["-m", "vllm.entrypoints.cli.main", "serve", source]
    if place.share and place.share.rank:
        return [*serve, "--headless"]
    door = ["--host", place.host, "--port", str(place.port)]
    door += ["--middleware", "llmgw_vllm_door.RequireKey", "--uvicorn-log-level", "warning"]
    if (servers := _options(spec).api_server_count or api_servers(spec, os.cpu_count() or 1)) > 1:
        return [*serve, "--api-server-count", str(servers), *door]
    # One server and nothing else; the command line above would start several.
    return ["-m", "vllm.entrypoints.openai.api_server", "--model", source, *door]


def _arguments(options: VllmOptions) -> Iterator[str]:
    """The options that are vLLM's arguments of the same meaning."""
    values = {
        "--dtype": options.dtype,
        "--quantization": options.quantization,
        "--load-format": options.load_format,
        "--kv-cache-dtype": options.kv_cache_dtype,
        "--tool-call-parser": options.tool_call_parser,
        "--reasoning-parser": options.reasoning_parser,
        "--chat-template": options.chat_template,
    }
    for name, value in values.items():
        if value is not None:
            yield from (name, value)
    if options.prefix_caching is not None:
        yield "--enable-prefix-caching" if options.prefix_caching else "--no-enable-prefix-caching"
    if options.enforce_eager:
        yield "--enforce-eager"
    if options.tool_call_parser:
        yield "--enable-auto-tool-choice"
    if options.adapters:
        yield from ("--enable-lora", "--max-loras", str(len(options.adapters)))
        yield from ("--max-lora-rank", str(options.max_lora_rank), "--lora-modules")
        yield from (f"{name}={_source(source)}" for name, source in options.adapters.items())


def _placement(spec: "ModelSpec", share: Share | None) -> Iterator[str]:
    """How the model lies on the devices that Ray has reserved."""
    options, gpus = _options(spec), spec.resources.num_gpus
    if gpus:
        # A replica with a part of a card gets that part of its memory; the rest is another's.
        memory = options.gpu_memory_utilization or round(0.9 * min(gpus, 1.0), 3)
        yield from ("--gpu-memory-utilization", str(memory))
    if gpus or share:
        yield from ("--tensor-parallel-size", str(_tensor_parallel(spec)))
        yield from ("--pipeline-parallel-size", str(options.pipeline_parallel_size))
    if options.data_parallel_size > 1:
        yield from ("--data-parallel-size", str(options.data_parallel_size))
    if _devices(spec) > 1:
        # Ray has done its part; vLLM's own processes need no second one.
        yield from ("--distributed-executor-backend", "mp")
    if share:
        yield from ("--nnodes", str(share.size), "--node-rank", str(share.rank))
        yield from ("--master-addr", share.host, "--master-port", str(share.port))


def _task(spec: "ModelSpec") -> Iterator[str]:
    if kind := _POOLING.get(spec.task):
        yield from ("--runner", "pooling", "--convert", kind)


def _environment(spec: "ModelSpec", place: Place) -> dict[str, str]:
    environment = {
        "VLLM_API_KEY": os.environ[KEY_VARIABLE],
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_DOOR), os.environ.get("PYTHONPATH")])),
        "VLLM_NO_USAGE_STATS": "1",
    }
    if visible := os.environ.get("HIP_VISIBLE_DEVICES"):
        # On AMD cards Ray sets this one; vLLM reads either, and ends when an image has set the other to something else.
        environment["CUDA_VISIBLE_DEVICES"] = visible
    if place.share:
        environment["VLLM_HOST_IP"] = place.host  # where the other parts find this one
    if not spec.resources.num_gpus:
        environment |= {
            "VLLM_CPU_KVCACHE_SPACE": str(_options(spec).kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, place.cores)) or "nobind",
        }
    return environment


ENGINE = Vllm()
