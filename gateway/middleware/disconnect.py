"""Cancels a request's task when its client goes away, whatever the route: who runs below only has to let
CancelledError through, and the engine stops."""

import asyncio

from gateway.metrics import Metrics
from gateway.middleware.asgi import ASGIApp, Message, Receive, Scope, Send


class CancelOnDisconnect:
    """Watches the connection while the application works."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self._app(scope, receive, send)
            return
        watch = _Watch(receive, task)

        async def send_until_last(message: Message) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                watch.stop()  # the server reports the end of the response as a disconnect, too
            await send(message)

        try:
            await self._app(scope, watch.receive, send_until_last)
        except asyncio.CancelledError:
            if not watch.gone.is_set():
                raise
            task.uncancel()
            self._metrics.disconnects.inc()
        finally:
            watch.stop()


class _Watch:
    def __init__(self, receive: Receive, task: "asyncio.Task[None]") -> None:
        self.gone = asyncio.Event()
        self._receive = receive
        self._task = task
        self._watcher: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        if self._watcher is not None:
            await self.gone.wait()
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone.set()
            raise asyncio.CancelledError  # at once: half a body must not be taken for a whole one
        if not message.get("more_body", False):
            self._watcher = asyncio.create_task(self._wait())
        return message

    def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self.gone.set()
        self._task.cancel()
