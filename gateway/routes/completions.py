"""The completion endpoints of the OpenAI door: raw ASGI; bytes in, bytes out.

Source: https://platform.openai.com/docs/api-reference
"""

import asyncio
import time

from gateway.completion.answer import Answer
from gateway.completion.call import CompletionPath
from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call
from gateway.context import current
from gateway.errors import GatewayError, StreamInterrupted
from gateway.middleware.asgi import Receive, Scope, Send, exchange_of
from gateway.server.exchange import Exchange
from gateway.upstream.sse import DONE

_JSON = [(b"content-type", b"application/json")]
_EVENT_STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # asks a proxy in front not to collect tokens
]


class CompletionEndpoint:
    """One of the completion endpoints, as an ASGI application that speaks to the server's exchange itself."""

    def __init__(self, endpoint: Endpoint, path: CompletionPath) -> None:
        self._endpoint = endpoint
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        arrived = exchange.body.arrived()
        call = Call.parse(self._endpoint, arrived if arrived is not None else await exchange.body.whole())
        answer = await self._path.send(call, current.get(), exchange)
        failure: BaseException | None = None
        try:
            if answer.stream:
                await _stream(answer, exchange)
            else:
                body = await answer.body()
                await exchange.respond(200, (*_JSON, *answer.headers, _overhead(answer, exchange)), body)
        except BaseException as error:  # noqa: BLE001  # raised below: CONTRIBUTING.md says why not in a `finally`
            failure = error
        await answer.aclose()
        if failure is not None:
            raise failure


async def _stream(answer: Answer, exchange: Exchange) -> None:
    exchange.start(200, (*_EVENT_STREAM, *answer.headers, _overhead(answer, exchange)))
    try:
        await answer.relay(exchange)
        last = DONE
    except GatewayError as error:
        last = error.event()
    except asyncio.CancelledError:  # the client has left, and hears nothing; or this worker stops, and it does
        cut = StreamInterrupted("The gateway stopped before the answer was complete. Please try again.")
        exchange.write(cut.event(), more=False)
        raise
    exchange.write(last, more=False)


def _overhead(answer: Answer, exchange: Exchange) -> tuple[bytes, bytes]:
    """How long this gateway took for it, without the engines."""
    seconds = time.perf_counter() - exchange.began_at - answer.waited_s
    # Who joined another's answer has waited less for engines than that one did.
    return b"x-llmgw-overhead-ms", b"%.2f" % (max(seconds, 0.0) * 1000)
