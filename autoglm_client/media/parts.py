"""Turn a screenshot, a sound or a film into the part of a message that carries it."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Iterable
from typing import Literal, NotRequired, TypeAlias, TypedDict, TypeVar

from ..errors import ConfigurationError, MediaError
from .header import PictureFormat, mime, read_header
from .scaling import Pixels, encode, has_pixels, pixels_name, pixels_size, shrink
from .source import Source, read, remote

__all__ = [
    "MAX_CLIP_BYTES",
    "MAX_DECODED_PIXELS",
    "MAX_IMAGE_BYTES",
    "MAX_PIXELS",
    "AudioPart",
    "AudioUrlPart",
    "ImagePart",
    "ImageSource",
    "MediaSource",
    "VideoPart",
    "audio",
    "image",
    "image_size",
    "video",
]

MAX_PIXELS = 2_600_000
"""Screens of 1080 x 2400 just fit. The model sees 2.5 million: its ``max_pixels`` counts a picture as two frames."""
MAX_DECODED_PIXELS = 25_000_000
"""Phone screens have less than 6 million; a PNG of 22 kB can hold 179 million and cost 700 MB once decoded."""
MAX_IMAGE_BYTES = 20_000_000
MAX_CLIP_BYTES = 100_000_000

AudioFormat = Literal["wav", "mp3", "flac", "ogg"]
T = TypeVar("T")
Detail = Literal["auto", "low", "high"]

AUDIO_FORMATS: tuple[tuple[AudioFormat, re.Pattern[bytes]], ...] = (
    ("wav", re.compile(rb"RIFF.{4}WAVE", re.DOTALL)),
    ("mp3", re.compile(rb"ID3|\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]")),  # a tag, or the start of an MPEG audio frame
    ("flac", re.compile(rb"fLaC")),
    ("ogg", re.compile(rb"OggS")),
)
VIDEO_TYPES = (
    ("video/quicktime", re.compile(rb".{4}ftypqt", re.DOTALL)),
    ("video/mp4", re.compile(rb".{4}ftyp(?!hei|hev|mif1|msf1|avi[fs]|M4A)", re.DOTALL)),  # those are stills and sound
    ("video/webm", re.compile(rb"\x1a\x45\xdf\xa3.{,64}webm", re.DOTALL)),
    ("video/x-matroska", re.compile(rb"\x1a\x45\xdf\xa3")),
    ("video/x-msvideo", re.compile(rb"RIFF.{4}AVI ", re.DOTALL)),
)


class Url(TypedDict):
    """Where the server finds the bytes: a data URI, or a URL that it fetches."""

    url: str
    detail: NotRequired[Detail]


class AudioData(TypedDict):
    """Base64 and its format."""

    data: str
    format: AudioFormat


class ImagePart(TypedDict):
    """A picture in a message."""

    type: Literal["image_url"]
    image_url: Url


class AudioPart(TypedDict):
    """A sound in a message."""

    type: Literal["input_audio"]
    input_audio: AudioData


class AudioUrlPart(TypedDict):
    """A sound that the server fetches."""

    type: Literal["audio_url"]
    audio_url: Url


class VideoPart(TypedDict):
    """A film in a message."""

    type: Literal["video_url"]
    video_url: Url


MediaSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview
ImageSource: TypeAlias = MediaSource | Pixels


def image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, detail: Detail | None = None) -> ImagePart:
    """Make a picture for a message from a path, bytes, a data URI, a Pillow image, a numpy array or a URL.

    A PNG, JPEG or WebP file is sent byte for byte. One of more than ``max_pixels`` is first scaled down, which needs
    Pillow (``pip install "autoglm-client[images]"``); the model's coordinates are relative, so they do not change.
    Other formats go through Pillow: ``image(PIL.Image.open("screen.bmp"))``. An array is height x width (x 3 or 4) of
    uint8 in the order RGB; OpenCV's is BGR: pass ``frame[..., ::-1]``.

    A ``str`` is a URL, a data URI or else a path, never bare base64. An http or https URL stays as it is: **the
    server fetches it**, this client never does, and a call sends it only with ``allow_remote_images=True``. ``detail``
    is for other models; AutoGLM ignores it.

    Raises `MediaError`, which names the file, for one that is missing, cut off, of another type, larger than 20 MB or
    of more than 25 million pixels. The last two are seen before anything is decoded.
    """
    if max_pixels < 1:
        raise ConfigurationError(f"max_pixels={max_pixels}: a picture has at least one pixel")
    url = remote(source)
    if url is None:
        kind, data = _drawn(source, max_pixels) if has_pixels(source) else _read(source, max_pixels)
        url = _data_uri(mime(kind), data)
    content: Url = {"url": url}
    if detail is not None:
        content["detail"] = detail
    return {"type": "image_url", "image_url": content}


def image_size(source: ImageSource) -> tuple[int, int]:
    """Return width and height as stored, before an EXIF rotation and before `image` scales; nothing is decoded."""
    if remote(source):
        raise MediaError("image URL: the size of a remote picture is not known without fetching it")
    if has_pixels(source):
        return pixels_size(source)
    found = read(source, "image", MAX_IMAGE_BYTES)
    return read_header(found.data, found.name).size


def audio(source: MediaSource) -> AudioPart | AudioUrlPart:
    """Make a sound for a message from WAV, MP3, FLAC or Ogg, or from a URL that the server fetches.

    **AutoGLM-Phone-9B does not hear**: vLLM answers 400. This is for other models behind the same client.
    """
    if url := remote(source):
        return {"type": "audio_url", "audio_url": {"url": url}}
    found = read(source, "audio", MAX_CLIP_BYTES)
    kind = _recognise(found, AUDIO_FORMATS, "WAV, MP3, FLAC or Ogg")
    return {"type": "input_audio", "input_audio": {"data": _base64(found.data), "format": kind}}


def video(source: MediaSource) -> VideoPart:
    """Make a film for a message from MP4, QuickTime, WebM, Matroska or AVI, or from a URL that the server fetches.

    This is for other models behind the same client: AutoGLM-Phone-9B was made for screenshots, and servers of it
    commonly switch video off, so that vLLM answers 400.
    """
    url = remote(source)
    if url is None:
        found = read(source, "video", MAX_CLIP_BYTES)
        url = _data_uri(_recognise(found, VIDEO_TYPES, "MP4, QuickTime, WebM, Matroska or AVI"), found.data)
    return {"type": "video_url", "video_url": {"url": url}}


def _drawn(source: Pixels, max_pixels: int) -> tuple[PictureFormat, bytes]:
    size = _checked(pixels_size(source), pixels_name(source))
    return encode(source, _fitted(size, max_pixels))


def _read(source: ImageSource, max_pixels: int) -> tuple[PictureFormat, bytes]:
    name, data, declared = read(source, "image", MAX_IMAGE_BYTES)
    header = read_header(data, name)
    if declared not in (None, mime(header.format), mime(header.format).replace("jpeg", "jpg")):
        raise MediaError(f"{name}: it declares {declared}, but holds {mime(header.format)}")
    if math.prod(_checked(header.size, name)) > max_pixels:
        data = shrink(data, header, _fitted(header.size, max_pixels), name)
    return header.format, data


def _checked(size: tuple[int, int], name: str) -> tuple[int, int]:
    width, height = size
    if not width * height:
        raise MediaError(f"{name}: {width} x {height} is no picture")
    if width * height > MAX_DECODED_PIXELS:
        raise MediaError(
            f"{name}: {width} x {height} pixels are more than {MAX_DECODED_PIXELS:,}, so it was not decoded; "
            "scale it down first"
        )
    return size


def _fitted(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    scale = math.sqrt(max_pixels / math.prod(size))
    if scale >= 1:
        return size
    width = min(max(1, int(size[0] * scale)), max_pixels)
    return width, min(max(1, int(size[1] * scale)), max_pixels // width)


def _recognise(found: Source, known: Iterable[tuple[T, re.Pattern[bytes]]], names: str) -> T:
    for kind, start in known:
        if start.match(found.data):
            return kind
    raise MediaError(f"{found.name}: this is not {names}; convert it first")


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{_base64(data)}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
