"""The grammar of a call: ``name(key=value, ...)`` or the same as a JSON object; literals only, nothing is evaluated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias, Union

from ..errors import ActionError, ActionErrorCode
from .quotes import CLOSING_MARK, Quotes

__all__ = ["Argument", "Call", "CallReader", "Head", "Value", "find_heads"]

Value: TypeAlias = Union[str, int, float, "tuple[Value, ...]", None]  # a list comes as a tuple, an object as pairs

FREE_TEXT = frozenset({"text", "message", "instruction"})
POINTS = frozenset({"element", "start", "end"})

_MAX_DEPTH = 8  # of lists in lists: the model never needs more than two, and no input may exhaust the stack

_KEY = r"""(?:["'“](?P<quoted>[A-Za-z_]\w{0,31})["'”]|(?P<bare>[A-Za-z_]\w{0,31}))\s{0,8}[=:＝：]"""
_ACTION_KEY = r"""["'“]?action["'”]?\s{0,8}[=:＝：]"""
_PLAIN_KEY = r"""["'“]?[a-z_]\w{0,31}["'”]?\s{0,8}[=:＝：]"""
_QUOTE = f"[{''.join(CLOSING_MARK)}]"

# Every repetition has a bound, so that a head costs the same wherever it is looked for. Prose says "do (it)" and
# "finish (now)", so what stands behind the bracket must look like an argument, or be cut off.
_HEAD = re.compile(
    rf"""
    (?P<line>^[ \t\u3000]{{0,32}}(?:<tool_call>\s{{0,4}})?)?
    (?:
        (?<![a-z0-9_.])(?P<name>
            do(?=\s{{0,8}}[(（]\s{{0,8}}(?:{_PLAIN_KEY}|{_QUOTE}|\w{{0,31}}\Z))
          | finish(?=\s{{0,8}}[(（]\s{{0,8}}(?:{_PLAIN_KEY}|{_QUOTE}|[)）]|\w{{0,31}}\Z))
          | [a-z_][a-z0-9_]{{0,31}}(?=\s{{0,8}}[(（]\s{{0,8}}{_ACTION_KEY})
        )\s{{0,8}}(?P<bracket>[(（])
      | (?P<object>\{{)(?=\s{{0,8}}["'](?:_metadata|action)["']\s{{0,8}}[:：])
    )
    """,
    re.X | re.M | re.I,
)

_NOT_BLANK = re.compile(r"\S")
_ARGUMENT_KEY = re.compile(_KEY)
_NUMBER = re.compile(r"[-+]?+(?:\d{1,400}+(?:\.\d{0,400}+)?|\.\d{1,400}+)(?:[eE][-+]?+\d{1,3}+)?(?![\w.])")
_WORD = re.compile(r"[A-Za-z]{1,8}+(?!\w)")
_WORDS: dict[str, Value] = {"True": True, "true": True, "False": False, "false": False, "None": None, "null": None}
_CUT_HERE = re.compile(r"[\w.+\-\"'“]*+\s*+\Z")
_LISTS = {"[": "]］", "(": ")）", "<": ">", "［": "]］", "（": ")）", "【": "】", "{": "}"}

_ESCAPE = re.compile(
    r"\\(?:\r\n|[0-7]{1,3}|x[0-9a-fA-F]{2}|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|U0010[0-9a-fA-F]{4}|.)",
    re.S,
)
_PYTHON = {"\n": "", "\r\n": "", "\\": "\\", "'": "'", '"': '"'} | dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))
_JSON = _PYTHON | {"/": "/"}


@dataclass(frozen=True, slots=True)
class Head:
    """Where a call begins, and whether a line begins with it."""

    name: str
    start: int
    inside: int
    at_line_start: bool

    @property
    def is_object(self) -> bool:
        """A JSON object in place of a call."""
        return not self.name


@dataclass(frozen=True, slots=True)
class Argument:
    """A value, and how it was written: ``057`` is 57 as a coordinate, but ``"057"`` as a text."""

    value: Value
    source: str


@dataclass(frozen=True, slots=True)
class Call:
    """A complete call, not yet understood."""

    head: Head
    end: int
    arguments: dict[str, Argument]
    guessed: bool
    """Quotes inside a text were not escaped, so that its end had to be guessed."""


def find_heads(text: str) -> list[Head]:
    """Every place where a call may begin, in order."""
    return [
        Head(
            (match["name"] or "").lower(),
            match.start("name" if match["name"] else "object"),
            match.end(),
            match["line"] is not None,
        )
        for match in _HEAD.finditer(text)
    ]


class CallReader:
    """Reads the calls of one text. Unless that is ``whole``, a call that a continuation could change is truncated."""

    def __init__(self, text: str, *, whole: bool = True) -> None:
        self._text = text
        self._quotes = Quotes(text, whole=whole)
        self._guessed = False
        self._escapes = _PYTHON
        self.reached = 0
        """Where the last complete call ended, whatever it meant."""

    def read(self, head: Head) -> Call:
        """The call that begins here; raises :class:`ActionError` with the position of the trouble."""
        self._guessed = False
        self._escapes = _JSON if head.is_object else _PYTHON
        closers = "}" if head.is_object else ")）"
        arguments: dict[str, Argument] = {}
        position = self._skip(head.inside)
        while (char := self._char(position)) not in closers:
            key, position = self._key(head, position, first=not arguments)
            end, value = self._value(position, key)
            if key in arguments:
                raise _error("malformed_call", f"the call gives {key} twice", position)
            arguments[key] = Argument(value, self._text[position:end])
            position = self._skip(end)
            char = self._char(position)
            if char in ",，":
                position = self._skip(position + 1)
            elif char not in closers:
                raise self._trouble(key, position)
        self.reached = position + 1
        return Call(head, self.reached, arguments, self._guessed)

    def _key(self, head: Head, position: int, *, first: bool) -> tuple[str, int]:
        match = _ARGUMENT_KEY.match(self._text, position)
        if match:
            return (match["quoted"] or match["bare"]).lower(), self._skip(match.end())
        if first and self._text[position] in CLOSING_MARK and not head.is_object:
            return ("message" if head.name == "finish" else "action"), position
        raise self._trouble("", position)

    def _value(self, position: int, key: str, depth: int = 0) -> tuple[int, Value]:
        char = self._char(position)
        if char in CLOSING_MARK:
            return self._string(position, key, depth)
        if char in _LISTS:
            return self._list(position, key, depth + 1)
        if match := _NUMBER.match(self._text, position):
            number = match[0]
            return match.end(), int(number) if number.lstrip("+-").isdecimal() else float(number)
        match = _WORD.match(self._text, position)
        if match and match[0] in _WORDS:
            return match.end(), _WORDS[match[0]]
        raise self._trouble(key, position)

    def _string(self, position: int, key: str, depth: int) -> tuple[int, Value]:
        closing = self._quotes.closing(position, "inner" if depth else "free" if key in FREE_TEXT else "closed")
        if closing is None:
            raise _error("truncated", "the call is cut off inside a string", position)
        self._guessed = self._guessed or closing.guessed
        text = self._text[position + 1 : closing.position]
        if len(text) >= 4 and text[:2] == text[-2:] == self._text[position] * 2:
            text = text[2:-2]  # a string in three quotes
        return closing.position + 1, _unescape(text, self._escapes)

    def _list(self, position: int, key: str, depth: int) -> tuple[int, Value]:
        closers = _LISTS[self._text[position]]
        values: list[Value] = []
        position = self._skip(position + 1)
        while (char := self._char(position)) not in closers:
            if depth > _MAX_DEPTH:
                raise self._trouble(key, position)
            name = _ARGUMENT_KEY.match(self._text, position) if closers == "}" else None
            end, value = self._value(self._skip(name.end()) if name else position, key, depth)
            values.append((name["quoted"] or name["bare"], value) if name else value)
            position = self._skip(end)
            char = self._char(position)
            if char in ",，":
                position = self._skip(position + 1)
            elif char not in closers:
                raise self._trouble(key, position)
        return position + 1, tuple(values)

    def _skip(self, position: int) -> int:
        match = _NOT_BLANK.search(self._text, position)
        return match.start() if match else len(self._text)

    def _char(self, position: int) -> str:
        if position < len(self._text):
            return self._text[position]
        raise _error("truncated", "the call is cut off", position)

    def _trouble(self, key: str, position: int) -> ActionError:
        if _CUT_HERE.match(self._text, position):
            return _error("truncated", "the call is cut off", position)
        if key in POINTS:
            return _error("invalid_coordinates", f"{key} is not a pair of numbers", position)
        return _error("malformed_call", f"the value of {key} is not a literal" if key else "no keyword here", position)


def _error(code: ActionErrorCode, message: str, position: int) -> ActionError:
    return ActionError(message, code=code, position=position)


def _unescape(text: str, escapes: dict[str, str]) -> str:
    return _ESCAPE.sub(lambda match: _decode(match[0][1:], escapes), text) if "\\" in text else text


def _decode(body: str, escapes: dict[str, str]) -> str:
    r"""As in a Python literal, what is no escape stays as it is; a pair of ``\u`` surrogates is one character."""
    if body in escapes:
        return escapes[body]
    if body[0] in "xuU" and len(body) > 1:
        code, *low = (int(digits, 16) for digits in body[1:].split("\\u"))
        return chr(0x10000 + ((code - 0xD800) << 10) + low[0] - 0xDC00) if low else chr(code)
    return chr(int(body, 8)) if body[0] in "01234567" else f"\\{body}"
