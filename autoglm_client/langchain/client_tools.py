r"""Tools on a server that knows none: told in the prompt, and held to their schemas by a grammar.

In the model's text a call is ``<tool_call>{"name": "x", "arguments": {...}}</tool_call>``, several stand one after the
other, and the history shows results as ``<tool_response>{"name": "x", "content": "..."}</tool_response>``. Content can
forge none of these tags: inside JSON ``<`` is written ``\u003c``. `call_reader` reads the calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from .. import ConfigurationError
from .action_calls import ACTION_TOOLS
from .call_reader import CLOSE, OPEN

__all__ = ["ToolChoice", "call_text", "constraint", "describe", "result_text"]

ToolChoice = Literal["auto", "required", "none"] | str
"""Whether a tool is to be called; a string that is none of the three words names the tool that has to be."""

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
    parallel: bool = True,
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
        paragraphs = [f"{_BEFORE}\n{lines}\n{_HOW}\n{_SEVERAL if parallel else _ONE} {_RESULTS}", now]
    if schema is not None and choice == "auto":
        instead = ", in place of finish(...)," if phone else ""
        paragraphs.append(f"Give your answer{instead} as a JSON object of this schema: {_json(dict(schema))}")
    return "\n\n".join(paragraphs)


_BEFORE = """# Tools

You can call the tools below. Each line is one tool: its name, what it does, and the JSON schema of its arguments.
<tools>"""
_HOW = f"""</tools>

To call a tool, write a JSON object with its name and its arguments between {OPEN} and {CLOSE}:
{OPEN}{{"name": "NAME", "arguments": {{...}}}}{CLOSE}"""
_SEVERAL = (
    "To call several tools at once, write several of these, one after the other. End your answer after the calls."
)
_ONE = "Call one tool at a time. End your answer after the call."
_RESULTS = """The next message then holds the results, one for each call, in the same order:
<tool_response>{"name": "NAME", "content": "..."}</tool_response>
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
        return _thought({"type": "triggered_tags", "triggers": [OPEN], "tags": tags, **once})
    calls = (
        [{"type": "tags_with_separator", "separator": "", "at_least_one": True, "tags": tags, **once}] if tags else []
    )
    acts = [_ACTION] if phone and choice in _NOW and (answer or calls or choice == "required") else []
    forms = [*(answer if choice == "auto" or not tags else []), *calls, *acts]
    return _thought(forms[0] if len(forms) == 1 else {"type": "or", "elements": forms}) if forms else {"type": "text"}


def _thought(answer: dict[str, Any]) -> dict[str, Any]:
    """Put thinking before the answer: apart from it, or musing about a call would have to become one."""
    elements = [{"type": "optional", "content": _THINKING}, answer]
    return {"type": "structural_tag", "format": {"type": "sequence", "elements": elements}}


def _tag(function: Mapping[str, Any]) -> dict[str, Any]:
    begin = f'{OPEN}{{"name": {_json(function["name"])}, "arguments": '
    return {"type": "tag", "begin": begin, "content": _object(_parameters(function)), "end": f"}}{CLOSE}"}


def _object(schema: Mapping[str, Any]) -> dict[str, Any]:
    # vLLM's disable_any_whitespace does not reach into structural tags: without a limit a model can write blanks for
    # ever, and 1 is the lowest there is.
    return {"type": "json_schema", "json_schema": dict(schema), "max_whitespace_cnt": 1}


def _offered(tools: Sequence[Mapping[str, Any]], choice: ToolChoice) -> list[Mapping[str, Any]]:
    functions = [tool["function"] for tool in tools]
    if choice == "none":
        return []
    chosen = functions if choice in _NOW else [it for it in functions if it["name"] == choice]
    if not chosen and choice not in _NOW:
        names = ", ".join(repr(it["name"]) for it in functions) or "none"
        raise ConfigurationError(f"the tool {choice!r} has to be called, but it is not among the tools: {names}")
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
    return f'{OPEN}{{"name": {_json(name)}, "arguments": {_json(dict(arguments))}}}{CLOSE}'


def result_text(name: str | None, content: str, status: str) -> str:
    """A tool's result as the model reads it; ``status`` is told when it is ``"error"``."""
    told = {"name": name} if name else {}
    told |= {"status": status} if status == "error" else {}
    return f"<tool_response>{_json(told | {'content': content})}</tool_response>"


def _json(value: object) -> str:
    """JSON for people and models: only what could be a tag, and what UTF-8 cannot carry, is escaped."""
    written = json.dumps(value, ensure_ascii=False)
    return re.sub("[<\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", written)
