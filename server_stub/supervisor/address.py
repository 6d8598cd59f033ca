"""Where a server listens, and where this machine reaches it."""

from __future__ import annotations

import socket

from ..errors import PreflightFailed

__all__ = ["free_port", "reachable"]


def free_port(host: str, port: int) -> int:
    """The port if it is free, any free one for 0; raises `PreflightFailed` otherwise.

    Without this look, whoever has the port would answer in the place of an engine that cannot get it.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.create_server(address, family=family) as probe:
            free: int = probe.getsockname()[1]
            return free
    except OSError as error:
        raise PreflightFailed(f"{host}:{port} cannot be listened on ({error}); port=0 takes a free one") from error


def reachable(host: str) -> str:
    """The host for a URL on this machine: all addresses are reached by the loopback one."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - replaced, not bound
    return f"[{host}]" if ":" in host else host
