"""The actions as typed values: one small frozen class each, and their canonical text."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, TypeAlias

__all__ = [
    "Action",
    "Back",
    "CallAPI",
    "Direction",
    "Distance",
    "DoubleTap",
    "Finish",
    "Home",
    "Interact",
    "Launch",
    "LongPress",
    "Note",
    "Point",
    "Swipe",
    "TakeOver",
    "Tap",
    "Type",
    "TypeName",
    "Wait",
]

Direction = Literal["up", "down", "left", "right"]
Distance = Literal["long", "medium", "short"]

SCALE = 999
"""The largest coordinate: the model sees every screen as 1000 by 1000, from (0, 0) to (999, 999)."""

_LONGEST_WAIT = sys.float_info.max
_DEFAULT_WAIT = 1.0  # what the official client waits when no duration is given


@dataclass(frozen=True, slots=True)
class Point:
    """A place on the screen in the model's own scale: 0 to 999 in both directions, whatever the device."""

    x: int
    y: int

    def __post_init__(self) -> None:
        if not (0 <= self.x <= SCALE and 0 <= self.y <= SCALE):
            raise ValueError(f"({self.x}, {self.y}) is outside the model's scale of 0 to {SCALE}")

    def at(self, width: int, height: int) -> tuple[int, int]:
        """The same place in pixels of a screen of this size; always on the screen: 999 is the last pixel."""
        if width < 1 or height < 1:
            raise ValueError(f"a screen of {width} by {height} pixels has no points")
        return round(self.x * (width - 1) / SCALE), round(self.y * (height - 1) / SCALE)


_MIDDLE = Point(500, 500)
_REACH: dict[Distance, int] = {"short": 150, "medium": 300, "long": 450}
_STEPS: dict[Direction, tuple[int, int]] = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}


def _on_scale(value: int) -> int:
    return min(max(value, 0), SCALE)


class _Base:
    __slots__ = ()

    name: ClassVar[str]
    """The action's name as the model writes it."""

    def params(self) -> dict[str, object]:
        """The parameters as the model writes them, points as ``[x, y]``; what is ``None`` is left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: _plain(value) for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        given = [f"{name}={_literal(value)}" for name, value in self.params().items()]
        if isinstance(self, Finish):
            return f"finish({', '.join(given)})"
        return f"do({', '.join([f'action={_quoted(self.name)}', *given])})"


class _OnElement(_Base):
    __slots__ = ()

    element: Point

    def at(self, width: int, height: int) -> tuple[int, int]:
        """Where, in pixels of a screen of this size."""
        return self.element.at(width, height)


@dataclass(frozen=True, slots=True)
class Launch(_Base):
    """Open an app by its name."""

    name = "Launch"
    app: str


@dataclass(frozen=True, slots=True)
class Tap(_OnElement):
    """Tap once. A ``message`` marks a tap on payment, privacy or property: ask the user first."""

    name = "Tap"
    element: Point
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Type(_Base):
    """Type into the focused field, replacing what it holds."""

    name = "Type"
    text: str


@dataclass(frozen=True, slots=True)
class TypeName(_Base):
    """Type a person's name; otherwise as :class:`Type`."""

    name = "Type_Name"
    text: str


@dataclass(frozen=True, slots=True)
class Interact(_Base):
    """Several choices fit: ask the user which one."""

    name = "Interact"
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Swipe(_Base):
    """Drag from one point to another.

    The older form of the call names a ``direction`` in place of the points; they are then worked out (:meth:`toward`).
    """

    name = "Swipe"
    start: Point
    end: Point
    direction: Direction | None = None
    dist: Distance | None = None
    element: Point | None = None

    @classmethod
    def toward(cls, direction: Direction, dist: Distance | None = None, element: Point | None = None) -> Swipe:
        """Drag that way from ``element``, or the middle of the screen, as far as the screen allows.

        How far ``short``, ``medium`` (also when nothing is said) and ``long`` are is ours: 150, 300 and 450 of 1000.
        """
        start, reach = element or _MIDDLE, _REACH[dist or "medium"]
        x, y = _STEPS[direction]
        end = Point(_on_scale(start.x + reach * x), _on_scale(start.y + reach * y))
        return cls(start, end, direction, dist, element)

    def params(self) -> dict[str, object]:
        """The parameters as the model wrote them: the points, or the direction."""
        hidden = {"start", "end"} if self.direction else {"direction", "dist", "element"}
        return {name: value for name, value in _Base.params(self).items() if name not in hidden}

    def at(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """From where and to where, in pixels of a screen of this size."""
        return self.start.at(width, height), self.end.at(width, height)


@dataclass(frozen=True, slots=True)
class Note(_Base):
    """Remember this page for a later summary; the stock model sends the string ``"True"``."""

    name = "Note"
    message: str


@dataclass(frozen=True, slots=True)
class CallAPI(_Base):
    """Summarise or comment on the page or the notes, as the instruction says."""

    name = "Call_API"
    instruction: str


@dataclass(frozen=True, slots=True)
class LongPress(_OnElement):
    """Press and hold."""

    name = "Long Press"
    element: Point


@dataclass(frozen=True, slots=True)
class DoubleTap(_OnElement):
    """Tap twice, quickly."""

    name = "Double Tap"
    element: Point


@dataclass(frozen=True, slots=True)
class TakeOver(_Base):
    """Only the user can go on: a login, a captcha."""

    name = "Take_over"
    message: str


@dataclass(frozen=True, slots=True)
class Back(_Base):
    """Go back one page."""

    name = "Back"


@dataclass(frozen=True, slots=True)
class Home(_Base):
    """Go to the home screen."""

    name = "Home"


@dataclass(frozen=True, slots=True)
class Wait(_Base):
    """Let the page load. ``duration`` is what the model wrote, ``seconds`` what it means."""

    name = "Wait"
    duration: str | float | tuple[str | float, ...] | None = None

    @property
    def seconds(self) -> float:
        """The duration in seconds; one second where none is given or none can be read."""
        value = self.duration[:1] if isinstance(self.duration, tuple) else (self.duration,)
        return _seconds(value[0]) if value else _DEFAULT_WAIT


@dataclass(frozen=True, slots=True)
class Finish(_Base):
    """The task is over; the message is the result, or why it could not be done."""

    name = "finish"
    message: str = ""


Action: TypeAlias = (
    Launch
    | Tap
    | Type
    | TypeName
    | Interact
    | Swipe
    | Note
    | CallAPI
    | LongPress
    | DoubleTap
    | TakeOver
    | Back
    | Home
    | Wait
    | Finish
)
"""Every action there is: ``match`` on the class, and mypy tells which one was forgotten."""


_DURATION = re.compile(r"(?<![\d.])(\d{1,6}(?:\.\d{1,6})?)(?!\d)\s*(ms|毫秒|min|分|h|小时)?", re.I)
_UNITS = {"ms": 0.001, "毫秒": 0.001, "min": 60.0, "分": 60.0, "h": 3600.0, "小时": 3600.0}


def _seconds(duration: str | float | None) -> float:
    if isinstance(duration, str):
        found = _DURATION.search(duration)
        return float(found[1]) * _UNITS.get((found[2] or "").lower(), 1.0) if found else _DEFAULT_WAIT
    if duration is None or not abs(duration) <= _LONGEST_WAIT:  # so for what is no number, too
        return _DEFAULT_WAIT
    return max(0.0, float(duration))


# Escaped is what would end the string, what has no printed form, and "<" where it would begin a tag of the model.
_ESCAPED = re.compile(
    '["\\\\\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]|<(?=\\||/?(?:think|answer|ans|tool_call)\\b)', re.I
)
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _plain(value: object) -> object:
    if isinstance(value, Point):
        return [value.x, value.y]
    return list(value) if isinstance(value, tuple) else value


def _literal(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return _quoted(value) if isinstance(value, str) else repr(value).replace("inf", "1e999")  # "inf" is no literal


def _quoted(text: str) -> str:
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if char in _SHORT:
        return _SHORT[char]
    # \U and not \u for a lone surrogate: two \u in a row are read as one character, as JSON writes them.
    return f"\\x{ord(char):02x}" if char < "\x9f" or char == "\x9f" else f"\\U{ord(char):08x}"
