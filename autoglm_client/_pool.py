"""The connections of a client, made when its first call needs them.

httpx2 and asyncio are imported then, too: they would be most of the time that importing this package takes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from threading import Lock
from typing import TYPE_CHECKING, cast
from weakref import finalize

from .errors import ConfigurationError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    import httpx
    import httpx2

__all__ = ["AsyncPool", "Pool"]


class AsyncPool:
    """The connections of an async client: one httpx2 client for each event loop, as sockets belong to their loop."""

    def __init__(self, base_url: str, own: httpx2.AsyncClient | httpx.AsyncClient | None) -> None:
        if own is not None and not hasattr(own, "aclose"):
            raise ConfigurationError("AsyncAutoGLM takes an httpx2.AsyncClient (or httpx's) as http_client")
        self._base_url = base_url
        self._own = cast("httpx2.AsyncClient | None", own)  # the two have the same methods
        self._open: dict[AbstractEventLoop, AsyncGenerator[httpx2.AsyncClient, None]] = {}
        self._clients: dict[AbstractEventLoop, httpx2.AsyncClient] = {}

    async def client(self) -> httpx2.AsyncClient:
        """The user's own client, or the one of the running loop."""
        if self._own is not None:
            return self._own
        loop = _running_loop()
        if loop not in self._clients:
            self._open[loop] = self._client_of(loop)
            await anext(self._open[loop])
        return self._clients[loop]

    async def close(self) -> None:
        """Close the connections of this loop; a client that the user brought stays open."""
        if opened := self._open.pop(_running_loop(), None):
            await opened.aclose()

    async def _client_of(self, loop: AbstractEventLoop) -> AsyncGenerator[httpx2.AsyncClient, None]:
        """A generator, because a loop that ends closes its generators: so no connection outlives its loop."""
        client = self._clients[loop] = _new_async_client(self._base_url)
        kept = finalize(self, id, client)  # whole until the pool is collected and asyncio closes this generator
        kept.atexit = False
        try:
            yield client
        finally:
            kept.detach()
            self._clients.pop(loop, None)
            self._open.pop(loop, None)
            await client.aclose()


class Pool:
    """The connections of a sync client, made when the first call needs them."""

    def __init__(self, base_url: str, own: httpx2.Client | httpx.Client | None) -> None:
        if hasattr(own, "aclose"):
            raise ConfigurationError("AutoGLM takes an httpx2.Client (or httpx's) as http_client")
        self._base_url = base_url
        self._own = cast("httpx2.Client | None", own)
        self._client: httpx2.Client | None = None
        self._close: Callable[[], object] = lambda: None
        self._lock = Lock()

    def client(self) -> httpx2.Client:
        """The user's own client, or ours."""
        if self._own is not None:
            return self._own
        with self._lock:
            if self._client is None:
                self._client = _new_client(self._base_url)
                self._close = finalize(self, self._client.close)  # who never closes leaves no open socket behind
            return self._client

    def close(self) -> None:
        """Close the connections; a client that the user brought stays open."""
        self._client = None
        self._close()


def _running_loop() -> AbstractEventLoop:
    from asyncio import get_running_loop

    return get_running_loop()


def _new_async_client(base_url: str) -> httpx2.AsyncClient:
    import httpx2

    from ._transport import AsyncTransport

    return httpx2.AsyncClient(transport=AsyncTransport(base_url), timeout=None)


def _new_client(base_url: str) -> httpx2.Client:
    import httpx2

    from ._transport import Transport

    return httpx2.Client(transport=Transport(base_url), timeout=None)
