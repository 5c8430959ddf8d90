"""`python -m chatbot` as its parent process sees it: events on standard output, and how it ends."""

import json
import signal
import socket
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.chatbot.conftest import child
from tests.chatbot.upstream import Upstream
from tests.polling import eventually


async def test_it_stops_when_told_with_streams_open(upstream: Upstream) -> None:
    with child("chatbot", "--gateway", upstream.url, "--port", "0") as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        async with httpx2.AsyncClient() as http, http.stream("GET", f"{url}/gradio_api/heartbeat/me") as heartbeat:
            await anext(heartbeat.aiter_bytes())
            process.send_signal(signal.SIGTERM)
            await eventually(lambda: process.poll() is not None, within=5)
        assert process.stdout.read() == ""


def test_it_can_be_stopped_while_it_starts() -> None:
    with child("chatbot", "--port", "0") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize("gateway", ["127.0.0.1:8080", "ftp://host", "http://"])
def test_an_address_that_is_none(gateway: str) -> None:
    event = failed("--gateway", gateway, "--port", "0")
    assert event["event"] == "failed"
    assert "http://127.0.0.1:8080" in event["message"]


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        event = failed("--port", str(port))
    message = f"The chat page cannot listen on 127.0.0.1:{port}: Address already in use."
    assert event == {"event": "failed", "message": message}


def failed(*arguments: str) -> dict[str, str]:
    """The one event of a start that cannot succeed."""
    with child("chatbot", *arguments) as process:
        assert process.wait(20) == 1
        assert process.stdout is not None
        event: dict[str, str] = json.loads(process.stdout.read())
        return event


async def test_only_the_page_is_served(scripted_page: str) -> None:
    host = urlsplit(scripted_page).netloc
    join = "/gradio_api/queue/join"
    async with httpx2.AsyncClient(base_url=scripted_page, trust_env=False) as http:
        page = await http.get("/")
        assert page.status_code == 200
        assert "connect-src" not in page.headers["content-security-policy"]
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        for path in ("info", "openapi.json", "file=/etc/passwd", "proxy=http://127.0.0.1/", "runs", "call/ask/1"):
            assert (await http.get(f"/gradio_api/{path}")).status_code == 404, path
        for path in ("/docs", "/openapi.json", "/monitoring", "/monitoring/summary", "/gradio_api/deep_link"):
            assert (await http.get(path)).status_code == 404, path
        for path in ("upload", "run/ask", "api/ask", "call/ask", "component_server", "vibe-edit"):
            assert (await http.post(f"/gradio_api/{path}", json={})).status_code == 404, path
        assert (await http.post(join, content=b" " * ((1 << 20) + 1))).status_code == 413
        assert (await http.post(join, json={}, headers={"origin": "http://evil.example"})).status_code == 403
        assert (await http.post(join, json={}, headers={"origin": "http://["})).status_code == 403
        assert (await http.get("/", headers={"host": "evil.example"})).status_code == 421
        assert (await http.get("/", headers={"host": "["})).status_code == 421
        assert (await http.get("/", headers={"host": host.replace("127.0.0.1", "localhost")})).status_code == 200
