"""What the proxy does to an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from random import Random

INSTEAD = ("status", "mute")
"""Without asking the server."""
FAULTS = ("reset", "close", "stall", "trickle", "delay", "corrupt", "engine", *INSTEAD)
STATUSES = ("500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests")
RETRY_AFTER = ("", *(f"retry-after: {it}\r\n" for it in ("0", "1", "0.3", "soon", "-1", "3600")))
FOREVER = 3600.0
LAST_CHUNK = b"0\r\n\r\n"


def refusal(chance: Random) -> bytes:
    """An answer that says no."""
    body = '{"error": {"message": "The proxy says no.", "code": 0}}'
    head = f"HTTP/1.1 {chance.choice(STATUSES)}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}{chance.choice(RETRY_AFTER)}\r\n{body}".encode()


@dataclass
class Spoiler:
    """Puts a fault somewhere into an answer, if it is long enough."""

    fault: str
    chance: Random

    def __post_init__(self) -> None:
        self.untouched = self.chance.randrange(self.chance.choice((2, 15, 30, 110)))

    async def spoiled(self, piece: bytes) -> AsyncGenerator[bytes, None]:
        """The next piece of the answer, as the client is to have it."""
        fault, self.untouched = "" if self.untouched else self.fault, max(0, self.untouched - 1)
        if fault and fault != "trickle":
            self.fault = ""
        match fault:
            case "":
                yield piece
            case "delay":
                await asyncio.sleep(self.chance.choice((0.2, 1.0, 5.0)))
                yield piece
            case "trickle":
                size = self.chance.randrange(1, 20)
                for start in range(0, len(piece), size):
                    yield piece[start : start + size]
                    await asyncio.sleep(0.002)
            case "corrupt":
                yield corrupt(piece, self.chance)
            case "engine":
                yield (piece if piece.startswith(b"HTTP/1.1") else b"") + engine_died()
                raise EOFError
            case _:
                yield piece[: self.chance.randrange(len(piece))]
                await asyncio.sleep(FOREVER if fault == "stall" else 0)
                raise (ConnectionResetError if fault == "reset" else EOFError)


def corrupt(piece: bytes, chance: Random) -> bytes:
    """Break the JSON or the framing, so that it can be noticed: no client notices another letter in a text."""
    where = piece.find(b'{"') if chance.random() < 0.5 else 0
    return piece[:where] + b"}!" + piece[where + 2 :] if where > 0 else b"\xff~!\r\n" + piece


def engine_died() -> bytes:
    """What vLLM 0.32 sends when its engine dies; in a plain answer it is nonsense, and is to be told as an error."""
    error = {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "param": None, "code": 500}
    data = b"data: " + json.dumps({"error": error}).encode() + b"\n\ndata: [DONE]\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data) + LAST_CHUNK
