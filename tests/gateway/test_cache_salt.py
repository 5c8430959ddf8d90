"""What engines that salt their prefix cache are sent: a salt for each tenant, which no client can choose."""

import hashlib
import json
from dataclasses import replace

import httpx
import pytest

from gateway.app import create_app
from gateway.completion.cache_salt import CAPABILITY, cache_salt
from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call
from gateway.context import RequestContext
from gateway.origin import Origin
from gateway.routing.replica import Replica
from gateway.settings import Settings
from tests.gateway.doors import served
from tests.gateway.raw_server import DONE, END, STREAM_HEAD, chunk, raw_server, sized, token
from tests.gateway.records import join
from tests.polling import eventually

# No test of this module looks at another door.
pytestmark = pytest.mark.usefixtures("no_chains_and_skills")

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
WHOLE = sized(b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}')
STREAM = STREAM_HEAD + chunk(token("a", "stop") + DONE) + END
CALL, SALT = Call.of(Endpoint.CHAT, BODY), frozenset({CAPABILITY})
TENANTS = {"ann": "a", "alex": "a", "bob": "b"}


class Salted:
    """A gateway in front of one engine whose record promises `capabilities`."""

    def __init__(self, client: httpx.AsyncClient, engine) -> None:
        self.client = client
        self.engine = engine

    async def ask(self, who: str = "ann", path: str = "/v1/chat/completions", content: bytes = b"", **fields) -> bytes:
        """The body that the engine gets."""
        content = content or json.dumps(BODY | fields).encode()
        headers = {"x-api-key": who, "content-type": "application/json"}
        answer = await self.client.post(path, content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        return self.engine.requests[-1].partition(b"\r\n\r\n")[2]

    async def salt(self, who: str = "ann", **fields) -> str | None:
        return json.loads(await self.ask(who, **fields)).get("cache_salt")


@pytest.fixture
async def salted(redis_server, redis, request):
    record = {"capabilities": ["continue", "cache_salt"], "engine": "vllm"} | getattr(request, "param", {})
    keys = [
        {"name": name, "tenant": tenant, "hash": f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"}
        for name, tenant in TENANTS.items()
    ]

    async def script(_reader, writer) -> None:
        body = json.loads(engine.requests[-1].partition(b"\r\n\r\n")[2])
        writer.write(STREAM if body.get("stream") else WHOLE)
        await writer.drain()

    settings = Settings.load(redis_url=redis_server.url, keys=keys, engine_key="of the cluster")
    async with (
        raw_server(script) as engine,
        served(create_app(settings), lifespan="on") as base,
        httpx.AsyncClient(base_url=base, timeout=30) as client,
    ):
        await join(redis, "m-1", url=engine.url, **record)

        async def there() -> bool:
            return bool((await client.get("/v1/models", headers={"x-api-key": "ann"})).json()["data"])

        await eventually(there)
        yield Salted(client, engine)


async def test_each_tenant_has_a_salt_of_its_own_on_every_request(salted):
    ann = await salted.salt("ann")
    assert await salted.salt("ann", messages=[{"role": "user", "content": "else"}]) == ann
    assert await salted.salt("ann", stream=True) == ann
    assert await salted.salt("ann", path="/v1/completions", prompt="hi") == ann
    assert await salted.salt("alex") == ann
    assert await salted.salt("bob") not in (ann, None)


async def test_it_is_what_vllm_takes_and_tells_nothing(salted):
    salt = await salted.salt("ann")
    assert len(salt) == 64
    assert set(salt) <= set("0123456789abcdef")
    assert salt not in {hashlib.sha256(name.encode()).hexdigest() for name in (*TENANTS, *TENANTS.values())}


async def test_a_salt_of_the_client_s_divides_its_tenant_s_and_leads_to_no_other(salted):
    ann, bob = await salted.salt("ann"), await salted.salt("bob")
    own = await salted.salt("ann", cache_salt="mine")
    assert await salted.salt("alex", cache_salt="mine") == own
    others = [await salted.salt("bob", cache_salt=given) for given in ("mine", ann, own)]
    assert len({ann, bob, own, *others}) == 6
    assert await salted.salt("ann", cache_salt=None) == ann


@pytest.mark.parametrize("wrong", [5, ["x"], {"a": 1}, True])
async def test_a_salt_that_is_no_text_is_refused(salted, wrong):
    answer = await salted.client.post(
        "/v1/chat/completions", json=BODY | {"cache_salt": wrong}, headers={"x-api-key": "ann"}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cache_salt")


async def test_everything_else_goes_on_as_it_came(salted):
    odd = b'{ "model" : "m", "messages":[{"role":"user","content":"\\u00e9"}], "x": 1.0, "y": {"z": []} }  '
    sent = await salted.ask(content=odd)
    assert sent.startswith(odd.rstrip()[:-1])
    assert json.loads(sent).items() >= json.loads(odd).items()
    streamed = json.loads(await salted.ask(stream=True))
    assert streamed["stream_options"] == {"include_usage": True}
    assert streamed["cache_salt"]


@pytest.mark.parametrize("salted", [{"served_name": "inner"}], indirect=True)
async def test_a_model_of_another_name_is_salted_too(salted):
    sent = json.loads(await salted.ask(stream=True))
    assert (sent["model"], sent["stream_options"], len(sent["cache_salt"])) == ("inner", {"include_usage": True}, 64)


@pytest.mark.parametrize("salted", [{"capabilities": ["continue"], "engine": "llamacpp"}], indirect=True)
async def test_an_engine_that_does_not_know_of_it_is_sent_none(salted):
    assert await salted.salt("ann") is None


async def test_the_cluster_s_secret_goes_into_it(salted):
    engine = Origin.parse(salted.engine.url)
    fields = {"id": "m-2", "model": "m", "origin": engine, "base_path": "", "served_name": "m", "revision": ""}
    ours = Replica(
        **fields,
        key="of the cluster",
        tasks=frozenset(),
        max_model_len=1,
        tells_usage=True,
        capabilities=SALT,
        max_concurrency=None,
    )
    salts = [
        cache_salt(replace(ours, key=key), RequestContext("r", "a"), CALL) for key in ("of the cluster", "another")
    ]
    assert salts[0] == await salted.salt("ann")
    assert salts[1] != salts[0]
