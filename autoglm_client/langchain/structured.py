"""Answers in a given form: what to ask for, and how to read it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any, Literal, TypeAlias

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import RootModel

from .. import ConfigurationError

__all__ = [
    "METHODS",
    "Method",
    "Parser",
    "Schema",
    "answer_parser",
    "call_parser",
    "response_format",
    "tool_name",
    "with_raw",
]

Method = Literal["json_schema", "function_calling", "json_mode"]
Schema: TypeAlias = dict[str, Any] | type
Parser: TypeAlias = Runnable[AIMessage, Any]
_REQUESTS = {"json_schema", "json_object", "structural_tag", "text"}
_ROOTS = {"items", "prefixItems", "anyOf", "oneOf", "$ref", "enum", "const"}
METHODS: tuple[Method, ...] = ("json_schema", "function_calling", "json_mode")


def response_format(schema: Schema, *, strict: bool | None = None) -> dict[str, Any]:
    """The request for JSON of a schema: a pydantic class of version 1 or 2, a TypedDict, JSON schema, or a request."""
    if isinstance(schema, dict) and schema.get("type") in _REQUESTS:
        return schema
    plain = _json_schema(schema, strict)
    name = re.sub(r"[^\w-]", "_", str(plain.get("title", "answer")))
    named = {"name": name, "schema": plain} | ({} if strict is None else {"strict": strict})
    return {"type": "json_schema", "json_schema": named}


def _json_schema(schema: Schema, strict: bool | None) -> dict[str, Any]:
    """LangChain's own conversion knows objects alone, and makes of an array a schema that anything fits."""
    if isinstance(schema, dict) and schema.keys() & _ROOTS and not schema.keys() & {"properties", "parameters"}:
        return schema
    if isinstance(schema, type) and issubclass(schema, RootModel):
        return schema.model_json_schema()
    try:
        return convert_to_json_schema(schema, strict=strict)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{schema!r} is no schema: give a pydantic class, a TypedDict, or JSON schema"
        ) from error


def answer_parser(schema: Schema | None) -> Parser:
    """The parser of the answer's text: to instances of a pydantic class, else to dictionaries."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return WHOLE | PydanticOutputParser[Any](pydantic_object=schema)
    return WHOLE | JsonOutputParser()


def call_parser(schema: Schema) -> Parser:
    """The parser of a tool call's arguments."""
    if isinstance(schema, type) and is_basemodel_subclass(schema):
        return WHOLE | CALLED | PydanticToolsParser(tools=[schema], first_tool_only=True)
    return WHOLE | CALLED | JsonOutputKeyToolsParser(key_name=tool_name(schema), first_tool_only=True)


def tool_name(schema: Schema) -> str:
    """The name under which a schema is offered as a tool; its arguments must be an object."""
    form = response_format(schema)["json_schema"]["schema"]
    if form.get("type", "object") != "object" or form.keys() & _ROOTS:
        raise ConfigurationError(f"{schema!r} is no object, as the arguments of a tool must be: use json_schema")
    return str(convert_to_openai_tool(schema)["function"]["name"])


def with_raw(model: Runnable[Any, Any], parser: Parser) -> Runnable[Any, dict[str, Any]]:
    """The message and what was read of it side by side, an error of the reading instead of an exception."""
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    not_parsed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([not_parsed], exception_key="parsing_error")


def _whole(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
    for message in messages:
        yield _checked(message)


async def _awhole(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    async for message in messages:
        yield _checked(message)


def _checked(message: AIMessage) -> AIMessage:
    if message.response_metadata.get("finish_reason") == "length":
        raise OutputParserException("the answer was cut: raise max_tokens", llm_output=message.text)
    return message


WHOLE = RunnableGenerator(_whole, _awhole)
"""Refuses an answer that was cut: LangChain's parsers would complete it, and half a value is not a value."""


def _called(messages: Iterator[AIMessage]) -> Iterator[AIMessage]:
    calls = _Calls()
    for message in messages:
        yield calls.heard(message)
    calls.check()


async def _acalled(messages: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    calls = _Calls()
    async for message in messages:
        yield calls.heard(message)
    calls.check()


class _Calls:
    """Notices whether a call has come that can be read."""

    def __init__(self) -> None:
        self._any = False
        self._invalid: list[str] = []
        self._text: list[str] = []

    def heard(self, message: AIMessage) -> AIMessage:
        self._any = self._any or bool(message.tool_calls)
        self._invalid += [str(call["args"]) for call in message.invalid_tool_calls]
        self._text.append(message.text)
        return message

    def check(self) -> None:
        if not self._any:
            why = f"its arguments cannot be read: {self._invalid[0]}" if self._invalid else "the model made none"
            raise OutputParserException(f"there is no tool call: {why}", llm_output="".join(self._text))


CALLED = RunnableGenerator(_called, _acalled)
"""Refuses an answer without a call, where LangChain's parsers would give ``None``."""
