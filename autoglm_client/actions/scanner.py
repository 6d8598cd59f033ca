"""Tell the action of a growing answer as soon as nothing that may follow can change it."""

from __future__ import annotations

import re

from ..errors import ActionError
from .search import find_call, find_certain
from .vocabulary import Action

__all__ = ["ActionScanner"]

_CALL_BEGINS = re.compile(r"[ \t\u3000]*(?:<tool_call>)?\s*[a-z]\w*\s*[(（]", re.I)
_LONGEST_BEGINNING = 64
_BUDGET = 8


class ActionScanner:
    """Feed it the answer, without tags and thinking, in any cuts.

    Every try reads the whole text, so tries are paid from a budget that grows with the text: the cost stays linear,
    and the action of a text built to cause many tries is only told at its end.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = 0
        self._spent = 0
        self._line = ""
        self._call_began = False

    def feed(self, text: str) -> Action | None:
        """Take the next piece; the action once it is certain, and later the same again or nothing."""
        self._pieces.append(text)
        self._size += len(text)
        if not self._call_began:
            self._watch_lines(text)
        if not self._call_began or not (")" in text or "）" in text):
            return None
        if self._spent + self._size > _BUDGET * self._size + 4096:
            return None
        self._spent += self._size
        return find_certain(self._whole())

    def close(self) -> Action | None:
        """The answer has ended: the action that it holds, if any."""
        try:
            found = find_call(self._whole())
        except ActionError:
            return None
        return found.action if found else None

    def _whole(self) -> str:
        self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def _watch_lines(self, text: str) -> None:
        """Tries are worth their cost only from the first line on that may begin with a call."""
        for line in text.splitlines(keepends=True):
            self._line = (self._line + line)[:_LONGEST_BEGINNING]
            self._call_began = self._call_began or bool(_CALL_BEGINS.match(self._line))
            if line.endswith(("\n", "\r")):
                self._line = ""
