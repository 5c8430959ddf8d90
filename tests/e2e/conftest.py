import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.chatbot.page import browser as browser  # a fixture
from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Short, because unix sockets under it have paths of 107 bytes at most."""
    path = Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def running(stack: Stack, start_s: float = 120) -> Iterator[None]:
    """Starts a stack and ends it. Its end is a test too: Ctrl-C leaves nothing behind, unless a test has killed it."""
    stack.start()
    try:
        stack.wait_for("Ctrl-C stops everything", start_s)
        yield
    finally:
        stack.signal(signal.SIGINT)
        status, left = stack.end(), stack.processes()
        for process in left:
            process.kill()
    assert (status, [process.name() for process in left]) == (stack.ends_with, [])


@pytest.fixture(scope="session")
def stack(folder: Path) -> Iterator[Stack]:
    """The whole thing, once."""
    stack = Stack(folder / "main")
    stack.folder.mkdir()
    with running(stack):
        yield stack


@pytest.fixture
async def client(stack: Stack):
    async with httpx.AsyncClient(base_url=stack.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def chat_url(stack: Stack) -> str:
    return stack.chat_url


@pytest.fixture(scope="session")
def slots_busy(stack: Stack) -> Callable[[], int]:
    return stack.busy
