"""Bodies that were compressed unasked: inflated in small pieces, so that what grows without end is noticed in time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from . import defaults
from .errors import InvalidReply, StreamInterrupted

if TYPE_CHECKING:
    from zlib import _Decompress

__all__ = ["Inflater", "inflater_for"]

_PIECE = 64 * 1024
_READABLE = {"gzip", "x-gzip", "deflate"}
_COMPRESSIONS = _READABLE | {"br", "zstd", "compress", "x-compress"}
_MAGIC = b"\x1f"  # the first byte of gzip
_GZIP, _ZLIB, _RAW = 31, 15, -15  # zlib's numbers for what is around the compressed data


class Inflater:
    """Feed it the compressed bytes, cut anywhere; get what is in them, never more than 64 kB at once; then close it."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._taken = 0
        self._member: _Decompress | None = None
        self._ended = False
        self._over = False
        """Whether what still comes is padding."""
        self._broken = ""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes; what holds nothing gives an empty piece, so that its reader looks at the clock."""
        if self._encoding not in _READABLE:
            raise InvalidReply(f"the server compressed its answer ({self._encoding}), though it was asked not to")
        self._taken += len(data)
        if self._taken > defaults.MAX_BODY_BYTES:
            raise InvalidReply(f"the server's answer is larger than {defaults.MAX_BODY_BYTES} bytes")
        piece = b""
        while data or len(piece) == _PIECE:  # a full one may have left something inside zlib
            piece, data = self._inflate(data)
            yield piece
            if self._broken:
                raise InvalidReply(self._broken)

    def close(self) -> None:
        """The body has ended; :class:`StreamInterrupted` when the compressed data has not."""
        if self._member is not None:
            raise StreamInterrupted("the answer ended before it was complete (it is compressed, and was cut)")

    def _inflate(self, data: bytes) -> tuple[bytes, bytes]:
        """A piece of what the data holds, and the data that is left."""
        if self._member is None:
            if self._ended:
                data = data.lstrip(b"\0")  # some pad to a whole block; else another member follows (RFC 1952, 2.2)
                self._over = self._over or data[:1] not in {b"", _MAGIC}
            if self._over or not data:
                return b"", b""
            self._member = zlib.decompressobj(self._wrapping(data[0]))
        before = self._member.copy()
        try:
            piece = self._member.decompress(data, _PIECE)
        except zlib.error as error:
            self._broken = f"the server's compressed answer is broken: {error}"
            return _up_to_the_error(before, data), b""
        if not self._member.eof:
            return piece, self._member.unconsumed_tail
        data, self._member, self._ended = self._member.unused_data, None, True
        return piece, data

    def _wrapping(self, first: int) -> int:
        """By "deflate" some servers mean the bare data, and not zlib's wrapping (RFC 9110, 8.4.1.2)."""
        if self._encoding != "deflate":
            return _GZIP
        return _ZLIB if first & 0x0F == zlib.DEFLATED else _RAW


def _up_to_the_error(member: _Decompress, data: bytes) -> bytes:
    """What zlib had inflated, and throws away with the error; less than a piece, or it would have stopped before."""
    pieces: list[bytes] = []
    with suppress(zlib.error):
        pieces.extend(member.decompress(data[at : at + 1]) for at in range(len(data)))
    return b"".join(pieces)


def inflater_for(encoding: str | None) -> Inflater | None:
    """Who reads a body of this ``Content-Encoding``, if it is compressed; names that nobody knows are passed over."""
    names = [name.strip().lower() for name in (encoding or "").split(",")]
    compressions = [name for name in names if name in _COMPRESSIONS]
    return Inflater(", ".join(compressions)) if compressions else None
