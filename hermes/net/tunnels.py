"""A connection through an HTTP proxy's tunnel, which ends with the request that it could not be made for.

httpcore2 leaves such a connection as it is when TLS inside the tunnel fails or is cancelled: in use for ever, so that each
such failure takes a place of the pool, until nobody is served any more.
"""

from __future__ import annotations

import httpcore2
import trio


class Tunnelled(httpcore2.AsyncConnectionInterface):
    """One of httpcore2's connections, closed when a request of it fails or is cancelled.

    Args:
        connection: for an origin that is reached by TLS through an HTTP proxy.
    """

    def __init__(self, connection: httpcore2.AsyncConnectionInterface) -> None:
        self._connection = connection

    async def handle_async_request(self, request: httpcore2.Request) -> httpcore2.Response:
        """Make the tunnel if there is none yet, and send the request through it."""
        try:
            return await self._connection.handle_async_request(request)
        except httpcore2.ConnectionNotAvailable:
            raise  # another one's request is on its way
        except BaseException:
            with trio.CancelScope(shield=True):  # closing a socket takes no time
                await self._connection.aclose()
            raise

    async def aclose(self) -> None:
        await self._connection.aclose()

    def can_handle_request(self, origin: httpcore2.Origin) -> bool:
        return self._connection.can_handle_request(origin)

    def is_connected(self) -> bool:
        return self._connection.is_connected()

    def is_available(self) -> bool:
        return self._connection.is_available()

    def is_idle(self) -> bool:
        return self._connection.is_idle()

    def is_closed(self) -> bool:
        return self._connection.is_closed()

    def has_expired(self) -> bool:
        return self._connection.has_expired()

    def info(self) -> str:
        return self._connection.info()
