"""Draw a phone screen as a PNG, with the standard library alone: something to show a model where there is no phone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

__all__ = ["COLORS", "Button", "draw_screen", "place_buttons"]

Color = tuple[int, int, int]

COLORS: dict[str, Color] = {
    "red": (214, 48, 49),
    "green": (39, 174, 96),
    "blue": (41, 98, 255),
    "yellow": (241, 196, 15),
    "orange": (243, 120, 20),
    "purple": (142, 68, 173),
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

    def holds(self, x: int, y: int) -> bool:
        """Whether a pixel lies on the button."""
        return 0 <= x - self.left < self.width and 0 <= y - self.top < self.height


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


def place_buttons(random: Random, width: int, height: int, colors: Sequence[str]) -> list[Button]:
    """Place a button of each colour somewhere on a screen, none over another.

    They are 20 to 50 % of the screen wide and 6 to 14 % high. More than six rarely find room: then this raises
    ValueError.
    """
    placed: list[Button] = []
    for color in colors:
        for _ in range(1000):
            button = _somewhere(random, color, width, height)
            if not any(_overlap(button, other) for other in placed):
                placed.append(button)
                break
        else:
            raise ValueError(f"no room for a {color} button beside {len(placed)} others")
    return placed


def _somewhere(random: Random, color: str, width: int, height: int) -> Button:
    wide, high = round(width * random.uniform(0.2, 0.5)), round(height * random.uniform(0.06, 0.14))
    return Button(color, random.randrange(width - wide), random.randrange(height - high), wide, high)


def _overlap(one: Button, other: Button) -> bool:
    apart_across = one.left + one.width <= other.left or other.left + other.width <= one.left
    apart_down = one.top + one.height <= other.top or other.top + other.height <= one.top
    return not (apart_across or apart_down)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
