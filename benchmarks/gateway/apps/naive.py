"""A gateway as one writes it in an afternoon: FastAPI in front, HTTPX behind."""

import os

import httpx
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

app = FastAPI()
# Without these limits it would open 100 connections at most and give up a stream after 5 s.
client = httpx.AsyncClient(
    base_url=os.environ["MOCK_URL"],
    timeout=None,
    limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    outgoing = client.build_request(
        "POST", "/v1/chat/completions", content=await request.body(), headers={"content-type": "application/json"}
    )
    answer = await client.send(outgoing, stream=True)
    media_type = answer.headers["content-type"]
    if media_type.startswith("text/event-stream"):
        return StreamingResponse(
            answer.aiter_raw(), answer.status_code, media_type=media_type, background=BackgroundTask(answer.aclose)
        )
    return Response(await answer.aread(), answer.status_code, media_type=media_type)
