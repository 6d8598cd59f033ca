r"""Tools on a server that knows none: told in the prompt, held to their schemas by a grammar, read from the text.

In the model's text a call is ``<tool_call>{"name": "x", "arguments": {...}}</tool_call>``, several stand one after the
other, and the history shows results as ``<tool_response>{"name": "x", "content": "..."}</tool_response>``. Content can
forge none of these tags: inside JSON ``<`` is written ``\u003c``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from uuid import uuid4

from .. import ConfigurationError, ToolCall
from .action_calls import ACTION_TOOLS

__all__ = ["ToolCallReader", "ToolChoice", "call_text", "constraint", "describe", "result_text"]

ToolChoice = Literal["auto", "required", "none"] | str
"""Whether a tool is to be called; a string that is none of the three words names the tool that has to be."""

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_MUSING = {"type": "any_text", "excludes": ["<answer>", "<ans>"]}  # which would end the thinking for every reader
_THINKING = {"type": "tag", "begin": "<think>", "content": _MUSING, "end": "</think>"}
_ACTION = {
    "type": "regex",
    "pattern": r'\n?(<answer>)?do\(action="('
    + "|".join(kind.name for kind in ACTION_TOOLS.values())
    + r')"(, (.|\n)*)?\)',
}
"""What the model was trained to write, but ``finish(...)``, which would be an answer of another form."""


def describe(
    tools: Sequence[Mapping[str, Any]],
    choice: ToolChoice,
    *,
    schema: Mapping[str, Any] | None = None,
    phone: bool = False,
) -> str:
    """What the system message has to say for the model to call ``tools`` (in OpenAI's form); empty for no tools.

    With a ``schema`` the answer is to be an object of it; with ``phone`` an action of the phone is as good as a call.
    Raises :class:`~autoglm_client.ConfigurationError` when ``choice`` names a tool that is not among them.
    """
    paragraphs = []
    if _offered(tools, choice):
        lines = "\n".join(_json(_told(tool["function"])) for tool in tools)
        now = _NOW.get(choice, f"Call the tool {_json(choice)} now: an answer without this call is not accepted.")
        now = _NOW_WITH_PHONE if phone and choice == "required" else now
        paragraphs = [f"{_BEFORE}\n{lines}\n{_AFTER}", now]
    if schema is not None and choice == "auto":
        instead = ", in place of finish(...)," if phone else ""
        paragraphs.append(f"Give your answer{instead} as a JSON object of this schema: {_json(dict(schema))}")
    return "\n\n".join(paragraphs)


_BEFORE = """# Tools

You can call the tools below. Each line is one tool: its name, what it does, and the JSON schema of its arguments.
<tools>"""
_AFTER = f"""</tools>

To call a tool, write a JSON object with its name and its arguments between {_OPEN} and {_CLOSE}:
{_OPEN}{{"name": "NAME", "arguments": {{...}}}}{_CLOSE}
To call several tools at once, write several of these, one after the other. End your answer after the calls. \
The next message then holds the results, one for each call, in the same order:
<tool_response>{{"name": "NAME", "content": "..."}}</tool_response>
A result with "status": "error" says why a call has failed."""
_NOW = {
    "auto": "Call a tool when you need one to answer. Once you know the answer, give it without a call.",
    "required": "Call at least one tool now: an answer without a call is not accepted.",
}
_NOW_WITH_PHONE = "Call at least one tool now, or do one action on the phone: an answer with neither is not accepted."


def _told(function: Mapping[str, Any]) -> dict[str, Any]:
    known = {key: function[key] for key in ("name", "description") if function.get(key)}
    return known | {"parameters": _parameters(function)}


def constraint(
    tools: Sequence[Mapping[str, Any]],
    *,
    choice: ToolChoice,
    parallel: bool = True,
    schema: Mapping[str, Any] | None = None,
    phone: bool = False,
) -> dict[str, Any]:
    """The ``response_format`` with which vLLM lets the model write only calls that the schemas of ``tools`` allow.

    The model may always think first. With ``choice="auto"`` it calls or speaks; with a ``schema``, it calls or answers
    with an object of that schema. Without ``parallel`` it calls once at most. With ``phone``, ``do(...)`` is a call,
    too. Raises :class:`~autoglm_client.ConfigurationError` when the tool that has to be called is not among ``tools``.
    """
    tags = [_tag(function) for function in _offered(tools, choice)]
    once = {"stop_after_first": not parallel}
    answer = [] if schema is None else [_object(schema)]
    if choice == "auto" and tags and not answer:
        return _thought({"type": "triggered_tags", "triggers": [_OPEN], "tags": tags, **once})
    calls = (
        [{"type": "tags_with_separator", "separator": "", "at_least_one": True, "tags": tags, **once}] if tags else []
    )
    acts = [_ACTION] if phone and choice in _NOW else []
    forms = [*(answer if choice == "auto" or not tags else []), *calls, *(acts if answer or calls else [])]
    return _thought(forms[0] if len(forms) == 1 else {"type": "or", "elements": forms}) if forms else {"type": "text"}


def _thought(answer: dict[str, Any]) -> dict[str, Any]:
    """Put thinking before the answer: apart from it, or musing about a call would have to become one."""
    elements = [{"type": "optional", "content": _THINKING}, answer]
    return {"type": "structural_tag", "format": {"type": "sequence", "elements": elements}}


def _tag(function: Mapping[str, Any]) -> dict[str, Any]:
    begin = f'{_OPEN}{{"name": {_json(function["name"])}, "arguments": '
    return {"type": "tag", "begin": begin, "content": _object(_parameters(function)), "end": f"}}{_CLOSE}"}


def _object(schema: Mapping[str, Any]) -> dict[str, Any]:
    # vLLM's disable_any_whitespace does not reach into structural tags: without a limit a model can write blanks for
    # ever, and 1 is the lowest there is.
    return {"type": "json_schema", "json_schema": dict(schema), "max_whitespace_cnt": 1}


def _offered(tools: Sequence[Mapping[str, Any]], choice: ToolChoice) -> list[Mapping[str, Any]]:
    functions = [tool["function"] for tool in tools]
    if choice == "none":
        return []
    chosen = functions if choice in _NOW else [it for it in functions if it["name"] == choice]
    if not chosen and choice != "auto":
        names = ", ".join(repr(it["name"]) for it in functions) or "none"
        wanted = "a tool has to be called" if choice == "required" else f"the tool {choice!r} has to be called"
        raise ConfigurationError(f"{wanted}, but it is not among the tools: {names}")
    return chosen


_SAYS_NOTHING = {"type", "title", "description", "properties", "required", "$schema"}
_SAYS_MORE = {
    *("additionalProperties", "patternProperties", "unevaluatedProperties", "dependentSchemas"),
    *("$ref", "allOf", "anyOf", "oneOf", "if"),
}


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments: an object, and where it does not say what else is allowed, nothing else is."""
    given = function.get("parameters") or {}
    if not given.get("properties") and not given.keys() - _SAYS_NOTHING:  # in JSON Schema, that is any object
        return {**given, "type": "object", "properties": {}, "additionalProperties": False}
    schema = dict(given) if _joins(given) else _closed(given)
    return {"type": "object", **schema} if "properties" in schema else schema


def _closed(schema: Any) -> Any:
    """A copy in which a model cannot invent properties."""
    if not isinstance(schema, Mapping):
        return schema
    closed = {key: _closed_part(key, value) for key, value in schema.items()}
    if "properties" in schema and not _SAYS_MORE & schema.keys():
        closed["additionalProperties"] = False
    return closed


def _closed_part(key: str, value: Any) -> Any:
    if key in {"properties", "patternProperties", "$defs", "definitions"} and isinstance(value, Mapping):
        return {name: _closed(part) for name, part in value.items()}
    if key in {"items", "prefixItems", "anyOf", "oneOf"} and isinstance(value, list):
        return [_closed(part) for part in value]
    return _closed(value) if key in {"items", "additionalProperties"} else value


def _joins(schema: Any) -> bool:
    """Whether one object has to fit several schemas: each must then bear the properties of the others."""
    if isinstance(schema, Mapping):
        several = schema.get("allOf")
        return (isinstance(several, list) and len(several) > 1) or any(map(_joins, schema.values()))
    return isinstance(schema, list) and any(map(_joins, schema))


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """A call as the model writes it, for the history."""
    return f'{_OPEN}{{"name": {_json(name)}, "arguments": {_json(dict(arguments))}}}{_CLOSE}'


def result_text(name: str | None, content: str, status: str) -> str:
    """A tool's result as the model reads it; ``status`` is told when it is ``"error"``."""
    told = {"name": name} if name else {}
    told |= {"status": status} if status == "error" else {}
    return f"<tool_response>{_json(told | {'content': content})}</tool_response>"


def _json(value: object) -> str:
    """JSON for people and models: only what could be a tag, and what UTF-8 cannot carry, is escaped."""
    written = json.dumps(value, ensure_ascii=False)
    return re.sub("[<\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", written)


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
        start = text.find(_OPEN, position)
        if start < 0:
            certain = _certain(text, position, (_OPEN,))
            self._say(text[position:certain])
            self._held = text[certain:]
            return len(text)
        self._say(text[position:start])
        self._begin()
        return start + len(_OPEN)

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
            certain = _certain(text, position, (_OPEN, _CLOSE))
            if self._next is _IN_STRING:
                certain = len(text) - text.endswith("\\")
            self._parts.append(text[position:certain])
            self._held = text[certain:]
            return len(text)
        mark = found.group()
        is_tag = mark in (_OPEN, _CLOSE)
        self._parts.append(text[position : found.start() if is_tag else found.end()])
        if is_tag:
            self._give_up()
            if mark == _OPEN:
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
        rest = text[end : end + len(_CLOSE)]
        if rest == _CLOSE:
            self._parts.clear()
            self._section = "text"
            return end + len(_CLOSE)
        if _CLOSE.startswith(rest):
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
    cut = text.rfind("<", max(position, len(text) - len(_CLOSE)))
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
