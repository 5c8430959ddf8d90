from collections.abc import Iterator

import pytest

from gateway import context
from tests.gateway.scripted_path import ScriptedPath


@pytest.fixture
def caller() -> Iterator[None]:
    """Somebody asks: the request's context is set, as the middleware sets it."""
    token = context.current.set(context.RequestContext("r-1", tenant="team-a"))
    yield
    context.current.reset(token)


@pytest.fixture
def path() -> ScriptedPath:
    return ScriptedPath()
