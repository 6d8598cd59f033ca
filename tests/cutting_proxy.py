"""A server in front of another one, that cuts the first answer after so many events and then passes everything on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

__all__ = ["cutting"]

_EVENT = b"data: "


@contextmanager
def cutting(url: str, *, events: int, connection: int = 1) -> Iterator[str]:
    """The base URL of a server that is like the one at ``url``, but for the cut of that connection's answer."""
    upstream = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        number = 0
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                number += 1
                server = socket.create_connection((upstream.hostname or "", upstream.port or 80))
                limit = events if number == connection else None
                threading.Thread(target=_pass_on, args=(client, server, None), daemon=True).start()
                threading.Thread(target=_pass_on, args=(server, client, limit), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _pass_on(source: socket.socket, target: socket.socket, events: int | None) -> None:
    """Copy until the end of the source, or until the beginning of the event that is one too many; then end both."""
    passed = b""
    with suppress(OSError):
        while data := source.recv(65536):
            passed = passed + data if events is not None else b""
            if events is not None and passed.count(_EVENT) > events:
                target.sendall(data[: len(data) - len(_from_event(passed, events))])
                break
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    source.close()


def _from_event(passed: bytes, events: int) -> bytes:
    """What stands from the end of so many events on."""
    return _EVENT + passed.split(_EVENT, events + 1)[-1]
