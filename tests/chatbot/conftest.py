import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.chatbot.page import browser as browser  # a fixture
from tests.chatbot.upstream import Upstream, scripted_upstream


@contextmanager
def child(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that is ended here if it has not ended by itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


@contextmanager
def page_for(gateway: str, **environment: str) -> Iterator[str]:
    """The chat page in front of a gateway; gives the page's address."""
    with child("chatbot", "--gateway", gateway, "--port", "0", **environment) as process:
        assert process.stdout is not None
        event = json.loads(process.stdout.readline())
        assert event["event"] == "ready", event
        yield event["url"]


@pytest.fixture(scope="session")
def engine_url() -> Iterator[str]:
    with child("tests.chatbot.engine") as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


@pytest.fixture(scope="session")
def slots_busy(engine_url: str) -> Callable[[], int]:
    """How many generations the engine has under way."""

    def count() -> int:
        with urlopen(f"{engine_url}/slots", timeout=5) as response:
            return sum(slot["is_processing"] for slot in json.load(response))

    return count


@pytest.fixture(scope="session")
def chat_url(engine_url: str) -> Iterator[str]:
    with page_for(engine_url) as url:
        yield url


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with scripted_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
async def page_upstream() -> AsyncIterator[Upstream]:
    async with scripted_upstream() as upstream:
        yield upstream


@pytest.fixture(scope="session")
def scripted_page(page_upstream: Upstream) -> Iterator[str]:
    with page_for(page_upstream.url) as url:
        yield url


@pytest.fixture
def scripted(page_upstream: Upstream) -> Upstream:
    """The server behind `scripted_page`, as new."""
    page_upstream.reset()
    return page_upstream
