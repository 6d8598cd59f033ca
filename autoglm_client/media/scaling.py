"""What needs Pillow: scaling a file down, and encoding pixels that are not a file yet. Imported only when used."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from ..errors import MediaError
from .header import Header, PictureFormat

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Pixels", "encode", "has_pixels", "pixels_name", "pixels_size", "shrink"]

JPEG_QUALITY = 90


class Pixels(Protocol):
    """A numpy array, a Pillow image, or anything else that shows its memory in numpy's way."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Where the pixels are, and what they look like."""


def has_pixels(source: object) -> TypeGuard[Pixels]:
    """Tell arrays and Pillow images from the rest; asks the class, since asking a Pillow image would decode it."""
    return hasattr(type(source), "__array_interface__") and not isinstance(source, (str, bytes))  # numpy has such, too


def pixels_name(source: Pixels) -> str:
    """Name it for error messages."""
    return "Pillow image" if _is_pillow(source) else "image array"


def pixels_size(source: Pixels) -> tuple[int, int]:
    """Return width and height; `MediaError` for an array that is not a picture."""
    if _is_pillow(source):
        return source.size
    layout = source.__array_interface__
    shape, numbers = tuple(layout["shape"]), layout["typestr"]
    if numbers != "|u1" or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise MediaError(f"image array: {shape} of {numbers}; it must be height x width (x 3 or 4) of uint8, 0 to 255")
    return shape[1], shape[0]


def encode(source: Pixels, size: tuple[int, int]) -> tuple[PictureFormat, bytes]:
    """Make a file of this size from the pixels: PNG, unless they came from a JPEG or WebP file."""
    name = pixels_name(source)
    pillow = _import(name)
    with _translated(name):
        picture: Image = source if _is_pillow(source) else pillow.fromarray(source)
        kind = _family(picture)
        return kind, _save(picture, size, kind)


def shrink(data: bytes, header: Header, size: tuple[int, int], name: str) -> bytes:
    """Scale a picture file down to this size, in its own format."""
    pillow = _import(name)
    with _translated(name), pillow.open(io.BytesIO(data), formats=[header.format]) as picture:
        if picture.size != header.size:  # or the limit was held against the wrong number
            raise ValueError(f"its header says {header.size}, its content {picture.size}")
        return _save(picture, size, header.format)


def _is_pillow(source: object) -> TypeGuard[Image]:
    pillow = sys.modules.get("PIL.Image")  # whoever holds a Pillow image has imported Pillow
    return pillow is not None and isinstance(source, pillow.Image)


def _import(name: str) -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise MediaError(
            f"{name}: this picture must be scaled or encoded, and that needs Pillow: "
            'pip install "autoglm-client[images]"'
        ) from error
    return Image


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more on broken files
        raise MediaError(f"{name}: Pillow cannot read it ({error}); save it again as PNG") from error


def _family(picture: Image) -> PictureFormat:
    if picture.format == "WEBP":
        return "WEBP"
    return "JPEG" if picture.format == "JPEG" and not picture.has_transparency_data else "PNG"


def _save(picture: Image, size: tuple[int, int], kind: PictureFormat) -> bytes:
    from PIL.Image import Resampling

    plain = _plain(picture)
    if plain.size != size:
        plain = plain.resize(size, resample=Resampling.LANCZOS)
    buffer = io.BytesIO()
    # The EXIF data holds the rotation, which vLLM applies; the colour profile nobody reads, and it may be for CMYK.
    info = {"exif": picture.info.get("exif", b""), "icc_profile": None}
    # Level 3 packs a screen of text as small as the default 6 does, in half the time (measured at 2.5 million pixels).
    plain.save(buffer, kind, quality=JPEG_QUALITY, compress_level=3, **info)
    return buffer.getvalue()


def _plain(picture: Image) -> Image:
    """Gray, RGB or RGBA of 8 bits, which every decoder on the other side reads alike."""
    if picture.mode.startswith("I"):  # 16 bits; a plain conversion would cut all above 255 to white
        return picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
