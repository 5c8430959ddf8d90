"""Requests whose client leaves before they are there, at every door."""

import asyncio

import httpx

from tests.gateway.raw_server import raw_server, sized
from tests.gateway.test_openai_door import ANSWER, CHAT, gateway
from tests.polling import eventually


async def test_a_client_that_leaves_during_its_upload_starts_nothing(caplog):
    async with raw_server(sized(ANSWER)) as server, gateway(server.url) as base:
        for path in (CHAT, "/chains/chat/invoke", "/skills/time/now"):
            host, port = base.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            writer.write(head.encode() + b"content-length: 999\r\n\r\n" + b'{"model": "m"')
            await writer.drain()
            writer.close()

        async def all_gone() -> bool:
            async with httpx.AsyncClient(base_url=base) as client:
                return "llmgw_client_disconnects_total 3.0" in (await client.get("/metrics")).text

        await eventually(all_gone)
    assert server.requests == []
    assert [record for record in caplog.records if record.levelname not in {"DEBUG", "INFO"}] == []
