import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import openai
import pytest

from tests.cluster.lan import Lan, unavailable
from tests.cluster.machines import Cluster


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short, because Ray's unix sockets under it have paths of 107 bytes at most."""
    path = Path(tempfile.mkdtemp(prefix="c-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
async def cluster(folder: Path) -> AsyncIterator[Cluster]:
    """The cluster of docs/cluster.md, with all its replicas ready."""
    if reason := unavailable():
        pytest.skip(reason)
    with Lan() as lan:
        cluster = Cluster(lan, folder)
        try:
            await cluster.start()
        except Exception as error:
            error.add_note(cluster.logs())
            raise
        yield cluster


@pytest.fixture
async def sdk(cluster: Cluster) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{cluster.url}/v1", api_key=cluster.key, max_retries=0, timeout=120
    ) as client:
        yield client
