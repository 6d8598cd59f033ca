"""Draw a phone screen as a PNG, with the standard library alone: something to show a model where there is no phone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["COLORS", "Button", "draw_screen"]

Color = tuple[int, int, int]

COLORS: dict[str, Color] = {
    "red": (214, 48, 49),
    "green": (39, 174, 96),
    "blue": (41, 98, 255),
    "yellow": (241, 196, 15),
    "white": (245, 245, 247),
    "black": (24, 24, 28),
}


class Button(NamedTuple):
    """A coloured rectangle; its place and size in pixels."""

    color: str
    left: int
    top: int
    width: int
    height: int


def draw_screen(width: int, height: int, buttons: Iterable[Button], background: str = "white") -> bytes:
    """Draw the buttons, the later ones on top, and return a PNG file."""
    rows = [bytes(COLORS[background]) * width] * height
    for button in buttons:
        paint = bytes(COLORS[button.color]) * button.width
        start, end = 3 * button.left, 3 * (button.left + button.width)
        for y in range(button.top, button.top + button.height):
            rows[y] = rows[y][:start] + paint + rows[y][end:]
    pixels = b"".join(b"\0" + row for row in rows)  # filter type 0 before each row
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(pixels, 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
