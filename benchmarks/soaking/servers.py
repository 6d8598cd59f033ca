"""The scripted server, and a proxy that spoils a share of its answers, in processes of their own."""

from __future__ import annotations

import asyncio
import csv
import multiprocessing
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from server_stub import ScriptedServer

from .books import Passed
from .faults import FAULTS, LAST_CHUNK, Spoiler, refusal

CALL, ATTEMPT = "x-soak", "x-request-id"
"""The headers that name a call, and each of its attempts."""
RARE = 0.1
"""How often a connection is refused, or closed between two requests, for one answer that is spoiled."""


@contextmanager
def beside(serve: Callable[..., None], *arguments: object) -> Iterator[str]:
    """Serve from another process, which says its port first; the URL."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    child = spawn.Process(target=serve, args=(there, *arguments), daemon=True)
    child.start()
    there.close()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        here.close()
        child.join(5)


def serve_script(pipe: Connection, log: Path, pace: float) -> None:
    """Answer by the script, and write down the name of each attempt."""

    class CountingServer(ScriptedServer):
        def remember(self, path: str, headers: dict[str, str], body: dict[str, Any] | None) -> None:  # noqa: ARG002
            if CALL in headers:
                lines.write(f"{headers[ATTEMPT]}\n")

    with log.open("w", buffering=1) as lines, CountingServer(pace=pace) as server:
        pipe.send(server.port)
        wait_until_unwanted(pipe)


def wait_until_unwanted(pipe: Connection) -> None:
    with suppress(EOFError):
        pipe.recv()


def serve_proxy(pipe: Connection, log: Path, url: str, share: float, seed: int) -> None:
    """Pass requests on to ``url``, spoil a share of the answers, and write both down."""
    with log.open("w", buffering=1, newline="") as lines:
        asyncio.run(Proxy(csv.writer(lines).writerow, url, share, Random(f"{seed} proxy")).run(pipe))


@dataclass
class Proxy:
    """Passes requests on, each over a connection of its own, and answers some of them badly."""

    note: Callable[[Passed], object]
    url: str
    share: float
    chance: Random
    away: bool = False

    async def run(self, pipe: Connection) -> None:
        """Pass on until nobody wants it."""
        server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        leaving = asyncio.create_task(self.leave_at_times())
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(wait_until_unwanted, pipe)
        leaving.cancel()

    async def leave_at_times(self) -> None:
        """Now and then no connection is taken for a while, as while a server is restarted."""
        while self.share:
            await asyncio.sleep(self.chance.uniform(3, 40))
            self.away = True
            await asyncio.sleep(self.chance.uniform(0.1, 1.5))
            self.away = False

    def happens(self, part: float) -> bool:
        """Draw whether to do something, as often as this part of the share."""
        return self.chance.random() < self.share * part

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection of the client until one of its ends is closed."""
        if self.away or self.happens(RARE):
            self.note(Passed("", "", "refused"))
            hang_up(writer)
            return
        answering: asyncio.Task[None] | None = None
        try:
            while (request := await read_request(reader)) and (fault := self.fault_for(request)) != "mute":
                if answering:
                    answering.cancel()  # it has answered, and kept its connection
                answering = asyncio.create_task(self.answer(request, Spoiler(fault, self.chance), writer))
        finally:  # the client has gone: so has the answer
            if answering:
                answering.cancel()
            writer.close()

    def fault_for(self, request: bytes) -> str:
        """Draw what happens to the answer, and write it down."""
        call, attempt = header(request, CALL), header(request, ATTEMPT)
        if not call:
            return ""
        fault = self.chance.choice(FAULTS) if self.happens(1.0) else ""
        self.note(Passed(call, attempt, fault))
        return fault

    async def answer(self, request: bytes, spoiler: Spoiler, writer: asyncio.StreamWriter) -> None:
        """Pass on a request, and what the server says to it, more or less."""
        if spoiler.fault == "status":
            writer.write(refusal(self.chance))
            return
        at = urlsplit(self.url)
        pieces, server = await asyncio.open_connection(at.hostname, at.port or 80)
        server.write(request)
        try:
            while piece := await pieces.read(65536):
                async for part in spoiler.spoiled(piece):
                    writer.write(part)
                    await writer.drain()
                if piece.endswith(LAST_CHUNK) and self.happens(RARE):  # maybe just when the next request is sent
                    await asyncio.sleep(self.chance.uniform(0, 0.05))
                    break
            self.note(Passed("", "", "closed idle"))
            writer.close()
        except EOFError:
            writer.close()
        except OSError:
            hang_up(writer)
        finally:
            server.close()


def hang_up(writer: asyncio.StreamWriter) -> None:
    """End a connection with a reset, as a process that crashes does."""
    if (connection := writer.get_extra_info("socket")) is not None and connection.fileno() >= 0:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """One request, or nothing when the client has gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        return head + await reader.readexactly(int(header(head, "content-length") or 0))
    except (OSError, EOFError):
        return b""


def header(request: bytes, name: str) -> str:
    found = re.search(rf"(?im)^{name}: *(.*?)\r$".encode(), request)
    return found[1].decode() if found else ""
