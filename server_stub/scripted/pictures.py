"""The size of a picture from its first bytes, and how many tokens it costs; nothing is decoded, opened or fetched."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from .refusal import Refusal

__all__ = ["NOWHERE", "Size", "image_tokens", "load_size"]

_PATCH = 28  # pixels a token spans in each direction: patches of 14, merged 2 x 2
_MAX_PIXELS = 5_000_000  # the official server's limit; it counts two frames, so 2.5 megapixels for a picture
_MIN_PIXELS = 112 * 112

NOWHERE = ("none.invalid",)
"""The domains that the launcher lets vLLM fetch from: none."""


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


_SCREEN = Size(1080, 2400)


def load_size(url: str, domains: Sequence[str] = NOWHERE) -> Size:
    """Read the size of the picture in a base64 ``data:`` URL; refuse every other as a locked-down vLLM does.

    What one of the ``domains`` would send is taken for a screenshot of 1080 x 2400, unseen.
    """
    parts = urlsplit(url[:4096])
    if parts.scheme in ("http", "https"):
        if parts.hostname in domains:
            return _SCREEN
        allowed = f"The URL must be from one of the allowed domains: {list(domains)}"
        raise Refusal(f"{allowed}. Input URL domain: {parts.hostname}")
    if parts.scheme == "file":
        raise Refusal("Cannot load local files without `--allowed-local-media-path`.", status=500)
    if parts.scheme != "data":
        raise Refusal("The URL must be either a HTTP, data or file URL.")
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        raise Refusal("Only base64 data URLs are supported for now.", status=501)
    try:
        size = _size(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError) as error:
        raise Refusal(str(error)) from error
    if size is None:
        raise Refusal("Failed to load image: cannot identify image file <_io.BytesIO object>")
    return size


def image_tokens(size: Size) -> int:
    """Count as GLM-4.1V's image processor does: 1080 x 2400 costs 3108 tokens."""
    width, height = (max(_PATCH, round(side / _PATCH) * _PATCH) for side in size)
    pixels = 2 * size.width * size.height
    if 2 * width * height > _MAX_PIXELS:
        shrink = math.sqrt(pixels / _MAX_PIXELS)
        width, height = (max(_PATCH, math.floor(side / shrink / _PATCH) * _PATCH) for side in size)
    elif 2 * width * height < _MIN_PIXELS:
        grow = math.sqrt(_MIN_PIXELS / pixels)
        width, height = (math.ceil(side * grow / _PATCH) * _PATCH for side in size)
    return (width // _PATCH) * (height // _PATCH)


def _size(data: bytes) -> Size | None:
    size = None
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 24:
        size = Size(_big(data[16:20]), _big(data[20:24]))
    elif data.startswith(b"\xff\xd8"):
        size = _jpeg_size(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP" and len(data) >= 30:
        size = _webp_size(data)
    return size if size and min(size) > 0 else None


def _jpeg_size(data: bytes) -> Size | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header: height, then width
            return Size(_big(data[at + 7 : at + 9]), _big(data[at + 5 : at + 7]))
        bare = marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD7  # no length follows
        at += (1 if marker == 0xFF else 2) if bare else 2 + _big(data[at + 2 : at + 4])
    return None


def _webp_size(data: bytes) -> Size | None:
    form = data[12:16]
    if form == b"VP8 ":
        return Size(_little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF)
    if form == b"VP8L":
        bits = _little(data[21:25])
        return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if form == b"VP8X":
        return Size(_little(data[24:27]) + 1, _little(data[27:30]) + 1)
    return None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")
