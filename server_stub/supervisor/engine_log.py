"""Follow a log that is being written and rotated by somebody else."""

from __future__ import annotations

import os
import re
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["EngineLog"]

PIECE = 1 << 20
LINE_CHARACTERS = 4000
"""Longer lines are cut: an engine that writes no ends of lines must not fill our memory or the terminal."""
KEPT_LINES = 2000
"""The traceback that names a root cause is followed by those of every process that saw it."""
TAIL_LINES = 40

_ERROR = re.compile(r"Error\b|Exception\b|ERROR\b")
# What libraries of vLLM say at its every end, 45 lines that would hide the ones before them.
_FAREWELL = re.compile(r"^ - leaked |^ - \.\.\. skipped|nanobind|resource_tracker")


class EngineLog:
    """Gives the lines that came since the last look; keeps the last ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._is_closed = False
        self._begun = b""
        self.kept: deque[str] = deque(maxlen=KEPT_LINES)
        """The last lines that were read."""

    @property
    def tail(self) -> str:
        """The very last of them, for people."""
        return "\n".join([*self.kept][-TAIL_LINES:])

    @property
    def last_line(self) -> str:
        """The last one with text in it."""
        return next((line for line in reversed(self.kept) if line.strip()), "")

    @property
    def last_error(self) -> str:
        """The last one that speaks of an error; the last one of all if there is none."""
        return next((line for line in reversed(self.kept) if _ERROR.search(line)), self.last_line)

    def lines(self) -> list[str]:
        """The complete lines since; a progress bar, which rewrites its line, counts each time. At most 1 MiB."""
        return self._split(self._read())

    def rest(self) -> list[str]:
        """All lines until the end, for when nobody writes any more."""
        lines = []
        while data := self._read():
            lines += self._split(data)
        whole, self._begun = [self._begun] if self._begun else [], b""
        return lines + self._kept(whole)

    def close(self) -> None:
        """Close the file; there are no more lines."""
        self._is_closed = True
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _split(self, data: bytes) -> list[str]:
        *whole, self._begun = re.split(rb"[\r\n]+", self._begun + data)
        if len(self._begun) > PIECE:  # no line, whatever it is
            whole, self._begun = [*whole, self._begun], b""
        return self._kept(whole)

    def _kept(self, raw: list[bytes]) -> list[str]:
        lines = [line[:LINE_CHARACTERS].decode(errors="replace") for line in raw]
        self.kept.extend(line for line in lines if not _FAREWELL.search(line))
        return lines

    def _read(self) -> bytes:
        """The next bytes: of the file that was opened, until its end, and then of the one that took its place."""
        with suppress(OSError):
            if self._is_closed:
                return b""
            self._file = self._file or self.path.open("rb")
            if data := self._file.read(PIECE):
                return data
            if not os.path.samestat(self.path.stat(), os.fstat(self._file.fileno())):
                data = self._file.read()  # what came between the two looks
                self._close_file()
                return data or self._read()
        return b""
