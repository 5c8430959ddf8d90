"""The gateway's settings, and the only reader of the environment and of the YAML.

Precedence: arguments, then `LLMGW_*` in the environment, then the `gateway:` section of the cluster file, then the
defaults below. The cluster file's `models:` belong to the backend; the gateway takes their names, to know what it is
expected to serve.
"""

import ipaddress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from gateway import redis_address
from gateway.context import CachePolicy, Priority, Quota, RoutingPolicy
from gateway.origin import Origin


class ConfigError(Exception):
    """The configuration cannot be used; the message names the place and the remedy."""


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Timeout = Literal["connect", "first_byte", "first_token", "idle", "total"]


class Key(BaseModel):
    """An API key, known by its hash only.

    Attributes:
        name: how logs and metrics call it.
        tenant: whose requests it makes.
        hash: `sha256:` and the hex digest of the key, as `llmgw keys create` prints it. Keys carry 256 random bits,
            so a plain digest can't be searched.
        models: the models it may call; all when absent.
        requests_per_minute: completions it may ask for: as many at once, and as many per minute from then on, over all
            workers; unlimited when absent.
        chains, skills: the chains, and the skills' plugins, it may call; all when absent.
        expires_at: when it ends, in seconds since the epoch; never when absent.
        tokens_per_minute, tokens_per_day, tokens_per_month: prompt and completion together, likewise over all workers;
            days and months are UTC's.
        concurrency: answers at the same time.
        admin: whether it may see what all have used.
        cache: which of its answers come out of the cache: those that come out the same again, always, or never.
        policies: the routing policies that its requests may name.
        priority: the highest that its requests get; they may ask for less.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    tenant: str = Field(min_length=1)
    hash: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    models: frozenset[str] | None = None
    chains: frozenset[str] | None = None
    skills: frozenset[str] | None = None
    expires_at: int | None = Field(default=None, ge=0)
    requests_per_minute: int | None = Field(default=None, gt=0)
    tokens_per_minute: int | None = Field(default=None, gt=0)
    concurrency: int | None = Field(default=None, gt=0)
    tokens_per_day: int | None = Field(default=None, gt=0)
    tokens_per_month: int | None = Field(default=None, gt=0)
    admin: bool = False
    cache: CachePolicy = "reproducible"
    policies: frozenset[RoutingPolicy] = frozenset()
    priority: Priority = "interactive"

    @cached_property
    def quota(self) -> Quota | None:
        limits = (self.tokens_per_minute, self.concurrency, self.tokens_per_day, self.tokens_per_month)
        return Quota(*(limit or 0 for limit in limits)) if any(limits) else None


def _check_url(url: str) -> str:
    Origin.parse(url)
    return url.rstrip("/")


def _check_redis_url(url: SecretStr) -> SecretStr:
    redis_address.parse(url.get_secret_value())
    return url


class Upstream(BaseModel):
    """A static replica: any OpenAI-compatible server.

    Attributes:
        model: the name clients use.
        url: the server's base, without `/v1`.
        key: sent as its bearer token.
        served_name: the server's own name of the model, when it differs.
        tasks: which endpoints it serves.
        max_model_len: its context in tokens, when known.
        max_concurrency: how many requests it works on at once; the gateway lets the others wait. No bound when absent.
        continues: it goes on with a last message of the assistant's, as vLLM and llama.cpp do.
        tells_usage: it knows `stream_options.include_usage`; of other streams the gateway counts the events.
        weight: its share of the requests beside its equals.
        priority: replicas of a higher one are asked when no lower one can be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: str = Field(min_length=1)
    url: Annotated[str, AfterValidator(_check_url)]
    key: SecretStr | None = None
    served_name: str | None = None
    tasks: frozenset[Literal["chat", "completions", "embeddings", "score"]] = frozenset({"chat", "completions"})
    max_model_len: int | None = Field(default=None, gt=0)
    max_concurrency: int | None = Field(default=None, gt=0)
    tells_usage: bool = False
    weight: float = Field(default=1.0, gt=0)
    priority: int = Field(default=0, ge=0)
    continues: bool = False


class ClusterFile(InitSettingsSource):
    """The cluster file as a settings source."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path | None) -> None:
        super().__init__(settings_cls, init_kwargs=self._read(path) if path else {})

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
        document = {} if document is None else document
        section, models = (
            (document.get("gateway") or {}, document.get("models") or [])
            if isinstance(document, dict)
            else (None, None)
        )
        if not isinstance(section, dict) or not isinstance(models, list):
            raise ConfigError(f"{path}: a mapping with `gateway:` (a mapping) and `models:` (a list) is expected")
        # Several entries may serve one model.
        names = [model.get("served_as") or model.get("name") for model in models if isinstance(model, dict)]
        return {"models": [name for place, name in enumerate(names) if name not in names[:place]], **section}


class Settings(BaseSettings):
    """Everything that can be set on a gateway. A field `x` is `LLMGW_X` in the environment."""

    model_config = SettingsConfigDict(env_prefix="LLMGW_", extra="forbid", frozen=True, protected_namespaces=())

    config: Path | None = Field(default=None, description="The cluster file (YAML).")
    home: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        default=Path(".llmgw"), validate_default=True, description="Where `llmgw up` keeps data and logs."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(default=2, ge=1, le=256, description="Worker processes.")
    insecure: bool = Field(default=False, description="Serve another address than loopback without any key.")
    redis_url: Annotated[SecretStr, AfterValidator(_check_redis_url)] | None = Field(
        default=None,
        description="Where Redis is (`redis_address.py` has the forms). Without it only `upstreams` are served.",
    )
    engine_key: SecretStr | None = Field(
        default=None, description="The cluster's engine key: the bearer token of every engine in the directory."
    )
    keys: tuple[Key, ...] = Field(default=(), description="The API keys that are accepted.")
    key_secret: SecretStr | None = Field(
        default=None, min_length=32, description="The secret of the API keys in Redis; the same for every gateway."
    )
    upstreams: tuple[Upstream, ...] = Field(default=(), description="Static replicas beside the directory's.")
    models: tuple[str, ...] = Field(
        default=(), description="Models that must have a replica for the gateway to be ready."
    )
    access_log: bool = Field(default=True, description="Write a line for every request.")
    max_body_bytes: int = Field(default=8 * 1024 * 1024, gt=0, description="Largest request body accepted, in bytes.")
    body_timeout_s: float = Field(default=30.0, gt=0, description="Seconds a client may take to send its body.")
    http_client: Literal["native", "aiohttp"] = Field(
        default="native", description="What speaks HTTP to the engines; `native` is the faster one."
    )
    cache_ttl_s: int = Field(default=3600, ge=0, description="Seconds an answer stays in the cache; 0 turns it off.")
    cache_max_answer_bytes: int = Field(
        default=1024 * 1024, gt=0, description="Longest answer that is cached, in bytes."
    )
    cache_replay: Literal["at_once", "paced"] = Field(
        default="at_once", description="How a cached stream comes: at once, or at the pace it was written."
    )
    session_ttl_s: int = Field(default=86_400, gt=0, description="Seconds a session is kept after its last turn.")
    session_max_messages: int = Field(default=100, ge=2, description="Messages of one session; the oldest ones go.")
    cache_embeddings_model: str | None = Field(
        default=None, description="The model that the semantic cache has its questions' embeddings from."
    )
    cache_thresholds: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default={}, description="Of each chat model with a semantic cache, how near (cosine) two questions must be."
    )
    replica_wait_s: float = Field(
        default=300.0, ge=0, description="Seconds a request waits for a model that sleeps or starts."
    )
    queue_max_requests: int = Field(
        default=1000, ge=0, description="Requests of a model that may wait in a worker for a place at its engines."
    )
    queue_wait_s: float = Field(default=60.0, gt=0, description="Seconds a request may wait for a place at an engine.")
    routing_policy: str = Field(default="affinity", description="How a request's replica is chosen.")
    routing: dict[str, str] = Field(default_factory=dict, description="The same by model, where it is another.")
    connect_timeout_s: float = Field(default=2.0, gt=0, description="Seconds to reach an engine.")
    first_byte_timeout_s: float = Field(default=300.0, gt=0, description="Seconds until an engine's first byte.")
    first_token_timeout_s: float = Field(default=300.0, gt=0, description="Seconds until an engine's first event.")
    idle_timeout_s: float = Field(default=60.0, gt=0, description="Seconds between two reads from an engine.")
    total_timeout_s: float = Field(default=3600.0, gt=0, description="Seconds a request may take, with all attempts.")
    timeouts: dict[str, dict[Timeout, Annotated[float, Field(gt=0)]]] = Field(
        default={}, description="Of single models, by name, what differs from the five above."
    )
    fallbacks: dict[str, tuple[str, ...]] = Field(
        default={}, description="Models that stand in for a model that fails, or is too small for a prompt, in order."
    )
    drain_notice_s: float = Field(
        default=1.0, ge=0, description="Seconds a stopping worker says so, and serves on, before it listens no more."
    )
    drain_timeout_s: float = Field(default=30.0, ge=0, description="Seconds a stopping worker waits for open requests.")

    @classmethod
    def load(cls, **arguments: Any) -> "Settings":
        """Settings from all sources; arguments that are None are left to the next source.

        Raises:
            ConfigError: with one line per wrong field.
        """
        try:
            return cls(**{name: value for name, value in arguments.items() if value is not None})
        except SettingsError as error:  # a list in the environment that is not JSON
            raise ConfigError(f"invalid configuration: {error}") from error
        except ValidationError as error:
            lines = (f"{'.'.join(map(str, e['loc'])) or 'gateway'}: {e['msg']}" for e in error.errors())
            raise ConfigError("invalid configuration: " + "; ".join(lines)) from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = init_settings().get("config") or env_settings().get("config")
        return init_settings, env_settings, ClusterFile(settings_cls, Path(path) if path else None)

    @model_validator(mode="after")
    def _loopback_without_keys(self) -> "Settings":
        if not self.keys and not self.keys_in_redis and not self.insecure and not self.loopback:
            raise ValueError(
                f"no key is defined, so the gateway serves loopback only, not {self.host}: "
                "define keys (`llmgw keys create`) or pass --insecure"
            )
        return self

    @model_validator(mode="after")
    def _thresholds_of_embeddings(self) -> "Settings":
        if self.cache_thresholds and not self.cache_embeddings_model:
            raise ValueError("cache_thresholds want cache_embeddings_model, the model that makes the embeddings")
        return self

    @property
    def keys_in_redis(self) -> bool:
        return self.redis_url is not None and self.key_secret is not None

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)
