"""Where a quoted value ends, although the model does not escape the quotes inside it.

``text="say "hi" now"`` is not a literal of any language, yet the model writes it daily. So a quote ends a value only
where the call can go on behind it, and which of these quotes it is depends on the value:

- A value with a closed form (a name, a direction, a duration) ends at the first such quote.
- Free text (typed text, messages) is read as a proper literal first: its first unescaped quote ends it if the next
  keyword follows, or if the call ends there and the rest of the stretch holds an even number of quotes.
- Otherwise the quotes inside were not escaped. They come in pairs, so the text ends at the first quote that ends a
  whole call and has an even number of quotes before and behind it; where none has, at the last one that ends a call.

A stretch goes to the end of the text, or to the head of another call that comes after a quote that may end this one: a
second line of typed code belongs to the text, a second call of the model does not.

All positions are listed once and then looked up by bisection: ten thousand unclosed strings cost no more than one.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import Literal, NamedTuple

__all__ = ["CLOSING_MARK", "Closing", "Quotes"]

CLOSING_MARK = {'"': '"', "'": "'", "＂": "＂", "“": "”", "‘": "’"}

_KEY = r"""["'“]?+[A-Za-z_]\w{0,31}+["'”]?+\s*+[=:＝：]"""
_KNOWN_KEY = (
    r"""["'“]?+(?i:text|message|instruction|element|app|start|end|duration|clear|dist|direction)["'”]?+\s*+[=:＝：]"""
)
_SIMPLE = (
    r"""(?:True|False|None|true|false|null|-?[\d.]{1,20}|"[^"\\\n]{0,64}"|'[^'\\\n]{0,64}'|[\[(][-\d\s.,]{0,64}[\])])"""
)
_CALL_HEAD = r"(?<![A-Za-z0-9_.])(?i:do\s{0,8}[(（]\s{0,8}[\"'“]?action|finish\s{0,8}[(（])"

_NEXT_KEY = re.compile(rf"\s*+[,，]\s*+{_KEY}")
_CLOSER = re.compile(r"\s*+[,，]?+\s*+[)）}]")
_GOES_ON = re.compile(rf"\s*+(?:[,，]\s*+(?:{_KEY}|[)）}}])|[)）}}])")
# A whole call ends: at most four plain keywords (a bound keeps it linear), the bracket, then nothing more on the line.
_CALL_END = re.compile(
    rf"(?:\s*+[,，]\s*+{_KNOWN_KEY}\s*+{_SIMPLE}){{0,4}}+\s*+[,，]?+\s*+[)）}}]"
    rf"[ \t]*+(?:[;；。]?+[ \t]*+(?:[\r\n`]|\Z)|</?[\w|]|{_CALL_HEAD})"
)
_STRETCH_END = re.compile(rf"{_CALL_HEAD}|</?tool_call>")


class Closing(NamedTuple):
    """Where a value ends, and whether that had to be guessed."""

    position: int
    guessed: bool


class Quotes:
    """The quotes of one text. Unless the text is ``whole``, only what no continuation can change is answered."""

    def __init__(self, text: str, *, whole: bool) -> None:
        self._text = text
        self._whole = whole
        self._unescaped_by_mark: dict[str, list[int]] = {}
        self._going_on_by_mark: dict[str, list[int]] = {}
        self._call_ends_by_mark: dict[str, list[int]] = {}

    def closing(self, opening: int, form: Literal["free", "closed", "inner"]) -> Closing | None:
        """The end of the value that opens here, ``None`` if there is none (yet); ``inner`` is a string in a list."""
        mark = CLOSING_MARK[self._text[opening]]
        if form == "free":
            return self._free(opening + 1, mark)
        positions = self._going_on(mark) if form == "closed" else self._unescaped(mark)
        index = bisect_left(positions, opening + 1)
        return Closing(positions[index], guessed=False) if index < len(positions) else None

    def _free(self, start: int, mark: str) -> Closing | None:
        unescaped = self._unescaped(mark)
        index = bisect_left(unescaped, start)
        if index == len(unescaped):
            return None
        first = unescaped[index]
        if _NEXT_KEY.match(self._text, first + 1):
            return Closing(first, guessed=False)
        closes = bool(_CLOSER.match(self._text, first + 1))
        if closes and (stretch := self._stretch_end(first)) is not None and not self._odd(mark, first, stretch):
            return Closing(first, guessed=False)
        return self._guess(start, mark)

    def _guess(self, start: int, mark: str) -> Closing | None:
        ends = self._call_ends(mark)
        index = bisect_left(ends, start)
        stretch = self._stretch_end(ends[index]) if index < len(ends) else None
        if stretch is None:
            return None
        behind = bisect_left(ends, stretch)
        for at in range(index, behind):  # no slice: it costs as much as all of them, and the first is often the one
            quote = ends[at]
            in_pairs = not self._odd(mark, start - 1, quote) and not self._odd(mark, quote, stretch)
            if in_pairs and not self._bracket_open(start, quote):
                return Closing(quote, guessed=True)
        last = ends[behind - 1]
        half = self._odd(mark, start - 1, last) and self._bracket_open(start, last)  # as in `print("a`
        return None if half else Closing(last, guessed=True)

    def _bracket_open(self, start: int, end: int) -> bool:
        return self._count("(", start, end) > self._count(")", start, end)

    def _odd(self, mark: str, after: int, before: int) -> bool:
        marks = {mark, *(opening for opening, closing in CLOSING_MARK.items() if closing == mark)}
        return sum(self._count(one, after + 1, before) for one in marks) % 2 == 1

    def _count(self, mark: str, start: int, end: int) -> int:
        positions = self._unescaped(mark)
        return bisect_left(positions, end) - bisect_left(positions, start)

    def _stretch_end(self, after: int) -> int | None:
        index = bisect_right(self._stretch_ends, after)
        if index < len(self._stretch_ends):
            return self._stretch_ends[index]
        return len(self._text) if self._whole else None

    @cached_property
    def _stretch_ends(self) -> list[int]:
        return [match.start() for match in _STRETCH_END.finditer(self._text)]

    def _unescaped(self, mark: str) -> list[int]:
        if mark not in self._unescaped_by_mark:
            found = re.finditer(rf"\\.|{re.escape(mark)}", self._text, re.S)
            self._unescaped_by_mark[mark] = [match.start() for match in found if match[0] == mark]
        return self._unescaped_by_mark[mark]

    def _going_on(self, mark: str) -> list[int]:
        if mark not in self._going_on_by_mark:
            positions = self._unescaped(mark)
            self._going_on_by_mark[mark] = [at for at in positions if _GOES_ON.match(self._text, at + 1)]
        return self._going_on_by_mark[mark]

    def _call_ends(self, mark: str) -> list[int]:
        if mark not in self._call_ends_by_mark:
            positions = self._unescaped(mark)
            self._call_ends_by_mark[mark] = [at for at in positions if _CALL_END.match(self._text, at + 1)]
        return self._call_ends_by_mark[mark]
