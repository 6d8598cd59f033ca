"""A text in the form of a structural tag, as a model would write it: thinking, calls of tools, objects."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .filling import Hints, fill, matching
from .refusal import Refusal

__all__ = ["MalformedError", "Script", "check_structure", "structure_of", "write"]

_THINK = "<think>"
_NAME = re.compile(r'"name": *("(?:[^"\\]|\\.)*")')
_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "any_text": {},
    "const_string": {"value": str},
    "json_schema": {"json_schema": (dict, bool)},
    "optional": {"content": dict},
    "or": {"elements": list},
    "plus": {"content": dict},
    "regex": {"pattern": str},
    "sequence": {"elements": list},
    "star": {"content": dict},
    "tag": {"begin": str, "content": dict, "end": (str, list)},
    "tags_with_separator": {"tags": list, "separator": str},
    "triggered_tags": {"triggers": list, "tags": list},
}


class MalformedError(ValueError):
    """Something else than a structural tag."""


@dataclass(frozen=True, slots=True)
class Script:
    """What is to be said, whatever its form will be."""

    hints: Hints
    thinking: str
    """Empty where there is to be none."""
    said: str
    """The text of an answer without a call."""
    calls: bool
    """Whether to call a tool where the form leaves the choice."""
    pick: Callable[[list[str], bool], list[tuple[str, Hints]]]
    """Which of these tools to call, with what; the second argument tells whether several may be."""


def structure_of(request: dict[str, Any]) -> dict[str, Any] | None:
    """The form that a request asks for, or None; raises `MalformedError` or another ``ValueError`` when it is none."""
    response_format = request.get("response_format") or {}
    if response_format.get("type") == "structural_tag":
        return _form_in(response_format)
    if (written := (request.get("structured_outputs") or {}).get("structural_tag")) is None:
        return None
    if not isinstance(written, str):
        raise MalformedError("a structural tag stands in structured_outputs as a string")
    return _form_in(json.loads(written))


def _form_in(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise MalformedError("a structural tag is an object")
    if isinstance(older := given.get("structures"), list):  # vLLM still takes it
        return {"type": "triggered_tags", "triggers": given.get("triggers"), "tags": [_tag(it) for it in older]}
    form = given.get("format")
    if not isinstance(form, dict):
        raise MalformedError("a structural tag has a format")
    return form


def _tag(older: Any) -> dict[str, Any]:
    if not isinstance(older, dict):
        raise MalformedError("a structure is an object")
    content = {"type": "json_schema", "json_schema": older.get("schema")}
    return {"type": "tag", "begin": older.get("begin"), "content": content, "end": older.get("end")}


def check_structure(form: Any) -> None:
    """Raise `MalformedError` where vLLM refuses: unknown types, missing fields, nothing to choose from, bad schemas."""
    kind = form.get("type") if isinstance(form, dict) else None
    fields = _FIELDS.get(str(kind))
    if fields is None or not all(isinstance(form.get(name), types) for name, types in fields.items()):
        raise MalformedError(f"no format of type {kind}")
    if kind in ("json_schema", "regex"):
        _check_leaf(form)
    for name in fields.keys() & {"elements", "tags", "triggers"}:
        if not form[name]:
            raise MalformedError(f"there are no {name}")
    if kind == "triggered_tags":
        _check_triggers(form)
    for part in _parts(form):
        check_structure(part)


def _check_leaf(form: dict[str, Any]) -> None:
    try:
        if form["type"] == "regex":
            matching(form["pattern"])
        elif form["json_schema"] is False:
            raise MalformedError("nothing fits this schema")
        else:
            fill(form["json_schema"], Hints())
    except Refusal as refusal:
        raise MalformedError(str(refusal)) from refusal


def _check_triggers(form: dict[str, Any]) -> None:
    """Each tag has one trigger, which it begins with, and no trigger is without a tag."""
    pairs = [
        (trigger, number)
        for number, tag in enumerate(form["tags"])
        for trigger in form["triggers"]
        if isinstance(tag, dict) and isinstance(trigger, str) and str(tag.get("begin")).startswith(trigger)
    ]
    if [number for _, number in pairs] != [*range(len(form["tags"]))] or {it for it, _ in pairs} != {*form["triggers"]}:
        raise MalformedError("each tag has to begin with one of the triggers")


def _parts(form: dict[str, Any]) -> Iterator[Any]:
    """Yield the formats inside of a format; tags must be tags."""
    yield from form.get("elements") or ()
    for tag in form.get("tags") or ():
        if not isinstance(tag, dict) or tag.get("type", "tag") != "tag":
            raise MalformedError("a tag is of type tag")
        yield {"type": "tag", **tag}
    if "content" in form:
        yield form["content"]


def write(form: dict[str, Any], script: Script) -> str:
    """Write the answer in this form, which `check_structure` has let pass."""
    match form["type"]:
        case "json_schema":
            return json.dumps(fill(form["json_schema"], script.hints), ensure_ascii=False)
        case "regex":
            return matching(form["pattern"])
        case "const_string":
            return str(form["value"])
        case "any_text":
            return script.said
        case "tag":
            return _written_tag(form, script)
        case "sequence":
            return "".join([write(it, script) for it in form["elements"]])
        case "or":
            fitting = [it for it in form["elements"] if _has_calls(it) is script.calls]
            return write((fitting or form["elements"])[0], script)
        case "optional" | "star":
            return write(form["content"], script) if _thinks(form["content"]) and script.thinking else ""
        case "plus":
            return write(form["content"], script)
        case _:
            return _written_calls(form, script)


def _written_tag(form: dict[str, Any], script: Script) -> str:
    content = script.thinking if _thinks(form) else write(form["content"], script)
    end = form["end"] if isinstance(form["end"], str) else form["end"][0]
    return f"{form['begin']}{content}{end}"


def _written_calls(form: dict[str, Any], script: Script) -> str:
    if not script.calls and not form.get("at_least_one"):
        return script.said if form["type"] == "triggered_tags" else ""
    tags = {_name_in(tag["begin"]): tag for tag in form["tags"]}
    picked = script.pick(list(tags), not form.get("stop_after_first"))
    separator = str(form.get("separator", ""))
    return separator.join([_written_tag(tags[name], replace(script, hints=hints)) for name, hints in picked])


def _name_in(begin: str) -> str:
    found = _NAME.search(begin)
    return str(json.loads(found[1])) if found else begin


def _thinks(form: dict[str, Any]) -> bool:
    return bool(form.get("type", "tag") == "tag" and form["begin"] == _THINK and form["content"]["type"] == "any_text")


def _has_calls(form: dict[str, Any]) -> bool:
    return form["type"] in ("triggered_tags", "tags_with_separator") or any(map(_has_calls, _parts(form)))
