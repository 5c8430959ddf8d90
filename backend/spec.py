"""What a cluster is, as data: one YAML file describes the models and the local Ray that runs them.

    ray: {http_port: 8000}
    models:
      - {name: my-model, engine: llamacpp, source: /models/my.gguf, max_model_len: 4096, max_num_seqs: 8}
      - name: llama-3-8b
        engine: vllm
        source: meta-llama/Meta-Llama-3-8B-Instruct
        max_model_len: 8192
        max_num_seqs: 256
        resources: {num_gpus: 1}
        options: {kv_cache_dtype: fp8}

The `gateway:` section of the same file belongs to the gateway and is passed over here.
"""

import hashlib
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from backend import strict_yaml
from backend.engines import engines


class SpecError(ValueError):
    """A cluster file or a model's arguments are wrong; the message is one line that names the file and the field."""


class Task(StrEnum):
    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    SCORE = "score"


class StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(StrictModel):
    """What one replica reserves; the names are Ray's."""

    num_cpus: float = Field(default=1.0, gt=0, description="may be a fraction: an engine gets max(1, floor) threads")
    num_gpus: float = Field(default=0.0, ge=0)
    custom: dict[str, float] = Field(default_factory=dict, description="custom resources, such as {intel_cpu: 1}")
    accelerator_type: str | None = Field(default=None, description="Ray's name of a GPU, such as T4 or A10G")

    @field_validator("num_gpus")
    @classmethod
    def _whole_cards(cls, gpus: float) -> float:
        # Ray refuses it only when it places a replica, where nobody is told.
        if gpus > 1 and not gpus.is_integer():
            raise ValueError("a part of one card, or a whole number of cards")
        return gpus


class Autoscaling(StrictModel):
    """How many replicas there are, by the load of the engines."""

    min_replicas: int = Field(default=1, ge=0, description="with 0 the model sleeps until a request comes")
    max_replicas: int = Field(gt=0)
    target_load: float | None = Field(
        default=None, gt=0, description="requests of one replica, running and waiting; default 0.8 of max_num_seqs"
    )
    upscale_delay_s: float = Field(default=10.0, ge=0, description="how long more load lasts before there are more")
    downscale_delay_s: float = Field(default=300.0, ge=0, description="how long less load lasts before there are fewer")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is larger than max_replicas")
        return self


class ModelSpec(StrictModel):
    """One model: what serves it, from which files, how large, on what. It is one Serve application of the same name."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the public model name")
    served_as: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="the public name, where several entries serve one model: on GPUs and on CPUs, say; default `name`",
    )
    engine: str
    source: str = Field(min_length=1, description="a path, or `package:name/path` for a file inside a Python package")
    task: Task = Task.CHAT
    max_model_len: int = Field(gt=0, description="tokens of one sequence, prompt and answer together")
    max_num_seqs: int = Field(default=4, gt=0, description="sequences that are worked on at the same time")
    num_replicas: int = Field(default=1, gt=0)
    autoscaling: Autoscaling | None = Field(default=None, description="in place of num_replicas")
    nodes: int = Field(default=1, gt=0, description="machines that one replica spans; `resources` are of each")
    resources: Resources = Resources()
    weight: float = Field(
        default=1.0, gt=0, allow_inf_nan=False, description="a replica's share of the requests, beside its equals"
    )
    priority: int = Field(default=0, ge=0, description="replicas of a higher one are asked when no lower one can be")
    options: dict[str, Any] = Field(default_factory=dict, description="of the engine")
    route_prefix: str = Field(default="", pattern=r"^(/[^/{}]+)*$", description="Serve's HTTP route; default `/<name>`")
    start_timeout_s: float = Field(default=120.0, gt=0, description="from the start of the engine to its first health")
    drain_timeout_s: float = Field(default=30.0, ge=0, description="what runs may take to end before a replica stops")
    max_surge_percent: int = Field(
        default=0, ge=0, le=100, description="replicas beyond num_replicas during an update; they need room"
    )

    @property
    def revision(self) -> str:
        """A short name of what decides the answers: the weights, and how they are run."""
        asked = self.model_dump_json(include={"engine", "source", "task", "max_model_len", "options"})
        return hashlib.sha256(asked.encode()).hexdigest()[:12]

    @property
    def most_replicas(self) -> int:
        return self.autoscaling.max_replicas if self.autoscaling else self.num_replicas

    @property
    def target_load(self) -> float:
        """Requests that one replica is to have, running and waiting."""
        return (self.autoscaling and self.autoscaling.target_load) or 0.8 * self.max_num_seqs

    @field_validator("engine")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in engines():
            raise ValueError(f"unknown engine {name!r}, known: {', '.join(sorted(engines()))}")
        return name

    @model_validator(mode="before")
    @classmethod
    def _default_route(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("route_prefix"):
            return data | {"route_prefix": f"/{data.get('name', '')}"}
        return data

    @model_validator(mode="after")
    def _supported(self) -> Self:
        engine = engines()[self.engine]
        supported = engine.tasks
        if self.task not in supported:
            raise ValueError(
                f"engine {self.engine!r} does not do {self.task.value!r}, only {', '.join(sorted(supported))}"
            )
        if self.autoscaling and "num_replicas" in self.model_fields_set:
            raise ValueError("num_replicas and autoscaling exclude each other: take one of them")
        if self.nodes > 1 and not engine.spans_nodes:
            raise ValueError(f"engine {self.engine!r} runs on one node, and nodes is {self.nodes}")
        try:
            engine.options.model_validate(self.options)
        except ValidationError as error:
            raise ValueError(f"options.{_one_line(error)}") from error
        engine.check(self)
        return self


class RayOptions(StrictModel):
    """The local Ray of `python -m backend`; a cluster that exists already is configured where it was started."""

    http_port: int = Field(
        default=0, ge=0, le=65535, description="Serve's own HTTP port on loopback; 0 takes a free one"
    )


class ClusterSpec(StrictModel):
    ray: RayOptions = RayOptions()
    models: Annotated[tuple[ModelSpec, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for field, values in {
            "name": [name for model in self.models for name in engines()[model.engine].names(model)],
            "route_prefix": [model.route_prefix for model in self.models],
        }.items():
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"two models have the same {field}: {', '.join(twice)}")
        return self

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Reads a cluster file; without one, the packaged default.

        Raises:
            SpecError: the file cannot be read, is no YAML, or a field is wrong.
        """
        source = path or files("backend").joinpath("default.yaml")
        try:
            data = strict_yaml.load(source.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: a date or number that is none
            raise SpecError(f"{source}: {' '.join(str(error).split())}") from error
        if not isinstance(data, dict):
            raise SpecError(f"{source}: a mapping with `models` is expected")
        try:
            return cls.model_validate({key: value for key, value in data.items() if key != "gateway"})
        except ValidationError as error:
            raise SpecError(f"{source}: {_one_line(error)}") from error


class ClusterFile:
    """A cluster file that may be edited while its cluster runs."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._read: tuple[int, int] | None = None

    def load(self) -> ClusterSpec:
        """Reads it, see ClusterSpec.load."""
        self._read = self._stamp()
        return ClusterSpec.load(self._path)

    @property
    def edited(self) -> bool:
        """Whether it was written since it was read. One that is gone was not: an editor may be about to rename."""
        stamp = self._stamp()
        return stamp is not None and stamp != self._read

    def _stamp(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat() if self._path else None
        except OSError:
            return None
        return status and (status.st_mtime_ns, status.st_ino)


def _one_line(error: ValidationError) -> str:
    first, *others = error.errors()
    field = ".".join(str(part) for part in first["loc"]) or "file"
    return f"{field}: {first['msg']}" + (f" (and {len(others)} more)" if others else "")
