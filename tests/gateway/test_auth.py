"""Keys on every door, and what is open without them."""

import hashlib

import httpx
import pytest
from openapi_spec_validator import validate

from gateway.app import create_app
from gateway.middleware.auth import PUBLIC_PATHS
from gateway.settings import Settings
from tests.gateway.doors import served

ALICE, BOB = "sk-llmgw-alice", "sk-llmgw-bob"


def entry(name: str, key: str, **values) -> dict:
    return {
        "name": name,
        "tenant": f"team-{name}",
        "hash": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}",
    } | values


@pytest.fixture(scope="module")
async def app():
    upstreams = [{"model": model, "url": "http://127.0.0.1:9"} for model in ("open", "secret")]
    keys = [entry("alice", ALICE), entry("bob", BOB, models=["open"], chains=["chat"])]
    return create_app(Settings.load(keys=keys, upstreams=upstreams))


@pytest.fixture(scope="module")
async def client(app):
    async with served(app) as base, httpx.AsyncClient(base_url=base) as client:
        yield client


def operations(app) -> list[tuple[str, str]]:
    """Every method and path the document knows, with something in the place of parameters."""
    return [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]


async def test_every_route_wants_a_key_but_the_named_ones(app, client):
    known = [
        *operations(app),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("GET", "/chains/chat/playground/"),
    ]
    assert len(known) > 40
    for method, path in known:
        status = (await client.request(method, path)).status_code
        assert (status == 401) == (path not in PUBLIC_PATHS), (method, path, status)


@pytest.mark.parametrize(
    "path",
    ["//health/live", "/health/live/", "/health/live/../../v1/models", "/v1/models?/health/live", "/HEALTH/LIVE"],
)
async def test_a_path_that_resembles_a_public_one_is_not_public(client, path):
    assert (await client.get(path)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {ALICE}"},
        {"authorization": f"bearer {ALICE}"},
        {"x-api-key": ALICE},
        {"api-key": ALICE},
    ],
)
async def test_a_key_is_taken_from_each_of_its_headers(client, headers):
    assert (await client.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer"},
        {"authorization": ALICE},
        {"authorization": f"Basic {ALICE}"},
        {"authorization": f"Bearer {ALICE}", "x-api-key": BOB},
        {"authorization": f"Bearer {ALICE}", "api-key": "wrong"},
        {"x-api-key": "' OR 1=1 --"},
        {"x-api-key": ALICE[:-1]},
        {"x-api-key": f"{ALICE}\t{BOB}"},
    ],
)
async def test_other_credentials_are_refused(client, headers):
    answer = await client.get("/v1/models", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert ALICE not in answer.text


async def test_two_authorization_headers_are_both_checked(client):
    headers = [("authorization", f"Bearer {ALICE}"), ("authorization", "Bearer wrong")]
    assert (await client.get("/v1/models", headers=headers)).status_code == 401


async def test_a_key_sees_and_calls_only_its_models(client):
    bob = {"x-api-key": BOB}
    listed = (await client.get("/v1/models", headers=bob)).json()["data"]
    assert [model["id"] for model in listed] == ["open"]
    hidden = await client.get("/v1/models/secret", headers=bob)
    unknown = await client.get("/v1/models/nothing", headers=bob)
    assert hidden.status_code == unknown.status_code == 404
    assert hidden.text.replace("secret", "nothing") == unknown.text
    body = {"model": "secret", "messages": [{"role": "user", "content": "hi"}]}
    assert (await client.post("/v1/chat/completions", json=body, headers=bob)).status_code == 404
    chain = {"input": {"input": "hi"}, "config": {"configurable": {"model": "secret"}}}
    assert (await client.post("/chains/chat/invoke", json=chain, headers=bob)).status_code == 404


async def test_metrics_and_readiness_tell_a_restricted_key_of_nobody_else(client):
    assert (await client.get("/metrics", headers={"x-api-key": BOB})).status_code == 403
    assert 'tenant="team-alice"' in (await client.get("/metrics", headers={"x-api-key": ALICE})).text
    assert "secret" not in (await client.get("/health/ready")).text


async def test_no_key_appears_in_a_log(client, caplog):
    caplog.set_level("DEBUG")
    await client.get("/v1/models", headers={"x-api-key": ALICE})
    await client.get("/v1/models", headers={"x-api-key": "sk-llmgw-wrong"})
    assert "sk-llmgw" not in caplog.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8080"}, 200),
        ({"host": "[::1]:8080"}, 200),
        ({"host": "127.0.0.2"}, 200),
        ({"origin": "http://localhost:7860"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "evil.example@127.0.0.1.x"}, 403),
        ({"host": "["}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_without_keys_only_this_machine_is_served(headers, status):
    async with served(create_app(Settings.load())) as base, httpx.AsyncClient(base_url=base) as client:
        assert (await client.get("/v1/models", headers=headers)).status_code == status


async def test_insecure_serves_any_host():
    app = create_app(Settings.load(host="0.0.0.0", insecure=True))
    async with served(app) as base, httpx.AsyncClient(base_url=base) as client:
        assert (await client.get("/v1/models", headers={"host": "gateway.example"})).status_code == 200


async def test_the_document_tells_a_key_of_the_chains_that_it_may_call(client):
    async def document(key: str) -> dict:
        return (await client.get("/openapi.json", headers={"x-api-key": key})).json()

    every, own = await document(ALICE), await document(BOB)
    assert "SummarizeInput" in str(every)
    assert "summarize" not in str(own).lower()
    assert set(every["paths"]) - set(own["paths"]) == {path for path in every["paths"] if "/summarize/" in path}
    validate(own)
