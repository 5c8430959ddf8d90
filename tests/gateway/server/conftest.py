import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a client does is no news: a test that expects a line in the log looks at it and clears it."""
    caplog.set_level(logging.WARNING)
    yield
    lines = [record.getMessage() for record in caplog.get_records("call")]
    assert [line for line in lines if "timeout graceful shutdown exceeded" not in line] == []
