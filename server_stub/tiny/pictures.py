"""Phone screens with coloured buttons, drawn at random in the size that the model sees, with what is on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random

import torch
from torch import Tensor

from ..screen import COLORS
from .build import IMAGE_PROCESSOR
from .lessons import COLOR_WORDS

__all__ = ["PATCH", "SIZES", "TOKEN", "Box", "Picture", "draw", "patches"]

PATCH = 14
TOKEN = 2 * PATCH
"""Pixels at the side of the square that becomes one token."""

SIZES = ((224, 112), (196, 112), (224, 84))
"""Height and width to which the image processor scales screens of 1:2, 9:16 and 9:20."""

_MOST_BUTTONS = 6
_MEAN = torch.tensor(IMAGE_PROCESSOR["image_mean"]).view(3, 1, 1)
_STD = torch.tensor(IMAGE_PROCESSOR["image_std"]).view(3, 1, 1)


@dataclass(frozen=True)
class Box:
    """A button; its edges in shares of the screen, 0 to 1."""

    color: str
    left: float
    top: float
    right: float
    bottom: float

    @property
    def center(self) -> tuple[float, float]:
        """Across and down."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def overlaps(self, other: Box) -> bool:
        """Whether the two share any pixel."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


@dataclass(frozen=True)
class Picture:
    """A screen: its buttons, and its normalised pixels of shape (3, height, width)."""

    boxes: tuple[Box, ...]
    pixels: Tensor

    @property
    def tokens(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        _, height, width = self.pixels.shape
        return height // TOKEN, width // TOKEN

    @cached_property
    def shares(self) -> Tensor:
        """How much of each token each button covers, 0 to 1, of shape (buttons, tokens)."""
        rows, columns = self.tokens
        if not self.boxes:
            return torch.zeros(0, rows * columns)
        return torch.stack([_covered(box, rows, columns).flatten() for box in self.boxes])


def draw(random: Random, height: int, width: int) -> Picture:
    """Draw up to six buttons of different colours; half of the screens show one or two."""
    count = random.choice((0, 1, 1, 2, 2, 3, 3, 4, 5, _MOST_BUTTONS))
    boxes = _place(random, random.sample(list(COLOR_WORDS), count))
    pixels = _background(random, height, width)
    for box in boxes:
        share = _covered(box, height, width)
        pixels = pixels * (1 - share) + _paint(random, box.color) * share
    return Picture(boxes, (pixels.clamp(0, 255) / 255 - _MEAN) / _STD)


def patches(pixels: Tensor) -> Tensor:
    """Cut a picture as the image processor does: (patches, 3 * 2 * 14 * 14), the four patches of a token in a row."""
    _, height, width = pixels.shape
    rows, columns = height // TOKEN, width // TOKEN
    cut = pixels.reshape(3, rows, 2, PATCH, columns, 2, PATCH).permute(1, 4, 2, 5, 0, 3, 6)
    twice = cut.unsqueeze(5).expand(-1, -1, -1, -1, -1, 2, -1, -1)  # a picture counts as a video of two frames
    return twice.reshape(rows * columns * 4, 3 * 2 * PATCH * PATCH)


def _place(random: Random, colors: list[str]) -> tuple[Box, ...]:
    placed: list[Box] = []
    for color in colors:
        for _ in range(30):
            box = _box(random, color)
            if not any(box.overlaps(other) for other in placed):
                placed.append(box)
                break
    return tuple(placed)


def _box(random: Random, color: str) -> Box:
    width = random.uniform(0.18, 0.5) if random.random() < 0.8 else random.uniform(0.5, 0.95)
    height = random.uniform(0.05, 0.16)
    left, top = random.uniform(0, 1 - width), random.uniform(0, 1 - height)
    return Box(color, left, top, left + width, top + height)


def _background(random: Random, height: int, width: int) -> Tensor:
    """Light as a rule, sometimes dark, sometimes with a grey status bar."""
    gray = random.randint(212, 255) if random.random() < 0.85 else random.randint(10, 50)
    pixels = torch.full((3, height, width), float(gray))
    if random.random() < 0.3:
        pixels[:, : random.randint(4, 10)] = random.randint(150, 215)
    return pixels


def _paint(random: Random, color: str) -> Tensor:
    channels = [float(channel + random.randint(-14, 14)) for channel in COLORS[color]]
    return torch.tensor(channels).view(3, 1, 1)


def _covered(box: Box, rows: int, columns: int) -> Tensor:
    """The share of each cell of a grid that the button covers: smooth edges, as scaling down makes them."""
    down = _covered_line(rows, box.top, box.bottom)
    across = _covered_line(columns, box.left, box.right)
    return down[:, None] * across[None]


def _covered_line(cells: int, start: float, end: float) -> Tensor:
    edges = torch.arange(cells + 1, dtype=torch.float32)
    return (edges[1:].clamp(max=end * cells) - edges[:-1].clamp(min=start * cells)).clamp(min=0)
