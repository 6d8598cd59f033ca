"""The connections of a client, made when its first call needs them.

httpx2 and asyncio are imported then, too: they would be most of the time that importing this package takes.

A process that was forked makes connections of its own. What it inherited is never read, written, shut down or even
closed (the parent's event loop shares its registrations with this process), only kept, so that nothing else closes it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet, finalize

from .errors import ConfigurationError
from .timeouts import CallClock

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from http.cookiejar import CookieJar

    import httpx
    import httpx2

__all__ = ["AsyncPool", "Pool"]

Own = TypeVar("Own")

_inherited: list[object] = []
"""What this process got from the one that forked it."""


class AsyncPool:
    """The connections of an async client: one httpx2 client for each event loop, as sockets belong to their loop."""

    def __init__(self, base_url: str, own: httpx2.AsyncClient | httpx.AsyncClient | None) -> None:
        if own is not None and not hasattr(own, "aclose"):
            raise ConfigurationError("AsyncAutoGLM takes an httpx2.AsyncClient (or httpx's) as http_client")
        self._base_url = base_url
        self._own = cast("httpx2.AsyncClient | None", own)  # the two have the same methods
        self._pid = os.getpid()
        self._begin()
        _pools().add(self)

    def _begin(self) -> None:
        self._open: dict[AbstractEventLoop, AsyncGenerator[httpx2.AsyncClient, None]] = {}
        self._clients: dict[AbstractEventLoop, httpx2.AsyncClient] = {}
        self._running: WeakKeyDictionary[AbstractEventLoop, WeakSet[CallClock]] = WeakKeyDictionary()

    def forget(self) -> None:
        """Begin anew in a process that was forked."""
        _inherited.append((self._open, self._clients))
        self._begin()

    async def client(self, clock: CallClock) -> httpx2.AsyncClient:
        """The user's own client, or the one of the running loop, for a call that ends when it is closed."""
        loop = _running_loop()
        self._running.setdefault(loop, WeakSet()).add(clock)
        if self._own is not None:
            return _of_this_process(self._own, self._pid)
        if loop not in self._clients:
            self._open[loop] = self._client_of(loop)
            await anext(self._open[loop])
        return self._clients[loop]

    async def close(self) -> None:
        """Close the connections of this loop; a client that the user brought stays open."""
        loop = _running_loop()
        _cancel(self._running.pop(loop, ()))
        if opened := self._open.pop(loop, None):
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
            self._running.pop(loop, None)
            await client.aclose()


class Pool:
    """The connections of a sync client, made when the first call needs them."""

    def __init__(self, base_url: str, own: httpx2.Client | httpx.Client | None) -> None:
        if hasattr(own, "aclose"):
            raise ConfigurationError("AutoGLM takes an httpx2.Client (or httpx's) as http_client")
        self._base_url = base_url
        self._own = cast("httpx2.Client | None", own)
        self._pid = os.getpid()
        self._begin()
        _pools().add(self)

    def _begin(self) -> None:
        self._client: httpx2.Client | None = None
        self._unclosed: finalize[Any, Any] | None = None
        self._running: WeakSet[CallClock] = WeakSet()
        self._lock = Lock()  # another thread of the parent may have held the old one, and is not here to release it

    def forget(self) -> None:
        """Begin anew in a process that was forked."""
        if self._unclosed is not None:
            self._unclosed.detach()
        _inherited.append(self._client)
        self._begin()

    def client(self, clock: CallClock) -> httpx2.Client:
        """The user's own client, or ours, for a call that ends when it is closed."""
        with self._lock:
            self._running.add(clock)
            if self._own is not None:
                return _of_this_process(self._own, self._pid)
            if self._client is None:
                self._client = client = _new_client(self._base_url)
                self._unclosed = finalize(self, client.close)  # who never closes leaves no open socket behind
            return self._client

    def close(self) -> None:
        """Close the connections; a client that the user brought stays open."""
        with self._lock:
            client, self._client = self._client, None
            unclosed, self._unclosed = self._unclosed, None
            running, self._running = self._running, WeakSet()
        _cancel(running)
        if client is not None and unclosed is not None:
            unclosed()


@cache
def _pools() -> WeakSet[AsyncPool | Pool]:
    """All that there are; from the first on, a process that is forked begins them anew."""
    if hasattr(os, "register_at_fork"):  # where there is no fork, there is no such function either
        os.register_at_fork(after_in_child=_forget_all)
    return WeakSet()


def _forget_all() -> None:
    for pool in _pools():
        pool.forget()


def _of_this_process(own: Own, pid: int) -> Own:
    if pid != os.getpid():
        raise ConfigurationError("http_client was made before a fork: its connections belong to the parent process")
    return own


def _cancel(running: Iterable[CallClock]) -> None:
    for clock in list(running):
        clock.cancel("the client was closed while the call was running")


def _running_loop() -> AbstractEventLoop:
    from asyncio import get_running_loop

    return get_running_loop()


def _new_async_client(base_url: str) -> httpx2.AsyncClient:
    import httpx2

    from ._transport import AsyncTransport

    return httpx2.AsyncClient(transport=AsyncTransport(base_url), timeout=None, cookies=_no_cookies())


def _new_client(base_url: str) -> httpx2.Client:
    import httpx2

    from ._transport import Transport

    return httpx2.Client(transport=Transport(base_url), timeout=None, cookies=_no_cookies())


def _no_cookies() -> CookieJar:
    """A jar that takes none: they would pile up, and be sent with every call."""
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))
