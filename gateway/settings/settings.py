"""All that can be set."""

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from gateway import redis_address
from gateway.settings.cluster_file import ClusterFile, ConfigError
from gateway.settings.key import Key
from gateway.settings.upstream import Upstream

Timeout = Literal["connect", "first_byte", "first_token", "idle", "total"]


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_redis_url(url: SecretStr) -> SecretStr:
    redis_address.parse(url.get_secret_value())
    return url


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
    idle_timeout_s: float = Field(default=60.0, gt=0, description="Seconds between two events of a stream.")
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
