"""Where the call is in an answer: which one counts, and which others there are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ActionError
from .grammar import Call, CallReader, Head, Value, find_heads
from .meaning import interpret
from .vocabulary import Action

__all__ = ["Found", "find_at_end", "find_call", "find_certain"]

_NOTHING_MORE = re.compile(r"[\s;；。.`]*+\Z")
_LINE_IS_OVER = re.compile(r"[ \t;；。.`]*+(?:[\r\n]|</?[\w|]|\Z)")


@dataclass(frozen=True, slots=True)
class Found:
    """A call that is an action, and the actions of the calls behind it."""

    action: Action
    extra: dict[str, Value]
    warnings: tuple[str, ...]
    call: Call
    further: tuple[Action, ...] = ()


def find_call(text: str) -> Found | None:
    """The call that counts: the first that begins a line, else the first that is whole and means something.

    ``None`` when nothing looks like a call; raises :class:`ActionError` when something does and is none.
    """
    reader, heads = CallReader(text), find_heads(text)
    at_line_start = next((head for head in heads if head.at_line_start), None)
    found = _read(reader, at_line_start) if at_line_start else _first_in_prose(reader, heads, text)
    if found is None:
        return None
    further = _further(reader, heads, found.call.end, text)
    return Found(found.action, found.extra, found.warnings, found.call, further)


def find_at_end(text: str) -> Found | None:
    """A call that begins a line and is the last thing in the text: what counts in thinking that was never ended."""
    heads = [head for head in find_heads(text) if head.at_line_start]
    found = _read(CallReader(text), heads[-1]) if heads else None
    return found if found and _NOTHING_MORE.match(text, found.call.end) else None


def find_certain(text: str) -> Action | None:
    """The action that counts whatever text follows, if that can be told yet."""
    head = next((head for head in find_heads(text) if head.at_line_start), None)
    if head is None:
        return None
    try:
        return _read(CallReader(text, whole=False), head).action
    except ActionError:
        return None


def _first_in_prose(reader: CallReader, heads: Sequence[Head], text: str) -> Found | None:
    first_error: ActionError | None = None
    position = 0
    for head in heads:
        if head.start < position:
            continue
        try:
            found = _read(reader, head)
        except ActionError as error:
            first_error, position = first_error or error, _go_on_at(error, reader, text)
        else:
            if _counts_in_prose(found, text):
                return found
            position = found.call.end
    try:
        if first_error:
            raise first_error
    finally:
        del first_error
    return None


def _further(reader: CallReader, heads: Sequence[Head], position: int, text: str) -> tuple[Action, ...]:
    actions: list[Action] = []
    for head in heads:
        if head.start < position:
            continue
        try:
            found = _read(reader, head)
        except ActionError as error:
            position = _go_on_at(error, reader, text)
        else:
            position = found.call.end
            if head.at_line_start or _counts_in_prose(found, text):
                actions.append(found.action)
    return tuple(actions)


def _go_on_at(error: ActionError, reader: CallReader, text: str) -> int:
    """Never look again at what was read once, or hostile text would cost its square; a call cut off takes all."""
    return len(text) if error.code == "truncated" else max(error.position, reader.reached)


def _counts_in_prose(found: Found, text: str) -> bool:
    """``I can call finish(), but ...`` is talk: a task must not end because the model mentions the end."""
    return found.call.head.name != "finish" or bool(_LINE_IS_OVER.match(text, found.call.end))


def _read(reader: CallReader, head: Head) -> Found:
    call = reader.read(head)
    action, extra, warnings = interpret(call)
    return Found(action, extra, tuple(warnings), call)
