"""Tools of ChatAutoGLM: how they are offered, chosen, and called."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from typing import Any

import pytest
from langchain_core.exceptions import (
    ModelInvalidRequestError,
    ModelTimeoutError,
)

from autoglm_client import NotFound
from autoglm_client.langchain import ChatAutoGLM, phone_tools
from server_stub import ScriptedServer
from server_stub.phone import DrawnPhone
from server_stub.scripted import Answer, ToolCall

from .asking import City, add, added, answering, body

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")


@pytest.mark.parametrize(("parser", "asked"), [(True, 3), (False, 2)])
def test_how_tools_work_is_asked_once(parser: bool, asked: int) -> None:
    """Twice ``/tokenize``, which tells whether the model sees tools; if so, one call of one token."""
    with ScriptedServer(tool_parser=parser) as server:
        model = ChatAutoGLM(base_url=server.base_url).bind_tools([add], tool_choice="any")
        for _ in range(2):
            assert model.invoke("add 1 and 2").tool_calls[0]["args"] == {"a": 1, "b": 2}
        assert ("tools" in body(server)) is parser
        assert len(server.requests) == asked + 2


@pytest.mark.parametrize("parser", [True, False])
def test_async_asks_too(parser: bool) -> None:
    with ScriptedServer(tool_parser=parser) as server:
        model = ChatAutoGLM(base_url=server.base_url).bind_tools([add], tool_choice="add")
        for _ in range(2):
            assert asyncio.run(model.ainvoke("add 1 and 2")).tool_calls[0]["args"] == {"a": 1, "b": 2}
        assert ("tools" in body(server)) is parser


@pytest.mark.parametrize("refuses", [True, False])
def test_a_server_without_tokenize_is_asked_for_a_call(refuses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer(tool_parser=not refuses) as server:
        model = ChatAutoGLM(base_url=server.base_url)
        clients = model._clients

        def missing(*_: Any, **__: Any) -> Any:
            raise NotFound("404")

        async def amissing(*_: Any, **__: Any) -> Any:
            raise NotFound("404")

        monkeypatch.setattr(clients.client, "tokenize", missing)
        monkeypatch.setattr(clients.async_client, "tokenize", amissing)
        assert clients.takes_tools(None) is not refuses
        clients._takes_tools = None
        assert asyncio.run(clients.atakes_tools(None)) is not refuses


def test_what_is_chosen_is_not_asked(server: ScriptedServer) -> None:
    for way in ("server", "client"):
        model = ChatAutoGLM(base_url=server.base_url, tool_calling=way).bind_tools([add], tool_choice="any")
        assert model.invoke("add 1 and 2").tool_calls
    assert [request.path for request in server.requests] == ["/v1/chat/completions"] * 2
    assert body(server, 0)["tools"][0]["function"]["strict"] is True
    assert body(server, 0)["tool_choice"] == "required"
    assert body(server, 1)["response_format"]["type"] == "structural_tag"


CHOICES = {
    "auto": (None, "auto"),
    "any": ("any", "required"),
    "true": (True, "required"),
    "false": (False, "none"),
    "a name": ("add", {"type": "function", "function": {"name": "add"}}),
    "OpenAI's": (
        {"type": "function", "function": {"name": "add"}},
        {"type": "function", "function": {"name": "add"}},
    ),
    "Anthropic's": ({"type": "tool", "name": "add"}, {"type": "function", "function": {"name": "add"}}),
    "Anthropic's any": ({"type": "any"}, "required"),
}


@pytest.mark.parametrize(("given", "sent"), CHOICES.values(), ids=CHOICES)
def test_choices_of_a_tool(server: ScriptedServer, given: Any, sent: Any) -> None:
    model = ChatAutoGLM(base_url=server.base_url, tool_calling="server")
    model.bind_tools([add], tool_choice=given).invoke("add 1 and 2")
    assert body(server)["tool_choice"] == sent


def test_a_choice_that_is_none_of_the_tools(model: ChatAutoGLM) -> None:
    with pytest.raises(ModelInvalidRequestError, match="give auto, any, none, or one of add"):
        model.bind_tools([add], tool_choice="subtract")


NO_TOOLS: dict[str, tuple[Any, str]] = {
    "another provider's": ([{"type": "web_search_preview"}], "another provider's tool"),
    "not a tool": ([3], "cannot be offered as a tool"),
}


@pytest.mark.parametrize(("tools", "words"), NO_TOOLS.values(), ids=NO_TOOLS)
def test_what_is_no_tool(model: ChatAutoGLM, tools: Any, words: str) -> None:
    with pytest.raises(ModelInvalidRequestError, match=words):
        model.bind_tools(tools)


@pytest.mark.parametrize("choice", [["add"], "nonsense", 3])
def test_choices_that_are_none(model: ChatAutoGLM, choice: Any) -> None:
    phone = phone_tools(DrawnPhone())
    offers: list[list[Any]] = [[add], [*phone], [add, *phone]]
    for tools in offers:
        with pytest.raises(ModelInvalidRequestError, match="tool_choice="):
            model.bind_tools(tools, tool_choice=choice)


def test_choices_of_a_phone() -> None:
    phone: list[Any] = list(phone_tools(DrawnPhone()))
    for server in answering('<think>x</think><answer>do(action="Home")'):
        model = ChatAutoGLM(base_url=server.base_url, tool_calling="client")
        assert [call["name"] for call in model.bind_tools(phone).invoke("x").tool_calls] == ["home"]
        assert "response_format" not in body(server)
        for tools in (phone, [*phone, add]):
            assert model.bind_tools(tools, tool_choice="none").invoke("x").tool_calls == []
            assert model.bind_tools(tools, tool_choice="any").invoke("x").tool_calls
            assert "(action=" in json.dumps(body(server)["response_format"])


def test_many_at_once_ask_once() -> None:
    with ScriptedServer() as server:
        questions = ["add 1 and 2"] * 8
        bound = ChatAutoGLM(base_url=server.base_url).bind_tools([add], tool_choice="any")
        bound.batch(list(questions), config={"max_concurrency": 8})
        assert len(server.requests) == 8 + 3
        bound = ChatAutoGLM(base_url=server.base_url).bind_tools([add], tool_choice="any")
        asyncio.run(bound.abatch(list(questions)))
        assert len(server.requests) == 2 * (8 + 3)


def test_asking_is_part_of_the_calls_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        model = ChatAutoGLM(base_url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1", max_retries=0)
        began = time.monotonic()
        with pytest.raises(ModelTimeoutError):
            model.bind_tools([add]).invoke("x", timeout=0.3)
        with pytest.raises(ModelTimeoutError):
            asyncio.run(model.bind_tools([add]).ainvoke("x", deadline=time.monotonic() + 0.3, timeout=None))
        assert time.monotonic() - began < 3


def test_without_a_limit_asking_has_none_either(server: ScriptedServer) -> None:
    model = ChatAutoGLM(base_url=server.base_url, timeout=None).bind_tools([add])
    assert model.invoke("add 1 and 2").tool_calls


def test_one_call_at_a_time_is_said(server: ScriptedServer) -> None:
    model = ChatAutoGLM(base_url=server.base_url, tool_calling="client")
    model.bind_tools([add], parallel_tool_calls=False).invoke("add 1 and 2")
    assert "one tool at a time" in body(server)["messages"][0]["content"]


def test_a_hosted_server_takes_no_constraints() -> None:
    with pytest.raises(ModelInvalidRequestError, match="choice: this server has no structured outputs"):
        ChatAutoGLM(base_url="https://open.bigmodel.cn/api/paas/v4").invoke("x", choice=["yes", "no"])


def test_no_tools_are_no_tools(model: ChatAutoGLM, server: ScriptedServer) -> None:
    model.bind_tools([]).invoke("Hello")
    assert "tools" not in body(server)


@pytest.mark.parametrize("way", ["server", "client"])
def test_a_call_that_was_cut_is_no_call(way: Any) -> None:
    with ScriptedServer() as server:
        model = ChatAutoGLM(base_url=server.base_url, tool_calling=way, max_tokens=12 if way == "server" else 20)
        bound = model.bind_tools([City], tool_choice="any")
        whole = bound.invoke('City "a very long name of a city that does not end so soon"')
        streamed = added(bound.stream('City "a very long name of a city that does not end so soon"'))
        for message in (whole, streamed):
            assert message.response_metadata["finish_reason"] == "length"
            assert message.tool_calls == []
            assert str(message.invalid_tool_calls[0]["args"]).startswith("(not valid JSON) ")


BAD_ARGUMENTS = ["[1]", "3", "nonsense", '{"a": 1', ""]


@pytest.mark.parametrize("arguments", BAD_ARGUMENTS)
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_arguments_of_the_wrong_shape_are_invalid_calls(arguments: str, version: str) -> None:
    with ScriptedServer(answer=lambda _: Answer(tool_calls=(ToolCall("add", arguments),))) as server:
        model = ChatAutoGLM(base_url=server.base_url, tool_calling="server", output_version=version)
        bound: Any = model.bind_tools([add])
        for message in (
            bound.invoke("x"),
            added(bound.stream("x")),
            bound.stream_events("x", version="v3").output,
        ):
            if arguments:
                assert message.tool_calls == []
                assert str(message.invalid_tool_calls[0]["args"]).endswith(arguments)
            else:
                assert message.tool_calls[0]["args"] == {}
