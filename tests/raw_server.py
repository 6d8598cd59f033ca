"""A server that writes exactly the bytes it is told, one script for each connection it accepts."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

Step = bytes | float | Callable[[socket.socket], object]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def reset(connection: socket.socket) -> None:
    """End the connection with RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def next_request(connection: socket.socket) -> None:
    """Wait for the next request of a connection that is kept."""
    _read_request(connection)


def kept(answer: bytes) -> bytes:
    """An answer after which the connection stays open."""
    return answer.replace(b"Connection: close\r\n", b"")


def plain(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """An answer in one piece."""
    lines = [
        f"HTTP/1.1 {status}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def event(data: str) -> bytes:
    """An event of a stream."""
    return b"data: " + data.encode() + b"\n\n"


def delta(content: str) -> bytes:
    """A piece of an answer."""
    return event(json.dumps({"choices": [{"index": 0, "delta": {"content": content}}]}))


def finish(reason: str = "stop") -> bytes:
    """The end of an answer."""
    return event(json.dumps({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}))


DONE = event("[DONE]")


@dataclass
class RawServer:
    """What a test needs to know of it."""

    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Set when a client closes its connection before the script is over."""

    def wait_for(self, requests: int, seconds: float = 8.0) -> None:
        """Until so many requests have come."""
        until = time.monotonic() + seconds
        while len(self.requests) < requests:
            assert time.monotonic() < until, f"{len(self.requests)} requests have come"
            time.sleep(0.005)


@contextmanager
def raw_server(
    *scripts: Sequence[Step], wrap: Callable[[socket.socket], socket.socket] | None = None
) -> Iterator[RawServer]:
    """Serve each connection by the next script, the last one all that follow; ``wrap`` may put TLS around it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = RawServer(url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
    over = threading.Event()

    def serve(accepted: socket.socket, script: Sequence[Step]) -> None:
        try:
            with wrap(accepted) if wrap else accepted as connection:
                server.requests.append(_read_request(connection))
                for step in script:
                    if isinstance(step, bytes):
                        connection.sendall(step)
                    elif callable(step):
                        step(connection)
                    else:
                        _wait(connection, step, over)
        except OSError:
            server.hung_up.set()

    def accept() -> None:
        number = 0
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                script = scripts[min(number, len(scripts) - 1)]
                threading.Thread(target=serve, args=(connection, script), daemon=True).start()
                number += 1

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextmanager
def deaf_server(*, accepts: bool = True) -> Iterator[str]:
    """The address of a server that never reads; one that does not even accept leaves its callers connecting."""
    with ExitStack() as open_ones:
        listener = open_ones.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(16 if accepts else 0)
        for _ in range(0 if accepts else 4):  # they fill the queue
            waiting = open_ones.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def sipping_server() -> Iterator[str]:
    """The address of a server that reads a little at a time, all the time."""
    listener = socket.create_server(("127.0.0.1", 0))

    def sip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while connection.recv(65536):
                time.sleep(0.02)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=sip, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or b"\r\n\r\n"
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def _wait(connection: socket.socket, seconds: float, over: threading.Event) -> None:
    until = time.monotonic() + seconds
    connection.settimeout(0.01)
    while time.monotonic() < until and not over.is_set():
        with suppress(TimeoutError):
            if not connection.recv(1):
                raise ConnectionResetError
    connection.settimeout(None)
