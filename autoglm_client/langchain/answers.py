"""The client's events as what a message grows by: thinking, text, and tool calls that are whole.

Tool calls are never given out in fragments: LangChain reads the sum of fragments as JSON that may be cut, so a call
that was cut off at ``"text": "pay 15`` would be a valid one, and an agent would act on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias
from uuid import uuid4

from .. import (
    ActionReady,
    Choice,
    Event,
    Finish,
    Finished,
    ReasoningDelta,
    TextDelta,
    TextWasReasoning,
    ToolCall,
    ToolCallDelta,
)
from .action_calls import arguments_of, tool_name
from .call_reader import ToolCallReader

__all__ = ["AnswerReader", "Growth", "readable", "whole_answer"]

Growth: TypeAlias = ReasoningDelta | TextDelta | ToolCall
Item: TypeAlias = Event | ToolCall

UNREADABLE = "(not valid JSON) "
"""Stands before arguments that nobody may act on, so that no lenient parser makes a call of them."""


class AnswerReader:
    """Reads one answer: feed it the client's events, get what the message grows by.

    ``hold_text`` waits with text until it is known to be no thinking; ``text_calls`` finds tool calls in the text;
    ``phone`` makes the phone action a tool call, too. With ``an_object`` the answer may be JSON, and what looks like a
    call in its strings is none.
    """

    def __init__(
        self, *, hold_text: bool = False, text_calls: bool = False, phone: bool = False, an_object: bool = False
    ) -> None:
        self._held = _HeldText(hold=hold_text)
        self._stages: list[_Stage] = [self._held]
        if text_calls:
            self._stages.append(_TextCalls(an_object=an_object))
        if phone:
            self._stages.append(_PhoneCalls(an_object=an_object))
        self._stages.append(_NativeCalls())
        self._direct = not text_calls and not phone

    def feed(self, event: Event) -> Sequence[Growth]:
        """Take the next event of the first answer; what concerns another one is not for a message."""
        if event.choice:
            return ()
        if self._direct and self._held.open and isinstance(event, (TextDelta, ReasoningDelta)):
            return (event,)
        items: list[Item] = [event]
        for stage in self._stages:
            items = [new for item in items for new in stage.feed(item)]
        return [item for item in items if isinstance(item, (ReasoningDelta, TextDelta, ToolCall))]


def whole_answer(choice: Choice, reader: AnswerReader) -> list[Growth]:
    """What a finished answer consists of, through the same reader."""
    return [growth for event in _events_of(choice) for growth in reader.feed(event)]


def readable(call: ToolCall) -> bool:
    """Whether the arguments are a JSON object."""
    try:
        return isinstance(_json(call.arguments), dict)
    except (ValueError, RecursionError):
        return False


def _json(text: str) -> Any:
    """Decode what can be sent back: no NaN, which is no JSON, and no half of a surrogate pair, which UTF-8 has not."""
    value = json.loads(text, parse_constant=_refuse)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _events_of(choice: Choice) -> Iterator[Event]:
    if choice.reasoning:
        yield ReasoningDelta(choice.reasoning)
    if choice.text:
        yield TextDelta(choice.text)
    for index, call in enumerate(choice.tool_calls):
        yield ToolCallDelta(index, call.id, call.name, call.arguments)
    if choice.action is not None:
        yield ActionReady(choice.action)
    yield Finished(choice.finish_reason or "")


class _Stage(Protocol):
    def feed(self, item: Item) -> Iterable[Item]: ...


class _HeldText:
    """Holds text back until something tells that it is no thinking: a message cannot take back what it has said."""

    def __init__(self, *, hold: bool) -> None:
        self.open = not hold
        self._held: list[TextDelta] = []

    def feed(self, item: Item) -> Iterable[Item]:
        if isinstance(item, TextDelta) and not self.open:
            self._held.append(item)
            return ()
        held, self._held = self._held, []
        self.open = True
        if isinstance(item, TextWasReasoning):
            return (ReasoningDelta(item.text),)
        return (TextDelta("".join(it.text for it in held)), item) if held else (item,)


class _TextCalls:
    """Finds the tool calls that are written in the text.

    A phone's action comes after all of them, wherever it stands: a whole answer does not tell where that was.
    """

    def __init__(self, *, an_object: bool) -> None:
        self._reader = ToolCallReader()
        self._actions: list[Item] = []
        self._is_object = None if an_object else False

    def feed(self, item: Item) -> Iterable[Item]:
        if isinstance(item, TextDelta):
            if self._is_object is None:
                if not (begin := item.text.lstrip()):
                    return ()
                self._is_object = begin.startswith("{")
            return (item,) if self._is_object else map(_as_item, self._reader.feed(item.text))
        if isinstance(item, Finished):
            return (*map(_as_item, self._reader.close()), *self._actions, item)
        if isinstance(item, ActionReady):
            self._actions.append(item)
            return ()
        return (item,)


def _as_item(found: str | ToolCall) -> Item:
    return TextDelta(found) if isinstance(found, str) else found


class _PhoneCalls:
    """Makes the phone action a tool call; ``finish`` calls nothing, it ends the task.

    An action that stands only in the arguments of another call, or in an object, is quoted there: nobody does it.
    """

    def __init__(self, *, an_object: bool) -> None:
        self._an_object = an_object
        self._said: list[str] = []

    def feed(self, item: Item) -> Iterable[Item]:
        if isinstance(item, TextDelta):
            self._said.append(item.text)
        if isinstance(item, ActionReady) and not isinstance(item.action, Finish) and self._is_said():
            arguments = json.dumps(arguments_of(item.action), ensure_ascii=False)
            return (ToolCall(f"call_{uuid4().hex}", tool_name(type(item.action)), arguments),)
        return (item,)

    def _is_said(self) -> bool:
        said = "".join(self._said).lstrip()
        return re.search("[(（{]", said) is not None and not (self._an_object and said.startswith("{"))


class _NativeCalls:
    """Puts the fragments of the server's own tool calls together, and marks arguments that cannot be read."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolCall] = {}

    def feed(self, item: Item) -> Iterable[Item]:
        if isinstance(item, ToolCall):
            return (_marked(item),)
        if isinstance(item, Finished):
            return (*(_marked(self._calls[index]) for index in sorted(self._calls)), item)
        if isinstance(item, ToolCallDelta):
            so_far = self._calls.get(item.index, ToolCall("", "", ""))
            self._calls[item.index] = ToolCall(
                so_far.id or item.id or "", so_far.name or item.name or "", so_far.arguments + item.arguments
            )
            return ()
        return (item,)


def _marked(call: ToolCall) -> ToolCall:
    call = replace(call, id=call.id or f"call_{uuid4().hex}", arguments=call.arguments or "{}")
    try:
        _json(call.arguments)
    except (ValueError, RecursionError):
        return replace(call, arguments=UNREADABLE + call.arguments.encode(errors="backslashreplace").decode())
    return call
