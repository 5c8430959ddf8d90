"""A static replica as the operator declares it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from gateway.origin import Origin


def _check_url(url: str) -> str:
    Origin.parse(url)
    return url.rstrip("/")


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
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    priority: int = Field(default=0, ge=0)
    continues: bool = False
