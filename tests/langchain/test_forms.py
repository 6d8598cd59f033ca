"""Answers in a given form: what is asked for, what is read, what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pydantic.v1
import pytest
from langchain_core.exceptions import (
    ModelInvalidRequestError,
    OutputParserException,
)
from langchain_core.messages import AIMessage
from pydantic import RootModel
from typing_extensions import TypedDict

from autoglm_client.langchain import ChatAutoGLM
from server_stub import ScriptedServer

from .asking import City, add, answering

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")


class CityDict(TypedDict):
    """Where one lives."""

    name: str


class OldCity(pydantic.v1.BaseModel):
    """Where one lives."""

    name: str


SCHEMAS: dict[str, tuple[Any, Any]] = {
    "pydantic": (City, City(name="Paris")),
    "pydantic 1": (OldCity, OldCity(name="Paris")),
    "TypedDict": (CityDict, {"name": "Paris"}),
    "JSON schema": (City.model_json_schema(), {"name": "Paris"}),
}


@pytest.mark.parametrize(("schema", "expected"), SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(model: ChatAutoGLM, schema: Any, expected: Any, method: Any) -> None:
    question = 'The city is "Paris": give JSON with `name`'
    structured = model.with_structured_output(schema, method=method)
    assert structured.invoke(question) == expected
    assert list(structured.stream(question))[-1] == expected
    assert asyncio.run(structured.ainvoke(question)) == expected
    raw = model.with_structured_output(schema, method=method, include_raw=True).invoke(question)
    assert (raw["parsed"], raw["parsing_error"]) == (expected, None)
    assert isinstance(raw["raw"], AIMessage)


def test_any_json(model: ChatAutoGLM) -> None:
    assert model.with_structured_output(method="json_mode").invoke('"Paris" as JSON with `name`') == {"name": "Paris"}


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_object_that_was_cut_is_refused(model: ChatAutoGLM, method: Any) -> None:
    structured = model.with_structured_output(CityDict, method=method).bind(max_tokens=4)
    with pytest.raises(OutputParserException, match="raise max_tokens"):
        structured.invoke('"Paris"')
    with pytest.raises(OutputParserException, match="raise max_tokens"):
        list(structured.stream('"Paris"'))

    async def listen() -> None:
        async for _ in structured.astream('"Paris"'):
            pass

    with pytest.raises(OutputParserException, match="raise max_tokens"):
        asyncio.run(listen())
    raw = model.with_structured_output(CityDict, method=method, include_raw=True, max_tokens=4).invoke("x")
    assert (raw["parsed"], type(raw["parsing_error"])) == (None, OutputParserException)


def test_a_form_as_a_plain_option(model: ChatAutoGLM, server: ScriptedServer) -> None:
    assert json.loads(model.invoke('"Paris"', response_format=City).text) == {"name": "Paris"}
    assert json.loads(model.invoke('"Paris"', response_format=City.model_json_schema()).text) == {"name": "Paris"}
    assert model.invoke("Hello", response_format={"type": "text"}).text


def test_tags_in_a_json_string_stay() -> None:
    for server in answering('{"name": "<think>x</think>"}'):
        model = ChatAutoGLM(base_url=server.base_url)
        assert model.with_structured_output(City).invoke("x") == City(name="<think>x</think>")


def test_tags_in_an_object_beside_tools_stay() -> None:
    for server in answering('{"name": "a </answer> b"}'):
        form = {"type": "json_schema", "json_schema": {"name": "City", "schema": City.model_json_schema()}}
        model = ChatAutoGLM(base_url=server.base_url, tool_calling="client")
        assert model.bind_tools([add], response_format=form).invoke("x").text == '{"name": "a </answer> b"}'


class Numbers(RootModel[list[int]]):
    """Some numbers."""


ROOTS: dict[str, tuple[Any, Any]] = {
    "an array": ({"title": "L", "type": "array", "items": {"type": "integer"}}, [7]),
    "a choice": ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, 7),
    "a root model": (Numbers, Numbers([7])),
}


@pytest.mark.parametrize(("schema", "expected"), ROOTS.values(), ids=ROOTS)
def test_forms_that_are_no_objects(model: ChatAutoGLM, schema: Any, expected: Any) -> None:
    assert model.with_structured_output(schema).invoke("7") == expected
    with pytest.raises(ModelInvalidRequestError, match="is no object"):
        model.with_structured_output(schema, method="function_calling")


@pytest.mark.parametrize("schema", [list[int], 3])
def test_what_is_no_form(model: ChatAutoGLM, schema: Any) -> None:
    with pytest.raises(ModelInvalidRequestError, match="is no schema"):
        model.with_structured_output(schema)


@pytest.mark.parametrize("answer", ["sorry no", '<tool_call>{"name": "City", "arguments": [1]}</tool_call>'])
def test_an_answer_without_a_call_is_refused(answer: str) -> None:
    for server in answering(answer):
        model = ChatAutoGLM(base_url=server.base_url, tool_calling="client")
        structured = model.with_structured_output(City, method="function_calling")
        with pytest.raises(OutputParserException, match="there is no tool call"):
            structured.invoke("x")
        with pytest.raises(OutputParserException, match="there is no tool call"):
            asyncio.run(structured.ainvoke("x"))
        with pytest.raises(OutputParserException, match="there is no tool call"):
            list(structured.stream("x"))


async def test_a_call_in_an_async_stream(model: ChatAutoGLM) -> None:
    structured = model.with_structured_output(City, method="function_calling")
    assert [city async for city in structured.astream('"Paris"')][-1] == City(name="Paris")


def test_wrong_requests_for_a_form(model: ChatAutoGLM) -> None:
    with pytest.raises(ValueError, match="give one of json_schema, function_calling, json_mode"):
        model.with_structured_output(City, method="magic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a schema"):
        model.with_structured_output(None)
