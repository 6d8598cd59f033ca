"""Read tool calls from the text of an answer, while it comes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Literal
from uuid import uuid4

from .. import ToolCall

__all__ = ["CLOSE", "OPEN", "ToolCallReader"]

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_TAG = re.compile("</?tool_call>")
_IN_JSON = re.compile(r'["{}\[\]]|</?tool_call>')
_IN_STRING = re.compile(r'"|\\.', re.DOTALL)
_FENCE = re.compile(r"\s*(?:```\w*\s*)?")
_TAIL = re.compile(r"[\s`}\]]*")  # the end of a fence, and the brace too many that models like to write
_NAME = re.compile(r'[^"]*"name"\s*:\s*"([^"\\]*)"')
_DECODER = json.JSONDecoder(strict=False)  # models break lines inside strings


class ToolCallReader:
    """Tell calls from text, in one pass, however the text is cut: feed it the cuts of an answer, then close it.

    Both give what is new: text outside of calls, and whole calls. Where no grammar held the model it is lenient:
    blanks, fences, ``parameters`` for ``arguments``, arguments as a string, no end tag. What cannot be read as a call
    becomes one whose ``arguments`` are all the text as it came, which is no JSON object. A call without a name has an
    empty name, and again all of its text. Blank text before, between and after calls is dropped.
    """

    def __init__(self) -> None:
        self._section: Literal["text", "call", "tail"] = "text"
        self._next = _IN_JSON  # inside a call: what to look for
        self._depth = 0
        self._parts: list[str] = []  # of the call, or of what follows its last brace
        self._held = ""
        self._blanks: list[str] = []
        self._spoken = False  # since the last call
        self._called = False
        self._found: list[str | ToolCall] = []

    def feed(self, text: str) -> list[str | ToolCall]:
        """Take the next cut of the text."""
        text, self._held = self._held + text, ""
        position = 0
        while position < len(text):
            if self._section == "text":
                position = self._read_text(text, position)
            elif self._section == "call":
                position = self._read_call(text, position)
            else:
                position = self._read_tail(text, position)
        return self._given()

    def close(self) -> list[str | ToolCall]:
        """Give out what was held back: the text has ended."""
        held, self._held = self._held, ""
        if self._section == "text":
            self._say(held)
        elif self._section == "call":
            self._parts.append(held)
            self._give_up()
        else:  # what was held is the beginning of the end tag
            self._end_tail()
        if self._blanks and not self._called:
            self._found.append("".join(self._blanks))
        self._blanks.clear()
        return self._given()

    def _given(self) -> list[str | ToolCall]:
        found, self._found = self._found, []
        return found

    def _read_text(self, text: str, position: int) -> int:
        start = text.find(OPEN, position)
        if start < 0:
            certain = _certain(text, position, (OPEN,))
            self._say(text[position:certain])
            self._held = text[certain:]
            return len(text)
        self._say(text[position:start])
        self._begin()
        return start + len(OPEN)

    def _say(self, text: str) -> None:
        if not text:
            return
        if self._spoken or not text.isspace():
            self._found.append("".join(self._blanks) + text)
            self._blanks.clear()
            self._spoken = True
        else:
            self._blanks.append(text)

    def _begin(self) -> None:
        self._section, self._next, self._depth = "call", _IN_JSON, 0
        self._blanks.clear()
        self._spoken, self._called = False, True

    def _read_call(self, text: str, position: int) -> int:
        """Read up to the next mark that counts: where the object ends is told by its braces, not by the end tag."""
        found = self._next.search(text, position)
        if found is None:
            certain = _certain(text, position, (OPEN, CLOSE))
            if self._next is _IN_STRING:
                certain = len(text) - text.endswith("\\")
            self._parts.append(text[position:certain])
            self._held = text[certain:]
            return len(text)
        mark = found.group()
        is_tag = mark in (OPEN, CLOSE)
        self._parts.append(text[position : found.start() if is_tag else found.end()])
        if is_tag:
            self._give_up()
            if mark == OPEN:
                self._begin()
        else:
            self._count(mark)
        return found.end()

    def _count(self, mark: str) -> None:
        if mark in "{[":
            self._depth += 1
        elif mark in "}]":
            self._depth -= 1
            if self._depth <= 0:
                self._complete()
        elif mark == '"' and self._depth:
            self._next = _IN_STRING if self._next is _IN_JSON else _IN_JSON

    def _complete(self) -> None:
        content = "".join(self._parts)
        call = _call_of(content)
        if call is None:
            self._parts, self._next = [content], _TAG  # braces and quotes have told nothing: a tag has to
        else:
            self._found.append(call)
            self._parts.clear()
            self._section = "tail"

    def _give_up(self) -> None:
        raw = "".join(self._parts)
        self._parts.clear()
        self._section = "text"
        named = _NAME.match(raw)
        self._found.append(ToolCall(_new_id(), named[1] if named else "", raw))

    def _read_tail(self, text: str, position: int) -> int:
        """Drop what stands between the object and its end tag; without an end tag, it was text."""
        end = _end_of(_TAIL, text, position)
        self._parts.append(text[position:end])
        rest = text[end : end + len(CLOSE)]
        if rest == CLOSE:
            self._parts.clear()
            self._section = "text"
            return end + len(CLOSE)
        if CLOSE.startswith(rest):
            self._held = rest
            return len(text)
        self._end_tail()
        return end

    def _end_tail(self) -> None:
        self._section = "text"
        self._say("".join(self._parts))
        self._parts.clear()


def _certain(text: str, position: int, tags: Iterable[str]) -> int:
    """The index up to which no tag can begin whose rest is still to come."""
    cut = text.rfind("<", max(position, len(text) - len(CLOSE)))
    return cut if cut >= 0 and any(tag.startswith(text[cut:]) for tag in tags) else len(text)


def _end_of(pattern: re.Pattern[str], text: str, position: int = 0) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position


def _call_of(content: str) -> ToolCall | None:
    """Read the object between the tags; None when it is no object."""
    try:
        value = _DECODER.decode(content[_end_of(_FENCE, content) :])
        if not isinstance(value, dict):
            return None
        arguments = value.get("arguments", value.get("parameters"))
        arguments = {} if arguments is None else arguments
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    name = value.get("name")
    return ToolCall(_new_id(), name, written) if name and isinstance(name, str) else ToolCall(_new_id(), "", content)


def _new_id() -> str:
    return f"call_{uuid4().hex}"  # never repeated: LangGraph tells results, and what to replace, by ids
