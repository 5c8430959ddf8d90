import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import Stack


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Short, because unix sockets under it have paths of 107 bytes at most."""
    path = Path(tempfile.mkdtemp(prefix="e2e-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def stack(folder: Path) -> Iterator[Stack]:
    """The whole thing, once. Its end is a test too: Ctrl-C leaves nothing behind."""
    stack = Stack(folder / "main")
    stack.folder.mkdir()
    stack.start()
    try:
        stack.wait_for("Ctrl-C stops everything")
        yield stack
    finally:
        stack.signal(signal.SIGINT)
        status, left = stack.end(), stack.processes()
        for process in left:
            process.kill()
    assert (status, [process.name() for process in left]) == (0, [])


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
