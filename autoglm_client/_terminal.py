"""Text for people: labelled sections that grow, colours on a terminal only, and no control characters from a model."""

from __future__ import annotations

import os
import re
from typing import TextIO

__all__ = ["Terminal", "visible"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a model's text could hold the terminal's own commands
_DIM, _GREEN, _YELLOW, _RED = "2", "32", "33", "31"
_STATES = {"ok": _GREEN, "note": _YELLOW, "FAIL": _RED}


def visible(text: str) -> str:
    """The text without control characters."""
    return _CONTROL.sub("�", text)


class Terminal:
    """Writes to a stream, plain when it is piped or ``NO_COLOR`` is set."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._in_color = out.isatty() and "NO_COLOR" not in os.environ
        self._section = ""

    def write(self, section: str, text: str, *, dim: bool = False) -> None:
        """Let a section grow; its label is written where it begins."""
        if section != self._section:
            self._end_section()
            self._section = section
            self._out.write(f"{section:10}")
        self._out.write(self._painted(visible(text), _DIM) if dim else visible(text))
        self._out.flush()

    def line(self, text: str) -> None:
        """Write a line of its own."""
        self._end_section()
        if text:
            self._out.write(f"{visible(text)}\n")
        self._out.flush()

    def finding(self, state: str, text: str) -> None:
        """Write a line that begins with the state of a check."""
        self._out.write(f"{self._painted(f'{state:4}', _STATES[state])}  {visible(text)}\n")

    def _painted(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._in_color else text

    def _end_section(self) -> None:
        if self._section:
            self._out.write("\n")
            self._section = ""
