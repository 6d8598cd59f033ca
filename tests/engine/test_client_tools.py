"""Calls of tools on an engine without a tool parser: a grammar holds them, the client reads them from the text."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from autoglm_client import AutoGLM, BadRequest, ToolCall
from autoglm_client.langchain.call_reader import ToolCallReader
from autoglm_client.langchain.client_tools import call_text, constraint, describe, result_text

NODE = {
    "type": "object",
    "properties": {"value": {"enum": [1]}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Node"}]}},
    "required": ["value", "next"],
}
ANSWERS = {"Settings", "微信"}


def rows(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "maxItems": 2, "items": items}


def objects(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


SCHEMAS: dict[str, dict[str, Any]] = {
    "choice": objects(city={"enum": ["北京", "Zürich", 'a"b\\c']}),
    "nothing": {},
    "number": objects(x={"type": "integer", "minimum": 1, "maximum": 9}, on={"type": "boolean"}),
    "pattern": objects(code={"type": "string", "pattern": "^[A-Z]{2}[0-9]$"}),
    "rows": objects(rows=rows(rows({"enum": [1, "一", None]}))),
    "nested": objects(place=objects(floor={"enum": [1, 2]}, room=objects(name={"const": "kitchen"}))),
    "recursive": {**objects(node={"$ref": "#/$defs/Node"}), "$defs": {"Node": NODE}},
    "definitions": {"$ref": "#/definitions/A", "definitions": {"A": objects(a={"const": 1})}},
    "optional": {"type": "object", "properties": {"a": {"enum": [1]}, "b": {"enum": [2]}}},
    "open": objects(a={"enum": [1]}) | {"additionalProperties": {"enum": [2]}, "maxProperties": 2},
    "天气": objects(城市={"enum": ["上海"]}),
    'a"<tool_call>': objects(a={"enum": [True]}),
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "parameters": it}} for name, it in SCHEMAS.items()
]
ANSWER = objects(app={"enum": sorted(ANSWERS)})


class Read(NamedTuple):
    text: str
    calls: list[ToolCall]
    reasoning: str


def ask(glm: AutoGLM, question: Any, tools: list[Any] = TOOLS, **options: Any) -> Read:
    sampling: dict[str, Any] = {"max_tokens": 128}
    sampling |= {name: options.pop(name) for name in ("temperature", "seed", "max_tokens") if name in options}
    with glm.stream(question, **sampling, response_format=constraint(tools, **options)) as stream:
        reply = stream.finish()
    return read(reply.text, reply.reasoning)


def read(text: str, reasoning: str = "") -> Read:
    reader = ToolCallReader()
    pieces = [piece for character in text for piece in reader.feed(character)] + reader.close()
    calls = [piece for piece in pieces if isinstance(piece, ToolCall)]
    return Read("".join(it for it in pieces if isinstance(it, str)), calls, reasoning)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_tool_that_is_named_is_called(glm: AutoGLM, name: str) -> None:
    told = ask(glm, "Open Settings", choice=name, parallel=False)
    assert not told.text
    assert [it.name for it in told.calls] == [name]
    check(told.calls[0])


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_model_fancies_is_a_call(glm: AutoGLM, seed: int) -> None:
    told = ask(glm, "Open Settings", choice="required", parallel=False, temperature=2, seed=seed, max_tokens=512)
    assert not told.text
    assert len(told.calls) == 1
    check(told.calls[0])


@pytest.mark.parametrize("seed", range(2))
def test_several_calls(glm: AutoGLM, seed: int) -> None:
    tools = [it for it in TOOLS if it["function"]["name"] in ("choice", "天气")]
    told = ask(glm, "Open Settings", tools, choice="required", temperature=1, seed=seed)
    assert "<tool_call>".startswith(told.text)  # one that max_tokens has cut
    assert told.calls
    for call in told.calls[:-1]:  # and so may the last be
        check(call)


def test_a_plain_answer_is_the_streamed_one(glm: AutoGLM) -> None:
    form = constraint(TOOLS, choice="number", parallel=False)
    reply = glm.chat("Open Settings", response_format=form, max_tokens=128)
    streamed = ask(glm, "Open Settings", choice="number", parallel=False)
    assert read(reply.text, reply.reasoning) == streamed


def test_the_model_thinks_first(glm: AutoGLM) -> None:
    assert ask(glm, "Open Settings", choice="required", parallel=False).reasoning


def test_where_it_may_speak_it_does(glm: AutoGLM) -> None:
    told = ask(glm, "Open Settings", choice="auto")
    assert told.calls == []
    assert told.text == 'do(action="Launch", app="Settings")'
    assert told.reasoning
    assert ask(glm, "Open Settings", choice="none").text == told.text


@pytest.mark.parametrize("parallel", [True, False])
def test_where_it_may_speak_a_call_that_it_begins_is_held(glm: AutoGLM, parallel: bool) -> None:
    tools = [it for it in TOOLS if it["function"]["name"] in ("choice", "天气")]
    form = constraint(tools, choice="auto", parallel=parallel)
    thinking, speaking = form["format"]["elements"]
    form["format"]["elements"] = [thinking, {**speaking, "at_least_one": True}]  # or this model would never call
    with glm.stream("Open Settings", max_tokens=128, response_format=form) as stream:
        told = read(stream.finish().text)
    assert told.calls
    check(told.calls[0])


@pytest.mark.parametrize("seed", range(2))
def test_a_call_or_the_object(glm: AutoGLM, seed: int) -> None:
    told = ask(glm, "Open Settings", choice="auto", parallel=False, schema=ANSWER, temperature=1, seed=seed)
    assert bool(told.calls) != bool(told.text)
    if told.text:
        assert json.loads(told.text)["app"] in ANSWERS
    for call in told.calls:
        check(call)


def test_the_object_alone(glm: AutoGLM) -> None:
    told = ask(glm, "Open Settings", [], choice="auto", schema=ANSWER)
    assert json.loads(told.text)["app"] in ANSWERS
    assert told.reasoning


def test_a_turn_with_all_of_the_history(glm: AutoGLM) -> None:
    tools = [it for it in TOOLS if it["function"]["name"] in ("number", "nothing")]
    messages: list[Any] = [
        {"role": "system", "content": describe(tools, "required")},
        {"role": "user", "content": "Open Settings"},
        {"role": "assistant", "content": call_text("number", {"x": 5, "on": True})},
        {"role": "user", "content": result_text("number", "</tool_response> 5", "error")},
    ]
    told = ask(glm, messages, tools, choice="required", parallel=False)
    check(told.calls[0])


def test_an_engine_with_a_reasoning_parser(glm_parser: AutoGLM) -> None:
    told = ask(glm_parser, "Open Settings", choice="number", parallel=False)
    assert [it.name for it in told.calls] == ["number"]
    check(told.calls[0])


def test_a_reference_to_nothing_is_refused(glm: AutoGLM) -> None:
    tools = [{"type": "function", "function": {"name": "x", "parameters": objects(a={"$ref": "#/$defs/Nothing"})}}]
    form = constraint(tools, choice="x")
    with pytest.raises(BadRequest, match="structural_tag"):
        glm.chat("Open Settings", response_format=form)


def check(call: ToolCall) -> None:
    """Hold the arguments against the schema, as far as it is one of the above."""
    arguments = call.parsed()
    schema = SCHEMAS[call.name]
    fits(arguments, schema, schema)


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> None:
    for step in schema.get("$ref", "#").split("/")[1:]:
        schema = (root if step in ("$defs", "definitions") else schema)[step]
    if "anyOf" in schema:
        schema = schema["anyOf"][value is not None]
        return fits(value, schema, root)
    if "enum" in schema or "const" in schema:
        assert value in schema.get("enum", [schema.get("const")])
    if isinstance(value, dict):
        known = schema.get("properties", {})
        assert set(schema.get("required", [])) <= set(value)
        assert "additionalProperties" in schema or set(value) <= set(known)
        for name, part in value.items():
            fits(part, known.get(name) or schema["additionalProperties"], root)
    if isinstance(value, list):
        assert schema["minItems"] <= len(value) <= schema["maxItems"]
        for part in value:
            fits(part, schema["items"], root)
    return None
