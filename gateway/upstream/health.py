"""Whether an engine server is there: asked of those that have failed, before a request is sent there again."""

import aiohttp

from gateway.origin import Origin

TIMEOUT_S = 1.0


class HealthCheck:
    """Asks `/health`, which every engine of ours has without a key. Opens nothing until it is used."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def alive(self, origin: Origin, base_path: str) -> bool:
        """Whether something answers, and not with an error of its own; a server without that route is there, too."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True), timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
            )
        url = f"{'https' if origin.tls else 'http'}://{origin.authority}{base_path}/health"
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                return response.status < 500
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
