"""LangChain's standard suite on engines: the wire is vLLM's, the grammar leaves the tiny model no wrong arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage

from autoglm_client.langchain import ChatAutoGLM
from autoglm_client.langchain.question import Question
from server_stub.scripted.filling import Hints, fill

from ..langchain.suite import Integration

JOKE = {"type": "object", "properties": {"setup": {"type": "string"}, "punchline": {"type": "string"}}}


class Narrowed(ChatAutoGLM):
    """Asks for what a model of four megabytes can give: the one object that the question is about.

    That model never calls a tool by itself, and in a free string it never finds an end.
    """

    def _put(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any], tools: bool) -> Question:
        text = messages[-1].text
        narrow = dict(given)
        if offered := given.get("tools"):
            narrow["tools"] = [_with_one_call(tool, text) for tool in offered]
            if given["tool_choice"] == "auto":
                narrow["tool_choice"] = "required" if isinstance(messages[-1], HumanMessage) else "none"
            narrow.setdefault("parallel_tool_calls", False)
        if form := given.get("response_format"):
            schema = JOKE if form["type"] == "json_object" else form["json_schema"]["schema"]
            narrow["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "it", "schema": _with_one_value(schema, text)},
            }
        return super()._put(messages, stop, narrow, tools)


def _with_one_call(tool: Mapping[str, Any], text: str) -> dict[str, Any]:
    parameters = _with_one_value(tool["function"]["parameters"], text)
    return {**tool, "function": {**tool["function"], "parameters": parameters}}


def _with_one_value(schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    values = fill(schema, Hints.of(text))
    properties = {name: {"enum": [value]} for name, value in values.items()}
    return {"type": "object", "properties": properties, "required": list(values), "additionalProperties": False}


class OnEngine(Integration):
    """No remote pictures: the launcher lets the engine fetch nothing."""

    engine: ClassVar[str]

    def __init_subclass__(cls, *, engine: str = "plain", **options: Any) -> None:
        cls.engine = engine
        super().__init_subclass__(temperature=0, max_tokens=256, **options)

    api_key: str | None

    @pytest.fixture(autouse=True)
    def _engine(self, request: pytest.FixtureRequest) -> None:
        engine = request.getfixturevalue(self.engine)
        self.base_url, self.api_key = engine.base_url, engine.api_key

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return Narrowed

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return super().chat_model_params | {"api_key": self.api_key}


class TestPlain(OnEngine, engine="plain", tells="cache_read_input"):
    pass


class TestPlainInBlocks(OnEngine, engine="plain", method="function_calling", output_version="v1", streaming=True):
    pass


class TestParser(OnEngine, engine="parser", tells="cache_read_input reasoning_output", method="function_calling"):
    pass


class TestParserOfTools(OnEngine, engine="parser", tool_calling="server"):
    """The engine reads the calls; GLM-4.1V's template shows the model neither tools nor results."""
