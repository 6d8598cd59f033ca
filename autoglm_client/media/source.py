"""Get the bytes of a file, a data URI or a buffer, and refuse what cannot be read safely before it is read."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from ..errors import MediaError

__all__ = ["Kind", "Source", "read", "remote"]

Kind = Literal["image", "audio", "video"]

SCHEME = re.compile(r"file:|([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "UklGR")  # PNG, JPEG, and WebP or WAV
SHOWN = 120


class Source(NamedTuple):
    """Bytes and where they came from."""

    name: str
    """How error messages call it."""
    data: bytes
    declared: str | None = None
    """The type that a data URI states, in lower case."""


def remote(source: object) -> str | None:
    """Return an http or https URL as it is, and None for what is to be read here."""
    if not isinstance(source, str) or not (scheme := SCHEME.match(source)):
        return None
    name = _shown(source)
    if scheme[1] is None or scheme[1].lower() == "file":
        raise MediaError(f"{name}: a file URL would read the server's disk and is not sent; pass the path alone")
    if scheme[1].lower() not in ("http", "https"):
        raise MediaError(f"{name}: only http and https URLs are sent; get the file yourself and pass its path or bytes")
    if not _host(source):
        raise MediaError(f"{name}: the URL names no host")
    return source


def read(source: object, kind: Kind, limit: int) -> Source:
    """Read a path, a data URI or a buffer: at least one byte, and at most ``limit``."""
    if isinstance(source, str) and source[:5].lower() == "data:":
        found = _from_data_uri(source, kind, limit)
    elif isinstance(source, (str, os.PathLike)):
        found = _from_file(source, limit)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        found = Source(f"{kind} bytes", bytes(source))
    else:
        raise MediaError(f"{kind}: a {type(source).__name__} cannot be sent; pass a path, bytes, a data URI or a URL")
    if not found.data:
        raise MediaError(f"{found.name}: there is nothing in it")
    if len(found.data) > limit:
        raise _too_large(found.name, limit)
    return found


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _from_data_uri(uri: str, kind: Kind, limit: int) -> Source:
    name = f"{kind} data URI"
    head, comma, body = uri[5:].partition(",")
    declared, *parameters = head.lower().split(";")
    if not comma or "base64" not in parameters:
        raise MediaError(f"{name}: it must read data:{kind}/...;base64,...")
    if not declared.startswith(f"{kind}/"):
        raise MediaError(f"{name}: it declares {declared or 'no type'!r}, not {kind}/...")
    if len(body) // 4 * 3 > limit + 3:
        raise _too_large(name, limit)
    try:
        return Source(name, base64.b64decode(body, validate=True), declared)
    except (binascii.Error, ValueError) as error:
        raise MediaError(f"{name}: the part after the comma is not base64 ({error})") from error


def _from_file(path: str | os.PathLike[str], limit: int) -> Source:
    name = _shown(os.fsdecode(path))
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            data = file.read(limit + 1) if regular else b""
    except (OSError, ValueError) as error:
        raise MediaError(f"{name}: {_why(error, path)}") from error
    if not regular:
        raise MediaError(f"{name}: this is a pipe or a device, not a file; read it yourself and pass the bytes")
    return Source(name, data)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that nobody writes to would block for ever


def _why(error: OSError | ValueError, path: str | os.PathLike[str]) -> str:
    if isinstance(path, str) and path.startswith(BASE64_STARTS):
        return "no such file, and it looks like base64: pass base64.b64decode(...) or a data URI"
    match error:
        case FileNotFoundError():
            return "no such file; check the path"
        case IsADirectoryError():
            return "this is a directory; name a file in it"
        case PermissionError():
            return "no permission to read it"
    return f"it cannot be read ({error.strerror if isinstance(error, OSError) else error})"


def _too_large(name: str, limit: int) -> MediaError:
    return MediaError(f"{name}: larger than {limit / 1e6:g} MB; scale it down or compress it")


def _shown(path: str) -> str:
    """In quotes, so that control characters cannot forge a line of a log, and short, should it be a whole file."""
    return repr(path if len(path) <= SHOWN else f"{path[:SHOWN]}…")
