"""A stream that its own request makes, while others may follow it."""

from collections.abc import AsyncGenerator, Callable

from gateway.completion.answer import Answer
from gateway.completion.caching import MISS
from gateway.completion.flight import Flight, FlightLost
from gateway.completion.frames import led
from gateway.errors import GatewayError
from gateway.upstream.relay import Client


class LedAnswer(Answer):
    """
    Args:
        answer: the engine's.
        complete: called when all of it is in the flight.
        failed: called with what is in the way of that, unless the flight has ended.
    """

    def __init__(
        self, answer: Answer, flight: Flight, complete: Callable[[], None], failed: Callable[[BaseException], None]
    ) -> None:
        super().__init__(stream=True, headers=(*answer.headers, MISS), waited_s=answer.waited_s)
        self._answer = answer
        self._flight = flight
        self._complete = complete
        self._fail = failed

    async def body(self) -> bytes:
        return await self._answer.body()

    def frames(self) -> AsyncGenerator[bytes]:
        return led(self._answer.frames(), self._flight.write, self._complete, self._fail)

    async def make(self) -> None:
        """All of it, into the flight; raises if the stream fails."""
        try:
            await self._answer.relay(self._flight)
        except GatewayError as error:
            self._fail(error)
            raise
        self._complete()

    async def relay(self, client: Client) -> None:
        flight, failure = self._flight, None
        flight.lead(client)
        try:
            await self.make()
        except GatewayError as error:
            failure = error
        if flight.apart is not None:  # it is behind, and comes to the same end
            await self._answer.aclose()
            await flight.apart
        elif failure is not None:
            raise failure

    async def aclose(self) -> None:
        if not self._flight.ended:
            self._fail(FlightLost())
        apart = self._flight.apart
        if apart is not None and not apart.cancel() and not apart.cancelled():
            apart.exception()  # fetched, or asyncio would log it
        await self._answer.aclose()
