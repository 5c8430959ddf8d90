"""What the caller's tenant has said in sessions: to look at, and to delete. Chains write them."""

from fastapi import APIRouter, Response
from pydantic import BaseModel

from gateway.context import current
from gateway.sessions.store import Sessions


class SessionInfo(BaseModel):
    """`expires_at` is when it ends unless something is said, in seconds since the epoch."""

    id: str
    expires_at: int


class SessionIndex(BaseModel):
    sessions: list[SessionInfo]


class SessionMessage(BaseModel):
    """As OpenAI's: `role` is `user` or `assistant`."""

    role: str
    content: str


class SessionContent(BaseModel):
    id: str
    messages: list[SessionMessage]


def router(store: Sessions) -> APIRouter:
    routes = APIRouter(prefix="/sessions", tags=["sessions"])

    @routes.get("", operation_id="sessions_list")
    async def list_sessions() -> SessionIndex:
        """The sessions of this key's tenant; those come first that end first."""
        found = await store.list(current.get().tenant)
        return SessionIndex(sessions=[SessionInfo(id=entry.id, expires_at=entry.expires_at) for entry in found])

    @routes.get("/{session_id}", operation_id="sessions_read")
    async def read(session_id: str) -> SessionContent:
        """What was said, the oldest message first."""
        turns = await store.read(current.get().tenant, session_id)
        said = [(role, text) for turn in turns for role, text in zip(("user", "assistant"), turn, strict=True)]
        return SessionContent(id=session_id, messages=[SessionMessage(role=role, content=text) for role, text in said])

    @routes.delete("/{session_id}", operation_id="sessions_delete", status_code=204, response_class=Response)
    async def delete(session_id: str) -> None:
        """Forgets it."""
        await store.delete(current.get().tenant, session_id)

    return routes
