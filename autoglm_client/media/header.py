"""Read a picture's type and size from its header with the standard library, and see whether the file is whole."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from ..errors import MediaError

__all__ = ["Header", "PictureFormat", "mime", "read_header"]

PictureFormat = Literal["PNG", "JPEG", "WEBP"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"

# A JPEG marker: not a stuffed 0xFF00 and not one of the restart marks, which both stand inside the coded picture.
JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
JPEG_END = 0xD9
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # these three hold tables

NO_PICTURES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"GIF8"), "GIF"),
    (re.compile(rb"BM"), "BMP"),
    (re.compile(rb"II\*\0|MM\0\*"), "TIFF"),
    (re.compile(rb".{4}ftypavi[fs]", re.DOTALL), "AVIF"),
    (re.compile(rb".{4}ftyp(?:hei|hev|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF", re.DOTALL), "audio or video"),
    (re.compile(rb"%PDF"), "PDF"),
    (re.compile(rb"\s*<(?:!doctype html|html)", re.IGNORECASE), "HTML (a failed download?)"),
    (re.compile(rb"\s*<(?:svg|\?xml)", re.IGNORECASE), "SVG or XML"),
)


class Header(NamedTuple):
    """What a picture says about itself; the size is the stored one, before any EXIF rotation."""

    format: PictureFormat
    """The name that Pillow uses."""
    width: int
    height: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.width, self.height


def mime(kind: PictureFormat) -> str:
    """Return the type to declare in a data URI."""
    return f"image/{kind.lower()}"


class _Unusable(Exception):
    """Why the bytes cannot be sent."""


_CUT = "the file is cut off; save or download it again"
_BROKEN = "the file is damaged; save or download it again"


def read_header(data: bytes, name: str) -> Header:
    """Read the type and size of a whole PNG, JPEG or WebP file; all else is a `MediaError` that starts with ``name``.

    Nothing is decoded: the blocks of the file are only stepped over, which is enough to see that the end is there.
    """
    try:
        return _read(data)
    except _Unusable as error:
        raise MediaError(f"{name}: {error}") from None


def _read(data: bytes) -> Header:
    if data.startswith(PNG_SIGNATURE):
        return _png(data)
    if data.startswith(JPEG_START):
        return _jpeg(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    raise _Unusable(_what_else(data))


def _png(data: bytes) -> Header:
    if len(data) < 24:
        raise _Unusable(_CUT)
    if data[12:16] != b"IHDR":
        raise _Unusable(_BROKEN)
    position = len(PNG_SIGNATURE)
    kind = b""
    while kind != b"IEND":
        kind = data[position + 4 : position + 8]
        position += 12 + _big(data, position, 4)  # length, kind and checksum stand around the data
        if position > len(data):
            raise _Unusable(_CUT)
    return _sized("PNG", _big(data, 16, 4), _big(data, 20, 4))


def _jpeg(data: bytes) -> Header:
    frame = 0  # where the one with the size was found
    position = 2
    while found := JPEG_MARKER.search(data, position):
        position = found.end()
        marker = found[1][0]
        if marker == JPEG_END:
            break
        if marker in JPEG_FRAMES:
            if frame:  # decoders disagree on which of two frame headers counts: no way around the limit
                raise _Unusable(_BROKEN)
            frame = position
        position += _big(data, position, 2)
    else:
        raise _Unusable(_CUT)
    if not frame or _big(data, frame, 2) < 8:  # too short to hold a size
        raise _Unusable(_BROKEN)
    return _sized("JPEG", _big(data, frame + 5, 2), _big(data, frame + 3, 2))


def _webp(data: bytes) -> Header:
    kind, length = data[12:16], _little(data, 16, 4)
    if len(data) < 25 or len(data) < 8 + _little(data, 4, 4) or len(data) < 20 + length:
        raise _Unusable(_CUT)
    if kind == b"VP8X" and length >= 10:
        return _sized("WEBP", 1 + _little(data, 24, 3), 1 + _little(data, 27, 3))
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _little(data, 21, 4)
        return _sized("WEBP", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return _sized("WEBP", _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF)
    raise _Unusable(_BROKEN)


def _sized(kind: PictureFormat, width: int, height: int) -> Header:
    if not width * height:
        raise _Unusable(_BROKEN)
    return Header(kind, width, height)


def _big(data: bytes, position: int, size: int) -> int:
    return int.from_bytes(data[position : position + size], "big")


def _little(data: bytes, position: int, size: int) -> int:
    return int.from_bytes(data[position : position + size], "little")


def _what_else(data: bytes) -> str:
    if (
        PNG_SIGNATURE.startswith(data)
        or JPEG_START.startswith(data)
        or (len(data) < 12 and b"RIFF".startswith(data[:4]))
    ):
        return _CUT
    kind = next((kind for pattern, kind in NO_PICTURES if pattern.match(data)), None) or _text_or_unknown(data[:512])
    return f"this is {kind}, and only PNG, JPEG and WebP are sent; convert it, or open it with Pillow and pass that"


def _text_or_unknown(start: bytes) -> str:
    text = start.decode(errors="replace").rstrip("\ufffd")  # the last character may be cut
    return "of an unknown type" if "\0" in text or "\ufffd" in text or not text else "text"
