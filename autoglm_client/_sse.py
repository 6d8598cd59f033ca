"""Server-sent events from any cuts of a byte stream.

sseclient-py reads the fields of an event. It wants whole events, and takes quadratic time for one of many pieces or many
lines; so the framing, which is where a stream gets cut, is done here, in linear time and with a limit.
"""

from __future__ import annotations

from collections.abc import Iterator

from sseclient import SSEClient

from . import defaults
from .errors import EventTooLarge, InvalidReply

__all__ = ["SSEDecoder"]

_BOM = b"\xef\xbb\xbf"


class SSEDecoder:
    """Feed it bytes, get the data of every event that is whole. There is no close: an unfinished event is not an event."""

    def __init__(self, max_event_bytes: int = defaults.MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._after_cr = False
        self._at_start = True
        self._lines: list[bytes] = []
        self._client = SSEClient(self._lines)  # type: ignore[arg-type]  # reads it anew for every event

    def feed(self, data: bytes) -> Iterator[str]:
        """Take the next bytes, cut anywhere; yield the data of the events that they complete.

        A generator, so that the events before a broken one still come.
        """
        data = self._with_plain_line_ends(data)
        seam = max(len(self._buffer) - 1, 0)  # the blank line may lie across the cut
        self._buffer += data
        if self._buffer.find(b"\n\n", seam) >= 0:
            *blocks, rest = bytes(self._buffer).split(b"\n\n")
            self._buffer = bytearray(rest)
            for block in blocks:
                if (event := self._read(block)) is not None:
                    yield event
        self._check_size(len(self._buffer))

    def _with_plain_line_ends(self, data: bytes) -> bytes:
        """Turn CRLF and CR into LF, also where CR and LF come in two pieces."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if data:
            self._after_cr = False
        return data

    def _read(self, block: bytes) -> str | None:
        self._check_size(len(block))
        if self._at_start:
            self._at_start = False
            block = block.removeprefix(_BOM)
        self._lines[:] = [line + b"\n\n" for line in block.split(b"\n")]
        try:
            data = [event.data for event in self._client.events()]
        except UnicodeDecodeError as error:
            raise InvalidReply(f"an event of the stream is not valid UTF-8: {error}") from error
        return "\n".join(data) if data else None

    def _check_size(self, size: int) -> None:
        if size > self._max_event_bytes:
            raise EventTooLarge(f"one event of the stream is larger than {self._max_event_bytes} bytes")
