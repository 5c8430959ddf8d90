"""The chains, on LangServe's wire protocol at `/chains/{name}/`, for `RemoteRunnable` and the playground.

POST `invoke`, `batch`, `stream`, `stream_log`, `stream_events`; GET `input_schema`, `output_schema`, `config_schema`,
`playground/`; all again under `c/{config_hash}/`. Of a client's config only `configurable` is used, with the fields
that `config_schema` names; other fields are ignored, as LangServe does.

Errors before the first event have their own status and the gateway's error body: 422 for input that does not fit, the
model's own otherwise (404, 400 for a prompt too long, 503). Later ones are an `error` event.

Of a batch as many inputs run at once as the key may have answers open.

Limits: 256 inputs in a batch, 64 levels of JSON, 10,000 items in all lists of a request together and members in one
object, a config hash of 2,048 characters and 16,384 inflated.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel

from gateway import context
from gateway.bridge import runs, untrusted
from gateway.bridge.event_stream import EventStreamResponse
from gateway.bridge.failures import published
from gateway.bridge.langserve import PREFIX, ServedChain, unwrapped
from gateway.errors import NotFound, UnprocessableInput

MAX_BATCH = 256

_FILTERS = tuple(f"{verb}_{what}" for verb in ("include", "exclude") for what in ("names", "types", "tags"))


class ChainEntry(BaseModel):
    name: str
    description: str


class ChainIndex(BaseModel):
    chains: list[ChainEntry]


class _Request(Request):
    """A request whose JSON is parsed with bounds, once."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            self._json = untrusted.loads(await self.body())
        return self._json


class _Route(APIRoute):
    """A route that refuses hostile JSON before FastAPI, LangServe or LangChain walk it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            request = _Request(request.scope, request.receive)
            if await request.body():
                await request.json()
            return await handle(request)

        return guarded


def router(chains: Sequence[ServedChain]) -> APIRouter:
    """The index, and the routes of every chain."""
    routes = APIRouter(prefix=PREFIX, route_class=_Route, tags=["chains"])
    entries = [ChainEntry(name=chain.name, description=chain.description) for chain in chains]

    @routes.get("", operation_id="chains_list")
    async def list_chains() -> ChainIndex:
        """The chains that this key may call."""
        caller = context.current.get()
        return ChainIndex(chains=[entry for entry in entries if caller.allows_chain(entry.name)])

    for chain in chains:
        _add_runs(_Paths(routes, chain.name), chain)
        _add_streams(_Paths(routes, chain.name), chain)
        _add_pages(_Paths(routes, chain.name), chain)
    return routes


def _config_hash(request: Request) -> str:
    return str(request.path_params.get("config_hash", ""))


# One endpoint serves both paths; on the plain one there is no such parameter, not even in the query.
ConfigHash = Annotated[str, Depends(_config_hash)]
_IN_PATH = {"name": "config_hash", "in": "path", "required": True, "schema": {"type": "string"}}


class _Paths:
    """Adds each endpoint of a chain twice: plain, and with a config in the path."""

    def __init__(self, routes: APIRouter, chain: str) -> None:
        self._routes = routes
        self._chain = chain

    def add(self, method: str, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        operation = f"chains_{self._chain}_{path.partition('/')[0]}"
        plain, configured = f"/{self._chain}/{path}", f"/{self._chain}/c/{{config_hash}}/{path}"
        options["dependencies"] = [Depends(self._allowed)]
        self._routes.add_api_route(plain, endpoint, methods=[method], operation_id=operation, **options)
        self._routes.add_api_route(
            configured,
            endpoint,
            methods=[method],
            operation_id=f"{operation}_with_config",
            openapi_extra={"parameters": [_IN_PATH]},
            **options,
        )

    async def _allowed(self) -> None:
        if not context.current.get().allows_chain(self._chain):
            raise NotFound(f"There is no chain '{self._chain}' for this key; GET /chains lists its own.")


def _add_runs(paths: _Paths, served: ServedChain) -> None:
    invoke_request: Any = served.handler.InvokeRequest
    batch_request: Any = served.handler.BatchRequest

    async def invoke(body: invoke_request, config_hash: ConfigHash) -> Response:
        config = served.config(body.config, config_hash)
        with published():
            output = await served.chain.ainvoke(unwrapped(body.input), config)
        return _json(output=output, metadata=_metadata(config))

    async def batch(body: batch_request, config_hash: ConfigHash) -> Response:
        inputs = [unwrapped(input_) for input_ in body.inputs]
        configs = [served.config(sent, config_hash) for sent in _per_input(body.config, len(inputs))]
        with published():
            outputs = await runs.batch(served.chain, inputs, configs)
        responses = [_metadata(config) for config in configs]
        return _json(
            output=outputs,
            metadata={"responses": responses, "run_ids": [response["run_id"] for response in responses]},
        )

    paths.add("POST", "invoke", invoke, response_model=served.handler.InvokeResponse)
    paths.add("POST", "batch", batch, response_model=served.handler.BatchResponse)


def _add_streams(paths: _Paths, served: ServedChain) -> None:
    stream_request: Any = served.handler.StreamRequest
    log_request: Any = served.handler.StreamLogRequest
    events_request: Any = served.handler.StreamEventsRequest

    async def stream(body: stream_request, config_hash: ConfigHash) -> Response:
        config = served.config(body.config, config_hash)
        return await EventStreamResponse.begin(runs.stream(served.chain, unwrapped(body.input), config))

    async def stream_log(body: log_request, config_hash: ConfigHash) -> Response:
        config = served.config(body.config, config_hash)
        return await EventStreamResponse.begin(
            runs.stream_log(served.chain, unwrapped(body.input), config, _filters(body))
        )

    async def stream_events(body: events_request, config_hash: ConfigHash) -> Response:
        config = served.config(body.config, config_hash)
        return await EventStreamResponse.begin(
            runs.stream_events(served.chain, unwrapped(body.input), config, _filters(body))
        )

    paths.add("POST", "stream", stream, response_class=EventStreamResponse, status_code=200)
    paths.add("POST", "stream_log", stream_log, response_class=EventStreamResponse, status_code=200)
    paths.add("POST", "stream_events", stream_events, response_class=EventStreamResponse, status_code=200)


def _add_pages(paths: _Paths, served: ServedChain) -> None:
    def schema(of: Callable[[RunnableConfig], Any]) -> Callable[..., Any]:
        async def endpoint(config_hash: ConfigHash) -> dict[str, Any]:
            described: dict[str, Any] = of(served.config({}, config_hash)).model_json_schema()
            return described

        return endpoint

    async def playground(file_path: str, request: Request, config_hash: ConfigHash) -> Response:
        served.config({}, config_hash)
        return await served.playground(file_path, request, config_hash)

    def of_config(config: RunnableConfig) -> Any:
        return served.chain.with_config(config).config_schema(include=("configurable",))

    paths.add("GET", "input_schema", schema(served.chain.get_input_schema))
    paths.add("GET", "output_schema", schema(served.chain.get_output_schema))
    paths.add("GET", "config_schema", schema(of_config))
    paths.add("GET", "playground/{file_path:path}", playground, include_in_schema=False)


def _per_input(config: Any, count: int) -> list[Any]:
    if count > MAX_BATCH:
        raise UnprocessableInput(f"A batch holds at most {MAX_BATCH} inputs, this one {count}.", param="inputs")
    configs = config if isinstance(config, list) else [config] * count
    if len(configs) != count:
        raise UnprocessableInput(f"There are {len(configs)} configs for {count} inputs.", param="config")
    return configs


def _filters(body: BaseModel) -> dict[str, Any]:
    return {name: getattr(body, name) for name in _FILTERS}


def _metadata(config: RunnableConfig) -> dict[str, Any]:
    return {"run_id": config["run_id"], "feedback_tokens": []}


def _json(**content: Any) -> Response:
    return Response(runs.serializer.dumps(content), media_type="application/json")
