"""httpx2 transports that hold the clocks of a call in every socket operation.

A read timeout of httpx2 is fixed when the request starts, and fed by every byte, pings included. Here each read gets
what is left of the clock that runs: the time to the next event, never beyond the call's deadline.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from os import getpid
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

from . import defaults
from ._checks import is_private
from ._interrupt import duplicate, hang_up
from .timeouts import Link, running_clock

__all__ = ["AsyncTransport", "Transport"]

_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=defaults.KEEPALIVE_SECONDS)


_KEEPALIVE = tuple(
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 30),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 10),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", 3),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 60_000),
    )
    if hasattr(socket, name)
)
"""So the socket itself notices in a minute that a router has forgotten the connection, or a machine lost its power."""


_PIECE = 16 * 1024  # bytes that are written at once: a TLS record


def _connect_limit() -> float | None:
    clock = running_clock.get()
    return clock.within(clock.timeouts.connect)


def _write_limit() -> float | None:
    clock = running_clock.get()
    return clock.within(clock.timeouts.send)


def _is_refused(info: str) -> bool:
    """The pool asks whether a connection that it kept was hung up: so it is told, where only a fresh one will do."""
    clock = running_clock.get(None)
    return info == "is_readable" and clock is not None and clock.fresh_only


def _sent() -> None:
    running_clock.get().expect("first_token")


def _check_process(pid: int) -> None:
    """A process that was forked takes no byte of a connection that its parent made, and does not end it."""
    if getpid() != pid:
        raise httpcore2.ReadError("the connection belongs to the process that forked this one")


class _AsyncStream(httpcore2.AsyncNetworkStream):
    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._pid = getpid()
        self._link: Link = "fresh"
        self._overheard = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if getpid() != self._pid:  # not the function: this runs for every piece of a stream
            _check_process(self._pid)
        clock = running_clock.get()
        if self._overheard:
            data, self._overheard = self._overheard, b""
        else:
            data = await self._stream.read(max_bytes, clock.for_next_event())
        if clock.link != "answered" and data:  # an end is no answer
            self._link = "reused"
            clock.hear_head(len(data))
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        _check_process(self._pid)
        running_clock.get().takes(self._link)
        with self._listening(len(buffer)):
            await self._stream.write(buffer, _write_limit())
        _sent()

    @contextmanager
    def _listening(self, size: int) -> Iterator[None]:
        """Hear a refusal in the midst of an upload: asyncio closes what it cannot write to, and what came with it."""
        if size <= _PIECE or self.get_extra_info("ssl_object") is not None:
            yield
            return
        try:
            twin = duplicate(self.get_extra_info("socket"))
        except OSError as error:  # it was closed, or this process has no descriptor left
            raise httpcore2.ReadError(str(error)) from error
        with twin:
            try:
                yield
            except httpcore2.WriteError:  # httpcore2 reads on after it
                with suppress(OSError):
                    self._overheard = twin.recv(_PIECE)
                raise

    async def aclose(self) -> None:
        if getpid() == self._pid:
            hang_up(self.get_extra_info("socket"))  # a process that was forked may hold its descriptor
            await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        try:
            return _AsyncStream(await self._stream.start_tls(ssl_context, server_hostname, _connect_limit()))
        except BaseException:  # httpcore2 forgets the connection of a task that is cancelled while it shakes hands
            await self.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return _is_refused(info) or self._stream.get_extra_info(info)


class _AsyncBackend(httpcore2.AsyncNetworkBackend):
    def __init__(self, backend: httpcore2.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        limit = _connect_limit()
        return _AsyncStream(await self._backend.connect_tcp(host, port, limit, local_address, _KEEPALIVE))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        self._pid = getpid()
        self._link: Link = "fresh"

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if getpid() != self._pid:  # not the function: this runs for every piece of a stream
            _check_process(self._pid)
        clock = running_clock.get()
        data = self._stream.read(max_bytes, clock.for_next_event())
        if clock.link != "answered" and data:  # an end is no answer
            self._link = "reused"
            clock.hear_head(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        _check_process(self._pid)
        running_clock.get().interrupt.arm(partial(hang_up, self.get_extra_info("socket")))
        clock = running_clock.get()
        clock.takes(self._link)
        clock.expect("send")
        for start in range(0, len(buffer), _PIECE):  # a timeout is fed by whatever little goes out: so it gets shorter
            self._stream.write(buffer[start : start + _PIECE], clock.for_next_event())
        _sent()

    def close(self) -> None:
        if getpid() == self._pid:
            hang_up(self.get_extra_info("socket"))  # wakes a thread that is reading
            self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        # A TLS socket takes the descriptor over before it shakes hands: only a duplicate can be hung up meanwhile.
        try:
            twin = duplicate(self.get_extra_info("socket"))
        except OSError as error:  # this process has no descriptor left
            self.close()
            raise httpcore2.ConnectError(str(error)) from error
        with twin:
            running_clock.get().interrupt.arm(partial(hang_up, twin))
            return _Stream(self._stream.start_tls(ssl_context, server_hostname, _connect_limit()))

    def get_extra_info(self, info: str) -> Any:
        return _is_refused(info) or self._stream.get_extra_info(info)


class _Connecting:
    """A connection on its way, in a thread: neither a name's lookup nor a silent host can be interrupted otherwise.

    One limit holds for all the addresses of a name, too. What comes after nobody waits any more is closed.
    """

    def __init__(self, connect: Callable[[], httpcore2.NetworkStream]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._stream: httpcore2.NetworkStream | None = None
        self._failure: Exception | None = None

    def wait(self, limit: float | None) -> httpcore2.NetworkStream:
        running_clock.get().interrupt.arm(self._over.set)
        threading.Thread(target=self._run, name="autoglm-connect", daemon=True).start()
        self._over.wait(limit)
        with self._lock:
            self._over.set()
            if self._stream is None:
                raise self._failure or httpcore2.ConnectTimeout
            return self._stream

    def _run(self) -> None:
        try:
            stream = self._connect()
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            self._failure = error
        else:
            with self._lock:
                if self._over.is_set():
                    stream.close()
                    return
                self._stream = stream
        self._over.set()


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, backend: httpcore2.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        limit = _connect_limit()
        connect = partial(self._backend.connect_tcp, host, port, limit, local_address, _KEEPALIVE)
        return _Stream(_Connecting(connect).wait(limit))


class AsyncTransport(httpx2.AsyncHTTPTransport):
    """For the async client."""

    def __init__(self, base_url: str) -> None:
        super().__init__(verify=_verify(base_url), limits=_LIMITS, proxy=_proxy_for(base_url))
        # httpx2 has no parameter for this; the pool beneath it has, and a test holds the two names.
        self._pool._network_backend = _AsyncBackend(self._pool._network_backend)  # noqa: SLF001


class Transport(httpx2.HTTPTransport):
    """For the sync client."""

    def __init__(self, base_url: str) -> None:
        super().__init__(verify=_verify(base_url), limits=_LIMITS, proxy=_proxy_for(base_url))
        self._pool._network_backend = _Backend(self._pool._network_backend)  # noqa: SLF001


def _verify(base_url: str) -> ssl.SSLContext | bool:
    """Certificates are needed for https alone; over http no TLS is spoken, since redirects are not followed."""
    return _tls_context() if base_url.startswith("https:") else False


@cache
def _tls_context() -> ssl.SSLContext:
    """One for the process: loading the certificates took 0.2 s on a busy machine."""
    return httpx2.create_ssl_context()


def _proxy_for(base_url: str) -> str | None:
    """The environment's proxy, but never for this machine or a private network: it would get key and screenshots."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if is_private(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
