"""The heartbeat of a replica: it goes on as long as the replica does."""

from collections.abc import Sequence

import pytest

from backend.directory import NullDirectory, Record, State
from backend.engines.base import Load
from backend.presence import Presence
from tests.backend.test_directory import RECORD
from tests.polling import eventually


class Unsteady(NullDirectory):
    """A directory whose first renewal fails as nobody expects."""

    def __init__(self) -> None:
        self.published: list[Record] = []

    async def publish(self, records: Sequence[Record]) -> None:
        self.published += records
        if len(self.published) == 3:
            raise KeyError("state")


async def test_what_goes_wrong_in_a_heartbeat_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.presence.HEARTBEAT_S", 0.01)

    async def unreadable() -> Load:
        raise ValueError("could not convert string to float: 'many'")

    directory = Unsteady()
    presence = await Presence.announce(directory, [RECORD])
    await presence.ready(unreadable)
    await eventually(lambda: len(directory.published) > 5)
    await presence.leave()
    assert {record.state for record in directory.published[1:]} == {State.READY}
