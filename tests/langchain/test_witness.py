"""ChatOpenAI and ChatDeepSeek as witnesses: what they and ChatAutoGLM all can say, they say alike."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai.chat_models.base import _convert_message_to_dict
from pydantic import BaseModel

from autoglm_client import ConfigurationError
from autoglm_client.langchain.chat_openai import chat_openai
from autoglm_client.langchain.convert import to_wire
from server_stub import ScriptedServer
from server_stub.scripted.rules import Answer, ToolCall

from .kept import Bench, Place, _quietly

WITNESSES = ("ChatOpenAI", "ChatDeepSeek")


class App(BaseModel):
    """An app."""

    app: str
    times: int = 1


@tool
def weather(city: str, days: int = 1) -> str:
    """Tell the weather."""
    return f"{city}: rain for {days} days"


@tool
def look() -> str:
    """Look."""
    return ""


@pytest.fixture
def parsing() -> Iterator[ScriptedServer]:
    """A server with a reasoning parser and a tool parser: its answers are clean for everyone."""
    with ScriptedServer(reasoning="reasoning", aliases=["autoglm-phone"]) as server:
        yield server


@pytest.fixture(params=WITNESSES)
def witness(request: pytest.FixtureRequest, parsing: ScriptedServer) -> Iterator[Bench]:
    with _quietly(Bench(request.param, Place(parsing.base_url, parser=True, scripted=parsing))) as bench:
        yield bench


@pytest.fixture
def ours(parsing: ScriptedServer) -> Bench:
    return Bench("ChatAutoGLM", Place(parsing.base_url, parser=True, scripted=parsing))


def told(message: AIMessage) -> dict[str, Any]:
    """What a message says that all of them can say; ids are the server's, made anew for each answer."""
    metadata = message.response_metadata
    return {
        "text": message.text.strip(),  # a parser on the server leaves the line break after the thinking
        "tool_calls": [{**call, "id": bool(call["id"])} for call in message.tool_calls],
        "invalid": [(call["name"], bool(call["id"])) for call in message.invalid_tool_calls],
        "finish_reason": metadata["finish_reason"],
        "model_name": metadata["model_name"],
        "usage": usage(message),
    }


def usage(message: AIMessage) -> dict[str, Any]:
    """The counts; a count of 0 says nothing, and ours leaves it out."""
    counts: dict[str, Any] = dict(message.usage_metadata or {})
    details = {name: counts.pop(name, {}) for name in ("input_token_details", "output_token_details")}
    return counts | {f"{name} {key}": value for name, it in details.items() for key, value in it.items() if value}


WAYS = ("invoke", "stream", "astream", "v3 events")
CALLS: dict[str, dict[str, Any]] = {
    "words": {"given": "Hello there"},
    "Chinese": {"given": "你好，世界 🌍"},
    "an action": {"given": "Open Settings"},
    "no text": {"given": ""},
    "a conversation": {"given": [("system", "Be brief."), ("human", "Hello"), ("ai", "Hi."), ("human", "Open Maps")]},
    "cut": {"given": "think long", "max_tokens": 20},
    "a stop string": {"given": "Open Settings", "stop": ["Sett"]},
    "another name": {"given": "Hello", "bound": {"model": "autoglm-phone"}},
    "a call": {"given": "What is the weather in Paris in 3 days?", "tools": [weather]},
    "one of two": {"given": "Please look", "tools": [weather, look]},
    "a call without arguments": {"given": "Please look", "tools": [look]},
    "calls in parallel": {"given": "Do both", "tools": [weather, look]},
    "not in parallel": {"given": "Do both", "tools": [weather, look], "bound": {"parallel_tool_calls": False}},
    "any tool": {"given": "Hello", "tools": [weather, look], "bound": {"tool_choice": "any"}},
    "a tool by name": {"given": "Hello", "tools": [weather, look], "bound": {"tool_choice": "look"}},
    "no tool": {"given": "Hello", "tools": [weather], "bound": {"tool_choice": "none"}},
}


@pytest.mark.parametrize("name", CALLS)
def test_answers_agree(name: str, ours: Bench, witness: Bench) -> None:
    for way in WAYS:
        assert ask(ours, way, **CALLS[name]) == ask(witness, way, **CALLS[name]), way


def ask(bench: Bench, way: str, given: Any, **options: Any) -> dict[str, Any]:
    """Ask strictly, as ours does unless told not to: it counts in the prompt."""
    if "tools" in options:
        options["bound"] = {"strict": True, **options.get("bound", {})}
    return told(bench.ask(given, way, **options))


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("schema", [App, App.model_json_schema()], ids=["class", "JSON schema"])
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # ChatOpenAI's own, for a class in a stream
@pytest.mark.parametrize("include_raw", [False, True], ids=["parsed", "raw"])
def test_structured_outputs_agree(
    schema: Any, method: Any, include_raw: bool, ours: Bench, witness: Bench, parsing: ScriptedServer
) -> None:
    if method == "json_mode":
        parsing.answer = lambda _: '{"app": "Maps", "times": 3}'
    found = [_structured(bench.model(), schema, method, include_raw) for bench in (ours, witness)]
    assert found[0] == found[1]
    assert found[0][0]


def _structured(model: BaseChatModel, schema: Any, method: Any, include_raw: bool) -> list[Any]:
    form: Any = model.with_structured_output(schema, method=method, include_raw=include_raw)
    question = "The app `Maps` and 3 `times`"
    if not include_raw:
        return [form.invoke(question), list(form.stream(question))[-1]]
    streamed = [it["parsed"] for it in form.stream(question) if "parsed" in it]  # "raw" comes between them
    return [form.invoke(question)["parsed"], streamed[-1]]


@pytest.mark.parametrize("arguments", ["{", "", "not json", '{"city": "Par', "{}}"])
def test_invalid_calls_agree(arguments: str, ours: Bench, witness: Bench, parsing: ScriptedServer) -> None:
    parsing.answer = lambda _: Answer(tool_calls=(ToolCall("weather", arguments),))
    mine, theirs = (ask(bench, "invoke", "Weather", tools=[weather]) for bench in (ours, witness))
    if not arguments:  # no arguments are none, not wrong ones
        assert (mine["tool_calls"][0]["args"], mine.pop("tool_calls"), mine.pop("invalid")) == ({}, [{**CALL}], [])
        return
    assert mine == theirs


CALL = {"name": "weather", "args": {}, "id": True, "type": "tool_call"}

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURE: dict[str, Any] = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
TEXT = {"type": "text", "text": "What is this?"}


def call(name: str, identity: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "args": arguments, "id": identity, "type": "tool_call"}


HISTORIES: dict[str, Sequence[BaseMessage]] = {
    "system and human": [SystemMessage("Be brief."), HumanMessage("Hello")],
    "two of each": [
        SystemMessage("A"),
        SystemMessage("B"),
        HumanMessage("C"),
        HumanMessage("D"),
        AIMessage("E"),
        AIMessage("F"),
    ],
    "names": [HumanMessage("Hello", name="Anna"), AIMessage("Hi", name="phone"), SystemMessage("x", name="rules")],
    "a role by its name": [ChatMessage(content="Hello", role="user"), ChatMessage(content="Hi", role="assistant")],
    "Chinese and emoji": [HumanMessage("打开微信 👋\n\t\"'\\")],
    "parts of text": [HumanMessage([TEXT, {"type": "text", "text": "And this?"}])],
    "a picture as OpenAI writes it": [HumanMessage([TEXT, PICTURE])],
    "how closely to look": [
        HumanMessage([{"type": "image_url", "image_url": {**PICTURE["image_url"], "detail": "low"}}])
    ],
    "a picture as LangChain writes it": [
        HumanMessage([TEXT, {"type": "image", "base64": PIXEL, "mime_type": "image/png"}])
    ],
    "a picture by URL": [HumanMessage([{"type": "image", "url": "https://phone.example/screen.png"}, TEXT])],
    "a picture as Anthropic writes it": [
        HumanMessage([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}])
    ],
    "a call and its result": [
        HumanMessage("Weather?"),
        AIMessage("", tool_calls=[call("weather", "1", city="Paris")]),
        ToolMessage("rain", tool_call_id="1", name="weather"),
        AIMessage("It rains."),
    ],
    "words and a call": [AIMessage("I look.", tool_calls=[call("look", "7")]), ToolMessage("", tool_call_id="7")],
    "calls in parallel": [
        AIMessage("", tool_calls=[call("weather", "a", city="北京", days=2), call("weather", "b", city="Zürich")]),
        ToolMessage("rain", tool_call_id="a"),
        ToolMessage("sun", tool_call_id="b"),
    ],
    "a result that is an error": [
        AIMessage("", tool_calls=[call("look", "1")]),
        ToolMessage("no camera", tool_call_id="1", status="error"),
    ],
    "arguments of every kind": [
        AIMessage("", tool_calls=[call("look", "1", a=None, b=[1, 2.5, True], c={"d": "e"}, f='"\\\n')]),
        ToolMessage("done", tool_call_id="1"),
    ],
    "a call as Anthropic writes it": [
        AIMessage(
            [{"type": "text", "text": "I look."}, {"type": "tool_use", "name": "look", "id": "1", "input": {}}],
            tool_calls=[call("look", "1")],
        ),
        ToolMessage("done", tool_call_id="1"),
    ],
    "an answer of another model that thought": [
        AIMessage("Hi", additional_kwargs={"reasoning_content": "A greeting."})
    ],
}


@pytest.mark.parametrize("name", HISTORIES)
def test_histories_are_written_alike(name: str) -> None:
    theirs = [_convert_message_to_dict(message) for message in HISTORIES[name]]
    mine = to_wire(HISTORIES[name], native_tools=True, reasoning="drop", allow_remote_images=True)
    assert [_plain(dict(message)) for message in mine] == [_plain(message) for message in theirs]


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """One text part alone is its text, which templates write the same; no content is none."""
    content = message.get("content")
    if isinstance(content, list) and message["role"] == "assistant":
        content = "".join(part["text"] for part in content)
    return {**message, "content": content or None}


# What chat_openai() sees to


def test_it_asks_the_server_that_ours_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_BASE_URL", "https://phone.example/v1")
    monkeypatch.setenv("AUTOGLM_API_KEY", "a-key")
    monkeypatch.setenv("AUTOGLM_MODEL", "a-model")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-others")
    model = chat_openai()
    assert (model.openai_api_base, model.model_name) == ("https://phone.example/v1", "a-model")
    assert key(model) == "a-key"
    assert (model.request_timeout, model.max_retries, model.stream_usage) == (120.0, 2, True)


def test_without_a_key_it_sends_none_of_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not-for-others")
    assert key(chat_openai()) == "EMPTY"
    assert key(chat_openai(api_key="")) == "EMPTY"


def test_options_win() -> None:
    model = chat_openai(
        openai_api_base="https://phone.example/v1",
        model_name="a-model",
        openai_api_key="a-key",
        request_timeout=5,
        extra_body={"top_k": 1},
        stream_usage=False,
        temperature=0.5,
        max_retries=7,
    )
    assert (model.openai_api_base, model.model_name, key(model)) == ("https://phone.example/v1", "a-model", "a-key")
    assert (model.request_timeout, model.extra_body, model.stream_usage) == (5, {"top_k": 1}, False)
    assert (model.temperature, model.max_retries) == (0.5, 7)


def test_a_hosted_endpoint_gets_no_fields_of_vllms() -> None:
    model = chat_openai(base_url="https://open.bigmodel.cn/api/paas/v4", api_key="a-key")
    assert (model.model_name, model.extra_body, model.stream_usage) == ("autoglm-phone", None, False)


def test_without_langchain_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(ConfigurationError, match=r"autoglm-client\[openai\]"):
        chat_openai()


def key(model: Any) -> str:
    return str(model.openai_api_key.get_secret_value())


def test_it_cannot_count_tokens_even_with_a_tokenizer() -> None:
    with mock.patch("tiktoken.get_encoding"), pytest.raises(NotImplementedError):
        chat_openai().get_num_tokens_from_messages([HumanMessage("Hello")])
