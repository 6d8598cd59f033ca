"""httpx2 transports that hold the clocks of a call in every socket operation.

A read timeout of httpx2 is fixed when the request starts, and fed by every byte, pings included. Here each read gets
what is left of the clock that runs: the time to the next event, never beyond the call's deadline.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore2
import httpx2

from . import defaults
from .timeouts import running_clock

__all__ = ["AsyncTransport", "Transport"]

_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=defaults.KEEPALIVE_SECONDS)


def _connect_limit() -> float | None:
    clock = running_clock.get()
    return clock.within(clock.timeouts.connect)


def _write_limit() -> float | None:
    clock = running_clock.get()
    return clock.within(clock.timeouts.send)


def _read_limit() -> float | None:
    return running_clock.get().for_next_event()


def _sent() -> None:
    running_clock.get().expect("first_token")


class _AsyncStream(httpcore2.AsyncNetworkStream):
    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, _read_limit())

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, _write_limit())
        _sent()

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        return _AsyncStream(await self._stream.start_tls(ssl_context, server_hostname, _connect_limit()))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


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
        return _AsyncStream(await self._backend.connect_tcp(host, port, limit, local_address, socket_options))


class _Stream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _read_limit())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _write_limit())
        _sent()

    def close(self) -> None:
        with suppress(OSError):  # not connected any more
            self._stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)  # wakes a thread that is reading
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _connect_limit()))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


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
        return _Stream(self._backend.connect_tcp(host, port, _connect_limit(), local_address, socket_options))


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
    if _is_private(host) or proxy_bypass(host):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


def _is_private(host: str) -> bool:
    host = host.rstrip(".")
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))
