"""What a call means: names and spellings to one action, coordinates of every shape to one point."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeGuard, cast, get_args

from ..errors import ActionError, ActionErrorCode
from .grammar import Argument, Call, Value
from .vocabulary import (
    SCALE,
    Action,
    Back,
    CallAPI,
    Direction,
    Distance,
    DoubleTap,
    Finish,
    Home,
    Interact,
    Launch,
    LongPress,
    Note,
    Point,
    Swipe,
    TakeOver,
    Tap,
    Type,
    TypeName,
    Wait,
)

__all__ = ["Arguments", "interpret"]

_NUMBER = r"-?\d{1,9}(?:\.\d{0,9})?"
_MAX_TYPED = 2_000  # characters
_CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {ord("\n"), ord("\t")})  # a keyboard has those two
_NUMBERS_IN_STRING = re.compile(rf"[\s\[(<]*({_NUMBER}(?:[,，\s]+{_NUMBER})*)[\s\])>]*")


class Arguments:
    """The arguments of one call, taken out by name; what nobody takes is extra."""

    def __init__(self, call: Call) -> None:
        self.left = dict(call.arguments)
        self.warnings: list[str] = []
        self._position = call.head.start

    def error(self, code: ActionErrorCode, message: str) -> ActionError:
        """The error to raise, placed at the call."""
        return ActionError(message, code=code, position=self._position)

    def take(self, key: str) -> Argument | None:
        """An argument, unless it is missing or ``None``."""
        argument = self.left.pop(key, None)
        return None if argument is None or argument.value is None else argument

    def text(self, key: str) -> str:
        """A text that must be there."""
        text = self.optional_text(key)
        if text is None:
            raise self.missing(key)
        return text

    def optional_text(self, key: str) -> str | None:
        """A text; a number or a boolean counts as it was written, for ``message=True`` means the word."""
        argument = self.take(key)
        if argument is None:
            return None
        if isinstance(argument.value, tuple):
            raise self.error("malformed_call", f"{key} is a list, not a text")
        return argument.value if isinstance(argument.value, str) else argument.source

    def point(self, key: str) -> Point:
        """A point that must be there."""
        point = self.optional_point(key)
        if point is None:
            raise self.missing(key)
        return point

    def optional_point(self, key: str) -> Point | None:
        """A point, written as a pair, a box, nested or in strings; a box stands for its centre."""
        argument = self.take(key)
        if argument is None:
            return None
        numbers = list(_numbers(argument.value))
        if not _all_known(numbers) or len(numbers) not in {2, 4}:
            raise self.error("invalid_coordinates", f"{key} is not a pair of numbers: {argument.source[:80]}")
        if not all(0 <= number <= SCALE for number in numbers):
            raise self.error("coordinates_out_of_range", f"{key} leaves the model's scale of 0 to {SCALE}: {numbers}")
        if all(number <= 1 for number in numbers) and any(number % 1 for number in numbers):
            # The scale of other models, 0 to 1: rounding would tap the corner of the screen.
            raise self.error("invalid_coordinates", f"{key} is a fraction of the screen: {numbers}")
        if len(numbers) == 4:
            self.warnings.append(f"{key} was a box: its centre is used")
        return Point(_middle(numbers[0::2]), _middle(numbers[1::2]))

    def missing(self, key: str) -> ActionError:
        """The error for a parameter that must be there."""
        return self.error("missing_parameter", f"the call has no {key}")


def interpret(call: Call) -> tuple[Action, dict[str, Value], list[str]]:
    """The action, the keywords that no action knows, and what was unusual; raises :class:`ActionError`."""
    arguments = Arguments(call)
    build = _BUILDERS[_action_name(call, arguments)]
    action = build(arguments)
    if call.guessed:
        arguments.warnings.append("quotes inside the text were not escaped: its end was guessed")
    if call.head.name not in {"do", "finish", ""}:
        arguments.warnings.append(f"the call was named {call.head.name}, not do")
    return action, {key: argument.value for key, argument in arguments.left.items()}, arguments.warnings


def _action_name(call: Call, arguments: Arguments) -> str:
    """The key of the builder: what the call says, without case, blanks and underscores."""
    if call.head.name == "finish":
        return "finish"
    function = arguments.optional_text("_metadata") if call.head.is_object else None
    written = arguments.optional_text("action") or (function if function == "finish" else None)
    if not written:
        raise arguments.missing("action")
    name = re.sub(r"[\s_-]", "", written).lower()
    if name not in _BUILDERS:
        raise arguments.error("unknown_action", f"there is no action named {written[:80]!r}")
    _rename_argument(name, arguments)
    return name


def _rename_argument(name: str, arguments: Arguments) -> None:
    """The older prompt has one ``argument`` for every action, ``None`` where there is nothing to say."""
    argument = arguments.take("argument")
    if argument:
        arguments.left.setdefault(_ARGUMENT_OF.get(name, "argument"), argument)


def _launch(arguments: Arguments) -> Launch:
    app = arguments.text("app")
    if not app.strip():
        raise arguments.missing("app")
    return Launch(app)


def _typed(arguments: Arguments) -> str:
    """What is entered on the phone: what no keyboard has is left out, and nobody types a book."""
    written = arguments.text("text")
    text = written.translate(_CONTROLS)
    if len(text) > _MAX_TYPED:
        raise arguments.error("malformed_call", f"the text has {len(text)} characters, more than {_MAX_TYPED}")
    if text != written:
        arguments.warnings.append("control characters were left out of the text")
    return text


def _swipe(arguments: Arguments) -> Swipe:
    if "direction" in arguments.left and not {"start", "end"} <= arguments.left.keys():
        direction, dist = _choice(arguments, "direction", Direction), _choice(arguments, "dist", Distance)
        if direction is not None:
            element = arguments.optional_point("element")
            return Swipe.toward(cast("Direction", direction), cast("Distance | None", dist), element)
    return Swipe(arguments.point("start"), arguments.point("end"))


def _choice(arguments: Arguments, key: str, choices: object) -> str | None:
    text = arguments.optional_text(key)
    word = text.strip().lower() if text is not None else None
    if word is not None and word not in get_args(choices):
        raise arguments.error("malformed_call", f"{key} is {word[:80]!r}, not one of {', '.join(get_args(choices))}")
    return word


def _wait(arguments: Arguments) -> Wait:
    argument = arguments.take("duration")
    value = argument.value if argument else None
    items = value if isinstance(value, tuple) else ()
    if any(item is None or isinstance(item, tuple) for item in items):
        raise arguments.error("malformed_call", "duration is not a time")
    return Wait(cast("str | float | tuple[str | float, ...] | None", value))


_BUILDERS: dict[str, Callable[[Arguments], Action]] = {
    "launch": _launch,
    "tap": lambda given: Tap(given.point("element"), given.optional_text("message")),
    "type": lambda given: Type(_typed(given)),
    "typename": lambda given: TypeName(_typed(given)),
    "interact": lambda given: Interact(given.optional_text("message")),
    "swipe": _swipe,
    "note": lambda given: Note(given.text("message")),
    "callapi": lambda given: CallAPI(given.text("instruction")),
    "longpress": lambda given: LongPress(given.point("element")),
    "doubletap": lambda given: DoubleTap(given.point("element")),
    "takeover": lambda given: TakeOver(given.text("message")),
    "back": lambda _: Back(),
    "pressback": lambda _: Back(),
    "home": lambda _: Home(),
    "presshome": lambda _: Home(),
    "wait": _wait,
    "finish": lambda given: Finish(given.optional_text("message") or ""),
}

_ARGUMENT_OF = {"launch": "app", "type": "text", "typename": "text", "swipe": "direction", "wait": "duration"}


def _numbers(value: Value) -> Iterator[float | None]:
    """All numbers of a value, however deep; ``None`` for what is no number."""
    if isinstance(value, tuple):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, str):
        match = _NUMBERS_IN_STRING.fullmatch(value)
        yield from map(float, re.findall(_NUMBER, match[1])) if match else [None]
    else:
        yield None if isinstance(value, bool) else value


def _all_known(numbers: list[float | None]) -> TypeGuard[list[float]]:
    return None not in numbers


def _middle(numbers: list[float]) -> int:
    return round(sum(numbers) / len(numbers))
