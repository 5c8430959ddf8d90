"""What LangServe's protocol needs to know about one chain: its models, its schemas and its config."""

import uuid
from types import ModuleType
from typing import Any

from langchain_core.load.serializable import Serializable
from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig
from langserve import APIHandler
from pydantic import BaseModel, RootModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

import chains
from gateway import context
from gateway.bridge.config_hash import decode
from gateway.bridge.discovery import discover
from gateway.bridge.langchain import GatewayChatModel
from gateway.bridge.memory import Remembering
from gateway.bridge.places import at_once
from gateway.completion.call import CompletionPath
from gateway.errors import NotFound, UnprocessableInput
from gateway.sessions.store import Sessions

PREFIX = "/chains"


class ServedChain:
    """A chain with its wire models.

    Args:
        name: its name in the URL, an identifier.
        description: one line for the index.
        chain: the runnable; `configurable` is the only part of a client's config that it is given.
    """

    def __init__(self, name: str, description: str, chain: Runnable[Any, Any]) -> None:
        self.name = name
        self.description = description
        self.chain = chain
        self.handler = APIHandler(chain, path=f"/{name}", prefix=PREFIX, config_keys=("configurable",))
        self._run_name = f"{PREFIX}/{name}"
        self._config_model: Any = self.handler.StreamRequest.model_fields["config"].annotation

    def config(self, sent: BaseModel | dict[str, Any], config_hash: str) -> RunnableConfig:
        """The config of one run: the path's, then the body's on top. Only known configurable fields pass.

        Raises:
            UnprocessableInput: the path's config does not fit the chain.
        """
        return {
            "configurable": {**_configurable(self._from_path(config_hash)), **_configurable(sent)},
            "run_id": uuid.uuid4(),
            "run_name": self._run_name,
        }

    def _from_path(self, config_hash: str) -> BaseModel | dict[str, Any]:
        if not config_hash:
            return {}
        try:
            config: BaseModel = self._config_model(**decode(config_hash))
        except ValidationError as error:
            raise UnprocessableInput("The config does not fit this chain.", param="config_hash") from error
        return config

    async def playground(self, file_path: str, request: Request, config_hash: str) -> Response:
        """A file of LangServe's playground page.

        Raises:
            NotFound: there is no such file.
        """
        try:
            response: Response = await self.handler.playground(file_path, request, config_hash=config_hash)
        except (OSError, ValueError) as error:  # a folder, or a name that no file can have
            raise NotFound("The playground has no such file.") from error
        if response.status_code == 404:
            raise NotFound("The playground has no such file.")
        return response


class _Services:
    """What the gateway tells a chain."""

    def __init__(self, path: CompletionPath, sessions: Sessions) -> None:
        self._catalog = path.catalog
        self._sessions = sessions

    def context_size(self, model: str) -> int | None:
        caller = context.current.get()
        pool = self._catalog.model(model, caller) if model else self._catalog.default("chat", caller)
        return pool.max_model_len

    def at_once(self, most: int) -> int:
        return at_once(most)

    def remembering(self, chain: chains.Chain, question: str, history: str) -> chains.Chain:
        return Remembering(chain, question, history, self._sessions, self.context_size)


def load(path: CompletionPath, sessions: Sessions, package: ModuleType = chains) -> list[ServedChain]:
    """Builds every chain of `package` on the completion path.

    Raises:
        LoadError: a module does not import, or its `build` fails.
    """
    model = GatewayChatModel(path=path).configurable_fields(
        model=ConfigurableField(id="model", name="Model", description="The model that answers; empty for the default.")
    )
    services = _Services(path, sessions)
    return [ServedChain(found.name, found.description, found.build(model, services)) for found in discover(package)]


def _configurable(config: BaseModel | dict[str, Any]) -> dict[str, Any]:
    fields = config.model_dump(exclude_unset=True) if isinstance(config, BaseModel) else config
    return fields.get("configurable") or {}


def unwrapped(value: Any) -> Any:
    """A validated input as the chain expects it: models made for the wire become dicts, messages stay messages."""
    if isinstance(value, RootModel):
        return unwrapped(value.root)
    if isinstance(value, BaseModel) and not isinstance(value, Serializable):
        return {name: unwrapped(getattr(value, name)) for name in type(value).model_fields}
    return value
