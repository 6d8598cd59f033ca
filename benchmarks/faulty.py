"""What a soak asks: a scripted server that counts, and a proxy that spoils answers, each a process of its own.

Both write a line for each request, so that the client's own count can be held against theirs.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import socket
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, TextIO

from server_stub import ScriptedServer

FAULTS = ("reset", "close", "stall", "trickle", "delay", "corrupt", "status", "engine", "mute")
REFUSED_OF_FAULTS = 0.1
IDLE_CLOSED_OF_FAULTS = 0.1
SERVER_FAILED_OF_FAULTS = 0.1
RETRY_AFTER = (None, "0", "1", "0.3", "soon", "-1", "3600")
FOREVER = 3600.0
CALL, ATTEMPT = "x-soak", "x-request-id"


@contextmanager
def process(serve: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """Run it beside this process; what comes through the pipe first is its port, the last what it tells."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=serve, args=(there, *arguments), daemon=True)
    child.start()
    there.close()
    try:
        yield here
    finally:
        here.close()
        child.join(5)
        child.terminate()


def told(pipe: Connection) -> Any:
    """Stop the process, and hear what it has to tell."""
    pipe.send("stop")
    return pipe.recv()


def serve_script(pipe: Connection, log: Path, pace: float, share: float, seed: int) -> None:
    """Answer by the script until told to stop; some requests are refused."""
    with log.open("w", buffering=1) as lines, CountingServer(lines, pace, share, seed) as server:
        pipe.send(server.port)
        wait_for_stop(pipe)
        pipe.send(server.failed)


def wait_for_stop(pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError:  # whoever wanted this has gone
        raise SystemExit from None


class CountingServer(ScriptedServer):
    """Writes down who asked, and refuses some."""

    def __init__(self, log: TextIO, pace: float, share: float, seed: int) -> None:
        super().__init__(pace=pace, record=False)
        self.failed = 0
        self._log = log
        self._share = share * SERVER_FAILED_OF_FAULTS
        self._chance = Random(f"{seed} server")

    def remember(self, path: str, headers: dict[str, str], body: dict[str, Any] | None) -> None:  # noqa: ARG002
        """Write down the name of the attempt."""
        if CALL in headers:
            self._log.write(f"{headers[ATTEMPT]}\n")

    def next_failure(self) -> tuple[int, str, dict[str, str]] | None:
        """Order a failure now and then, and take it."""
        if self._chance.random() < self._share:
            self.failed += 1
            self.fail(self._chance.choice((500, 503, 429)), retry_after="0")
        return super().next_failure()


def serve_proxy(pipe: Connection, log: Path, host: str, port: int, share: float, seed: int) -> None:
    """Pass requests on until told to stop; some answers are spoiled."""
    with log.open("w", buffering=1) as lines:
        asyncio.run(Proxy(lines, host, port, share, seed).run(pipe))


class Cut(Exception):
    """The connection to the client ends here, cleanly or not."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


@dataclass(slots=True)
class Request:
    """A request as it came, and what was done to its answer."""

    raw: bytes
    call: str
    attempt: str
    streamed: bool
    fault: str = ""
    spoiled: bool = False
    forwarded: bool = False


@dataclass
class Proxy:
    """Passes requests on, each over a connection of its own, and spoils a share of the answers."""

    log: TextIO
    host: str
    port: int
    share: float
    seed: int
    refused: int = 0
    closed_idle: int = 0
    away: list[tuple[float, float]] = field(default_factory=list)
    """When nobody listened, in ``time.monotonic()``."""

    def __post_init__(self) -> None:
        self.chance = Random(f"{self.seed} proxy")

    async def run(self, pipe: Connection) -> None:
        """Pass on until told to stop."""
        server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pipe.send(port)
        leaving = asyncio.create_task(self.leave_at_times(server, port))
        await asyncio.to_thread(wait_for_stop, pipe)
        leaving.cancel()
        pipe.send({"refused": self.refused, "closed idle": self.closed_idle, "away": self.away})

    async def leave_at_times(self, server: asyncio.Server, port: int) -> None:
        """Now and then nobody listens, as while a server is restarted."""
        while self.share:
            await asyncio.sleep(self.chance.uniform(3, 40))
            left = time.monotonic()
            server.close()
            await asyncio.sleep(self.chance.uniform(0.1, 1.5))
            server = await asyncio.start_server(self.connected, "127.0.0.1", port)
            self.away.append((left, time.monotonic()))

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of the client."""
        if self.happens(REFUSED_OF_FAULTS):
            self.refused += 1
            reset(writer)
            return
        requests = asyncio.Queue[Request]()
        answering = asyncio.create_task(self.answer_all(requests, writer))
        try:
            while request := await read_request(reader):
                requests.put_nowait(request)
        finally:  # the client has gone: so has the answer
            answering.cancel()
            await asyncio.wait({answering})
            writer.close()

    def happens(self, part: float) -> bool:
        """Draw whether to do something, as often as this part of the share."""
        return self.chance.random() < self.share * part

    async def answer_all(self, requests: asyncio.Queue[Request], writer: asyncio.StreamWriter) -> None:
        """Answer what comes over one connection, until it is cut."""
        try:
            while True:
                request = await requests.get()
                try:
                    await self.answer(request, writer)
                finally:
                    self.note(request)
                await self.close_idle_at_times()
        except Cut as cut:
            reset(writer) if cut.reset else writer.close()
        except (OSError, EOFError):
            writer.transport.abort()

    async def close_idle_at_times(self) -> None:
        """Close a connection that the client keeps, maybe just when it sends the next request."""
        if self.happens(IDLE_CLOSED_OF_FAULTS):
            self.closed_idle += 1
            await asyncio.sleep(self.chance.uniform(0, 0.05))
            raise Cut

    def note(self, request: Request) -> None:
        """Write down a request, and what became of it."""
        if request.call:
            done = request.fault if request.spoiled else ""
            self.log.write(f"{request.call},{request.attempt},{done},{int(request.forwarded)}\n")

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer one request, well or ill."""
        chance = Random(self.chance.random())
        if request.call and self.happens(1.0):
            request.fault = chance.choice(FAULTS)
        if request.fault in INSTEAD:
            request.spoiled = True
            writer.write(INSTEAD[request.fault](chance))
            return
        async with forwarded(self.host, self.port, request) as pieces:
            async for piece in spoiled(pieces, request, chance):
                writer.write(piece)
                await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset, as a process that crashes does."""
    if (connection := writer.get_extra_info("socket")) is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(header(head, "content-length") or 0))
    except (OSError, EOFError):
        return None
    streamed = re.search(rb'"stream": ?true', body) is not None
    return Request(head + body, header(head, CALL), header(head, ATTEMPT), streamed)


def header(head: bytes, name: str) -> str:
    found = re.search(rf"(?im)^{name}: *(.*?)\r$".encode(), head)
    return found[1].decode() if found else ""


@asynccontextmanager
async def forwarded(host: str, port: int, request: Request) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """The answer of the server, in the pieces in which it comes; leaving hangs up."""
    reader, writer = await asyncio.open_connection(host, port)
    pieces = read_answer(reader)
    try:
        writer.write(request.raw)
        request.forwarded = True
        yield pieces
    finally:
        writer.transport.abort()
        await pieces.aclose()


async def read_answer(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    head = await reader.readuntil(b"\r\n\r\n")
    yield head
    if "chunked" not in header(head, "transfer-encoding"):
        if length := int(header(head, "content-length") or 0):
            yield await reader.readexactly(length)
        return
    end = b""
    while data := await reader.read(65536):
        yield data
        end = (end + data)[-5:]
        if end == b"0\r\n\r\n":
            return
    raise Cut


async def spoiled(pieces: AsyncGenerator[bytes, None], request: Request, chance: Random) -> AsyncGenerator[bytes, None]:
    """The answer with the fault of this request somewhere in it, if it is long enough."""
    begins = chance.randrange(chance.choice((15, 30, 110)) if request.streamed else 2)
    number = 0
    async for piece in pieces:
        if not request.fault or number < begins or (request.spoiled and request.fault != "trickle"):
            yield piece
        else:
            request.spoiled = True
            async for part in SPOILING[request.fault](piece, chance):
                yield part
        number += 1


async def cut_off(piece: bytes, chance: Random, *, by_reset: bool = False) -> AsyncGenerator[bytes, None]:
    yield piece[: chance.randrange(len(piece))]
    raise Cut(reset=by_reset)


async def cut_by_reset(piece: bytes, chance: Random) -> AsyncGenerator[bytes, None]:
    async for part in cut_off(piece, chance, by_reset=True):
        yield part


async def stall(piece: bytes, chance: Random) -> AsyncGenerator[bytes, None]:
    yield piece[: chance.randrange(len(piece))]
    await asyncio.sleep(FOREVER)


async def trickle(piece: bytes, chance: Random) -> AsyncGenerator[bytes, None]:
    size = chance.randrange(1, 20)
    for start in range(0, len(piece), size):
        yield piece[start : start + size]
        await asyncio.sleep(0.002)


async def delay(piece: bytes, chance: Random) -> AsyncGenerator[bytes, None]:
    await asyncio.sleep(chance.choice((0.2, 1.0, 5.0)))
    yield piece


async def corrupt(piece: bytes, chance: Random) -> AsyncGenerator[bytes, None]:
    """Break the JSON or the framing, so that it can be noticed: no client notices another letter in a text."""
    where = piece.find(b'{"') if chance.random() < 0.5 else 0
    yield piece[:where] + b"}!" + piece[where + 2 :] if where > 0 else b"\xff~!\r\n" + piece


async def die(piece: bytes, chance: Random) -> AsyncGenerator[bytes, None]:  # noqa: ARG001
    """What vLLM 0.32 sends when its engine dies; in a plain answer it is nonsense, and is to be told as an error."""
    error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": None, "code": 500}
    data = b"data: " + json.dumps({"error": error}).encode() + b"\n\ndata: [DONE]\n\n"
    if piece.startswith(b"HTTP/1.1"):
        yield piece
    yield b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
    raise Cut


SPOILING: dict[str, Callable[[bytes, Random], AsyncGenerator[bytes, None]]] = {
    "reset": cut_by_reset,
    "close": cut_off,
    "stall": stall,
    "trickle": trickle,
    "delay": delay,
    "corrupt": corrupt,
    "engine": die,
}


def refusal(chance: Random) -> bytes:
    status = chance.choice(("500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"))
    after = chance.choice(RETRY_AFTER)
    body = b'{"error": {"message": "The proxy says no.", "code": 0}}'
    asked = f"retry-after: {after}\r\n" if after else ""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{asked}\r\n"
    return head.encode() + body


def nothing(_: Random) -> bytes:
    raise Cut


INSTEAD: dict[str, Callable[[Random], bytes]] = {"status": refusal, "mute": nothing}
