"""Is the address free, and who has the port if not."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..findings import Finding
from ..options import ServeOptions
from .installed import Installed

__all__ = ["check_port", "holder"]

LISTENING = "0A"  # the kernel's number for the state, in /proc/net/tcp


def check_port(options: ServeOptions, _inside: Installed) -> Iterator[Finding]:
    """The host is an address of this machine, and its port is free."""
    where = f"{options.host}:{options.port}"
    try:
        _bind(options.host, options.port)
    except socket.gaierror:
        yield Finding("port", "FAIL", f"{options.host!r} is no address and no known name", "--host 127.0.0.1")
    except OSError as error:
        yield _refusal(options.port, where, error)
    else:
        yield Finding("port", "ok", f"a free one on {options.host}" if options.port == 0 else f"{where} is free")


def holder(port: int) -> str | None:
    """Who listens on the port, as ``pid 12 (its command)``; None where Linux does not tell."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        with suppress(OSError):  # another user's process, or one that has just ended
            if any(_target(entry) in sockets for entry in (process / "fd").iterdir()):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                return f"pid {process.name} ({command[:60]})"
    return None


def _bind(host: str, port: int) -> None:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    socket.create_server(address, family=family).close()


def _refusal(port: int, where: str, error: OSError) -> Finding:
    if error.errno == errno.EADDRINUSE:
        by = holder(port)
        stop = f"kill {by.split()[1]}, or " if by else ""
        detail = f"{where} is taken by {by or 'a process that this user cannot look into'}"
        return Finding("port", "FAIL", detail, f"{stop}--port 0 for a free one")
    if error.errno == errno.EACCES:
        return Finding("port", "FAIL", f"{where} is not for this user", "--port 8000: those below 1024 are for root")
    if error.errno == errno.EADDRNOTAVAIL:
        remedy = "--host 127.0.0.1, or --host 0.0.0.0 for all addresses of this machine"
        return Finding("port", "FAIL", f"{where} is no address of this machine", remedy)
    return Finding("port", "FAIL", f"{where} cannot be listened on: {error.strerror}", "--host 127.0.0.1 --port 0")


def _inodes(port: int) -> Iterator[str]:
    """The sockets that listen on the port, from the kernel's table: address:port in hexadecimal, state, inode."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _target(entry: Path) -> str:
    with suppress(OSError):
        return str(entry.readlink())
    return ""
