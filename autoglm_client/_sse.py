"""Server-sent events from any cuts of a byte stream.

sseclient-py reads the fields of an event. It wants whole events, and takes quadratic time for one of many pieces or
many lines; so the framing, which is where a stream gets cut, is done here, in linear time and with a limit. An event
of one ``data`` line, as every server writes them, is read here too, in a third of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NoReturn

from sseclient import SSEClient

from . import defaults
from .errors import EventTooLarge, InvalidReply

__all__ = ["SSEDecoder"]

_BOM = b"\xef\xbb\xbf"


class SSEDecoder:
    """Feed it bytes, get the data of every whole event. There is no close: an unfinished event is not an event."""

    def __init__(self, max_event_bytes: int = defaults.MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._after_cr = False
        self._at_start = True
        self._lines: list[bytes] = []
        self._client = SSEClient(self._lines)  # type: ignore[arg-type]  # reads it anew for every event

    def feed(self, data: bytes) -> Iterable[str]:
        """Take the next bytes, cut anywhere; give the data of the events that they complete."""
        if (
            data[-2:] == b"\n\n"  # the usual cut: one event of one line
            and data[:7] == b"data: {"
            and data.find(b"\n") == len(data) - 2
            and b"\r" not in data
            and not (self._buffer or self._after_cr or self._at_start)
            and len(data) <= self._max_event_bytes
        ):
            return (self._text(data[6:-2]),)
        return self._events(data)

    def _events(self, data: bytes) -> Iterator[str]:
        """A generator, so that the events before a broken one still come."""
        if self._after_cr or b"\r" in data:
            data = self._with_plain_line_ends(data)
        for block in self._whole_events(data):
            if (block := block.strip(b"\n")) and (event := self._read(block)) is not None:
                yield event
        if len(self._buffer) - self._buffer.endswith(b"\n") > self._max_event_bytes:  # that may be half a blank line
            self._refuse()

    def _with_plain_line_ends(self, data: bytes) -> bytes:
        """Turn CRLF and CR into LF, also where CR and LF come in two pieces."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = self._after_cr or data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _whole_events(self, data: bytes) -> list[bytes]:
        if not self._buffer:
            if data.startswith(b"\n"):  # more than one blank line
                self._at_start = False
                data = data.lstrip(b"\n")
            if data.endswith(b"\n\n"):
                return data.split(b"\n\n")
        seam = max(len(self._buffer) - 1, 0)  # the blank line may lie across the cut
        self._buffer += data
        if self._buffer.find(b"\n\n", seam) < 0:
            return []
        end = self._buffer.rindex(b"\n\n")
        whole = bytes(memoryview(self._buffer)[:end])
        self._buffer = self._buffer[end + 2 :]
        return whole.split(b"\n\n")

    def _read(self, block: bytes) -> str | None:
        if len(block) > self._max_event_bytes:
            self._refuse()
        if self._at_start:
            self._at_start = False
            block = block.removeprefix(_BOM)
        if b"\n" not in block and block.startswith(b"data: "):
            return self._text(memoryview(block)[6:])
        if block.count(b"\n") > defaults.MAX_EVENT_LINES:
            raise EventTooLarge(f"one event of the stream has more than {defaults.MAX_EVENT_LINES} lines")
        return self._read_fields(block)

    def _text(self, data: bytes | memoryview) -> str:
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidReply(f"an event of the stream is not valid UTF-8: {error}") from error

    def _read_fields(self, block: bytes) -> str | None:
        lines = [line for line in block.split(b"\n") if not line.startswith(b":")]  # a comment may be any bytes
        self._text(b"\n".join(lines))
        self._lines[:] = [line + b"\n\n" for line in lines]
        data = [event.data for event in self._client.events()]
        return "\n".join(data) if data else None

    def _refuse(self) -> NoReturn:
        raise EventTooLarge(f"one event of the stream is larger than {self._max_event_bytes} bytes")
