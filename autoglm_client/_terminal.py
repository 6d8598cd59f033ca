"""Text for people: labelled sections that grow, colours on a terminal only, and no control characters from a model."""

from __future__ import annotations

import os
import re
from typing import TextIO

__all__ = ["Terminal"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a model's text could hold the terminal's own commands
_DIM, _GREEN, _YELLOW, _RED = "2", "32", "33", "31"
_STATES = {"ok": _GREEN, "note": _YELLOW, "FAIL": _RED}


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
        self._out.write(self._painted(_CONTROL.sub("�", text), _DIM) if dim else _CONTROL.sub("�", text))
        self._out.flush()

    def line(self, text: str) -> None:
        """Write a line of its own."""
        self._end_section()
        if text:
            self._out.write(f"{_CONTROL.sub('�', text)}\n" if not self._in_color else f"{text}\n")
        self._out.flush()

    def colored(self, state: str) -> str:
        """A state of a check, four characters wide."""
        return self._painted(f"{state:4}", _STATES[state])

    def _painted(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._in_color else text

    def _end_section(self) -> None:
        if self._section:
            self._out.write("\n")
            self._section = ""
