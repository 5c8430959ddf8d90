"""The health of a llama.cpp engine server whose model is scripted: one that makes no more steps."""

import threading

import pytest
from aiohttp.test_utils import TestClient, TestServer

from backend.engines._llamacpp_http import application
from backend.engines._llamacpp_slots import Slots
from tests.polling import eventually


class Stalling:
    """llama.cpp's loop: while `steps` is not set, whoever asks waits."""

    def __init__(self) -> None:
        self.steps = threading.Event()
        self.steps.set()

    def handle_metrics(self) -> str:
        assert self.steps.wait(30)
        return ""


async def test_an_engine_that_stands_still_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.engines._llamacpp_slots.STALL_S", 0.2)
    llama = Stalling()
    app = application("m", 64, "key", Slots(llama, 1), embeddings=False)  # type: ignore[arg-type]
    async with TestClient(TestServer(app)) as client:

        async def health() -> int:
            async with client.get("/health") as response:
                return response.status

        async def is_well() -> bool:
            return await health() == 200

        async def is_not() -> bool:
            return await health() == 503

        assert await is_well()
        llama.steps.clear()
        await eventually(is_not)
        assert await is_not()
        llama.steps.set()
        await eventually(is_well)
