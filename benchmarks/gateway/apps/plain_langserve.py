"""LangServe as its README has it: one chat model on one path."""

import os

import httpx
from fastapi import FastAPI
from langchain_openai import ChatOpenAI
from langserve import add_routes

app = FastAPI()
model = ChatOpenAI(
    model="m",
    base_url=f"{os.environ['MOCK_URL']}/v1",
    api_key="none",
    max_tokens=64,
    max_retries=0,
    timeout=3600,
    # The client's own limit is 1,000 connections.
    http_async_client=httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None)),
)
add_routes(app, model, path="/chat")


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}
