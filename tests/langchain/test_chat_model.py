"""ChatAutoGLM against the scripted server: what is asked, what comes back, and what LangChain wants to know."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import socket
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpx2
import pydantic.v1
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelRateLimitError,
    ModelTimeoutError,
    OutputParserException,
)
from langchain_core.load import dumpd, dumps, loads
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField
from pydantic import BaseModel, RootModel, ValidationError, create_model
from typing_extensions import TypedDict

from autoglm_client import NotFound, RateLimited, Timeouts
from autoglm_client.langchain import ChatAutoGLM, first_message, phone_tools
from server_stub import ScriptedServer
from server_stub.phone import DrawnPhone
from server_stub.scripted import Answer, ToolCall

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
KEY = "sk-not-to-be-seen"


@pytest.fixture
def model(server: ScriptedServer) -> ChatAutoGLM:
    return ChatAutoGLM(base_url=server.base_url, max_retries=0)


def body(server: ScriptedServer, position: int = -1) -> dict[str, Any]:
    found = server.requests[position].body
    assert found is not None
    return found


def added(chunks: Iterable[Any]) -> AIMessageChunk:
    first, *others = chunks
    return add_ai_message_chunks(first, *others)


def answering(text: str, **options: Any) -> Iterator[ScriptedServer]:
    with ScriptedServer(answer=lambda request: text, **options) as server:
        yield server


def test_what_is_asked(server: ScriptedServer) -> None:
    model = ChatAutoGLM(
        base_url=server.base_url,
        api_key=KEY,
        temperature=0.5,
        top_p=0.9,
        max_tokens=50,
        seed=1,
        stop=["X"],
        thinking=True,
        model_kwargs={"priority": 2},
        extra_body={"anything": 1},
        default_headers={"X-Team": "phones"},
    )
    model.invoke([SystemMessage("Be brief"), HumanMessage("Hello")], top_k=3)
    assert body(server) == {
        "model": "autoglm-phone-9b",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hello"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "max_tokens": 50,
        "seed": 1,
        "stop": ["X"],
        "priority": 2,
        "anything": 1,
        "chat_template_kwargs": {"enable_thinking": True},
        "include_reasoning": True,
        "skip_special_tokens": False,
        "stream": False,
    }
    assert server.requests[0].headers["x-team"] == "phones"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_call_wins_over_the_model(server: ScriptedServer) -> None:
    model = ChatAutoGLM(base_url=server.base_url, temperature=0.5, stop=["X"], n=2)
    model.invoke("Hello", temperature=0.1, stop=["Y"])
    assert (body(server)["temperature"], body(server)["stop"], body(server)["n"]) == (0.1, ["Y"], 2)
    list(model.stream("Hello"))
    assert "n" not in body(server)


def test_constraints_are_plain_options(model: ChatAutoGLM, server: ScriptedServer) -> None:
    assert model.invoke("Hello", regex="[0-9]{2}").text == "00"
    assert model.bind(choice=["yes", "no"]).invoke("no?").text == "no"
    assert body(server)["structured_outputs"] == {"choice": ["yes", "no"]}


def test_the_answer(model: ChatAutoGLM) -> None:
    message = model.invoke("Open Settings")
    assert message.content == 'do(action="Launch", app="Settings")'
    assert message.additional_kwargs == {"reasoning_content": "I need the app Settings."}
    assert message.content_blocks == [
        {"type": "reasoning", "reasoning": "I need the app Settings."},
        {"type": "text", "text": 'do(action="Launch", app="Settings")'},
    ]
    told = message.response_metadata
    assert (told["model_name"], told["finish_reason"], told["model_provider"]) == (
        "autoglm-phone-9b",
        "stop",
        "autoglm",
    )
    assert told["id"].startswith("chatcmpl-")
    assert told["stop_reason"] == 151348
    assert message.id is not None
    assert message.id.startswith("lc_run--")
    assert message.usage_metadata == {"input_tokens": 7, "output_tokens": 25, "total_tokens": 32}


@pytest.mark.parametrize("form", ["tags", "reasoning", "reasoning_content", "stripped"])
@pytest.mark.parametrize("version", ["v0", "v1"])
def test_streamed_or_not_it_is_one_message(form: Any, version: str) -> None:
    with ScriptedServer(reasoning=form) as server:
        model = ChatAutoGLM(base_url=server.base_url, output_version=version)
        whole = model.invoke("Open Settings")
        chunks = list(model.stream("Open Settings"))
        streamed = added(chunks)
        events = model.stream_events("Open Settings", version="v3")
        assert plain_blocks(streamed) == plain_blocks(whole) == plain_blocks(events.output)
        assert streamed.usage_metadata == whole.usage_metadata == events.output.usage_metadata
        assert streamed.response_metadata["finish_reason"] == "stop"
        assert streamed.additional_kwargs == whole.additional_kwargs
        assert chunks[-1].chunk_position == "last"
        assert len(chunks) > 4 or form == "stripped"  # where nothing tells the thinking, it is held back


def plain_blocks(message: AIMessage) -> list[dict[str, Any]]:
    return [{key: value for key, value in block.items() if key != "index"} for block in message.content_blocks]


async def test_async_says_the_same(model: ChatAutoGLM) -> None:
    whole = await model.ainvoke("Open Settings")
    assert whole.content == model.invoke("Open Settings").content
    assert "".join([chunk.text async for chunk in model.astream("Open Settings")]) == whole.content
    events = await model.astream_events("Open Settings", version="v3")
    assert (await events.output).text == whole.text


def test_thinking_that_nothing_announced_is_held_back() -> None:
    for server in answering('I go home.</think>\n<answer>do(action="Home")'):
        model = ChatAutoGLM(base_url=server.base_url)
        streamed = [chunk for chunk in model.stream("Go") if chunk.content]
        assert "".join(chunk.text for chunk in streamed) == 'do(action="Home")' == model.invoke("Go").content


def test_without_thinking_nothing_is_held_back() -> None:
    for server in answering("one two three"):
        model = ChatAutoGLM(base_url=server.base_url)
        assert len([chunk for chunk in model.stream("Go") if chunk.content]) == 1
        assert len([chunk for chunk in model.stream("Go", thinking=False) if chunk.content]) == 3


def test_several_answers(model: ChatAutoGLM) -> None:
    result = model.generate([[HumanMessage("Hello")]], n=2)
    first, second = result.generations[0]
    assert first.text == second.text
    assert [generation.message.usage_metadata is None for generation in (first, second)] == [False, True]  # type: ignore[attr-defined]


def test_log_probabilities(model: ChatAutoGLM) -> None:
    whole = model.invoke("Hello", logprobs=True).response_metadata["logprobs"]
    *_, last = model.stream("Hello", logprobs=True)
    assert whole == last.response_metadata["logprobs"]
    assert whole["content"][0]["token"] == "<think>"


def test_usage_is_told_when_wanted(server: ScriptedServer) -> None:
    asked = ChatAutoGLM(base_url=server.base_url)
    *_, last = asked.stream("Hello")
    assert last.usage_metadata is not None
    silent = ChatAutoGLM(base_url=server.base_url, stream_usage=False)
    *_, last = silent.stream("Hello")
    assert last.usage_metadata is None
    assert silent.stream_events("Hello", version="v3").output.usage_metadata is None
    counter = UsageMetadataCallbackHandler()
    asked.invoke("Hello", config={"callbacks": [counter]})
    assert counter.usage_metadata["autoglm-phone-9b"]["total_tokens"] > 0


def test_details_of_usage() -> None:
    with ScriptedServer(reasoning="reasoning") as server:
        usage = ChatAutoGLM(base_url=server.base_url).invoke("Hello").usage_metadata
    assert usage is not None
    assert usage["output_token_details"]["reasoning"] > 0


def test_further_options_are_sent_unless_a_field_says_otherwise(server: ScriptedServer) -> None:
    kwargs = {"temperature": 0.2, "max_tokens": 7, "thinking": False}
    ChatAutoGLM(base_url=server.base_url, model_kwargs=kwargs, max_tokens=9).invoke("Hello")
    sent = body(server)
    assert (sent["temperature"], sent["max_tokens"]) == (0.2, 9)
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}


# Its life


def test_two_event_loops(model: ChatAutoGLM) -> None:
    for _ in range(2):
        assert asyncio.run(model.ainvoke("Hello")).text
    assert [message.text for message in asyncio.run(model.abatch(["Hello", "Hi"]))] == [
        message.text for message in model.batch(["Hello", "Hi"])
    ]


def test_a_stream_that_is_left_ends_on_the_server() -> None:
    with ScriptedServer(pace=0.01) as server:
        model = ChatAutoGLM(base_url=server.base_url)
        for _ in model.stream("think long"):
            break
        wait_until(lambda: server.running == 0)

        async def leave() -> None:
            async for _ in model.astream("think long"):
                break

        asyncio.run(leave())
        wait_until(lambda: server.running == 0)


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_model_that_nobody_closes_leaves_no_warning(server: ScriptedServer) -> None:
    ChatAutoGLM(base_url=server.base_url).invoke("Hello")
    asyncio.run(ChatAutoGLM(base_url=server.base_url).ainvoke("Hello"))
    gc.collect()  # a ResourceWarning would be an error


def test_a_client_of_your_own(server: ScriptedServer) -> None:
    with httpx2.Client(headers={"x-own": "1"}) as http:
        ChatAutoGLM(base_url=server.base_url, http_client=http).invoke("Hello")
    assert server.requests[-1].headers["x-own"] == "1"


def test_changed_settings_count(model: ChatAutoGLM, server: ScriptedServer) -> None:
    model.invoke("Hello")
    with ScriptedServer() as other:
        model.model_copy(update={"base_url": other.base_url}).invoke("Hello")
        assert len(other.requests) == len(server.requests) == 1
        model.base_url = other.base_url
        model.invoke("Hello")
        assert len(other.requests) == 2


def test_changed_headers_and_clients_count(server: ScriptedServer) -> None:
    model = ChatAutoGLM(base_url=server.base_url, default_headers={})
    model.invoke("Hello")
    model.default_headers = {"x-own": "1"}
    model.invoke("Hello")
    assert server.requests[-1].headers["x-own"] == "1"
    with httpx2.Client(headers={"x-own": "2"}) as http:
        model.default_headers, model.http_client = {}, http
        model.invoke("Hello")
        assert server.requests[-1].headers["x-own"] == "2"
        assert copy.deepcopy(model).http_client is http
        copy.deepcopy(model).invoke("Hello")
        assert server.requests[-1].headers["x-own"] == "2"


def test_equal_models_are_equal() -> None:
    assert ChatAutoGLM(temperature=0.1) == ChatAutoGLM(temperature=0.1) != ChatAutoGLM(temperature=0.2)
    assert copy.deepcopy(ChatAutoGLM()) == ChatAutoGLM()
    assert ChatAutoGLM()._clients != "clients"


def test_copies_and_pickles(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ChatAutoGLM(base_url=server.base_url, api_key=KEY, temperature=0.5)
    model.invoke("Hello")
    assert copy.deepcopy(model).invoke("Hello").text
    pickled = pickle.dumps(model)
    assert KEY.encode() not in pickled
    monkeypatch.setenv("AUTOGLM_API_KEY", "another")
    again = pickle.loads(pickled)
    assert (again.temperature, again.api_key.get_secret_value()) == (0.5, "another")
    assert again.invoke("Hello").text


def test_the_key_is_nowhere_to_be_seen(server: ScriptedServer) -> None:
    model = ChatAutoGLM(base_url=server.base_url, api_key=KEY)
    seen: list[str] = []

    class Tracer(BaseCallbackHandler):
        def on_chat_model_start(self, serialized: dict[str, Any], messages: Any, **told: Any) -> None:
            seen.append(repr((serialized, told)))

    model.invoke("Hello", config={"callbacks": [Tracer()]})
    assert seen
    for text in (*seen, repr(model), str(model), dumps(model), str(model._get_llm_string())):
        assert KEY not in text


def test_it_is_written_and_read() -> None:
    model = ChatAutoGLM(base_url="http://phone.example:8000/v1", temperature=0.5, timeout=30)
    again = loads(dumps(model), allowed_objects=[ChatAutoGLM], valid_namespaces=["autoglm_client"])
    assert (again.base_url, again.temperature, again.timeout) == ("http://phone.example:8000/v1", 0.5, 30)
    assert dumpd(again) == dumpd(model)


WRONG = {
    "an unknown field": ({"temprature": 1}, "Extra inputs are not permitted"),
    "no server": ({"base_url": "nonsense"}, "is not a server's address"),
    "no time": ({"timeout": -1}, "give seconds above 0"),
    "no count": ({"max_retries": -1}, "max_attempts=0"),
    "an unknown option": ({"model_kwargs": {"foo": 1}}, "unknown option 'foo'"),
}


@pytest.mark.parametrize(("fields", "words"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_told_at_once(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ChatAutoGLM(**fields)


def test_nothing_means_the_default() -> None:
    model = ChatAutoGLM.model_validate(dict.fromkeys(["base_url", "model", "max_retries", "default_headers"]))
    assert model == ChatAutoGLM()
    assert ChatAutoGLM(base_url="").base_url == "http://127.0.0.1:8000/v1"
    assert ChatAutoGLM(base_url="http://127.0.0.1:8000").base_url == "http://127.0.0.1:8000/v1"


def test_the_names_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ChatAutoGLM(base_url="https://open.bigmodel.cn/api/paas/v4").model == "autoglm-phone"
    monkeypatch.setenv("PHONE_AGENT_MODEL", "another")
    assert ChatAutoGLM().model == "another"
    assert ChatAutoGLM.model_validate({"model_name": "a third"}).model == "a third"


# What LangChain wants to know


def test_the_cache_knows_every_parameter(server: ScriptedServer) -> None:
    cache = InMemoryCache()
    fields: list[dict[str, Any]] = [{}, {"temperature": 0.5}, {"seed": 1}, {"reasoning_in_history": "drop"}, {"n": 2}]
    for expected, given in enumerate(fields, 1):
        model = ChatAutoGLM(base_url=server.base_url, cache=cache, **given)
        for _ in range(2):
            model.invoke("Hello")
        assert len(server.requests) == expected
    model.temperature = 0.9
    model.invoke("Hello")
    model.invoke("Hello", top_k=1)
    assert len(server.requests) == len(fields) + 2
    assert model.invoke("Hello").usage_metadata["total_cost"] == 0  # type: ignore[index,typeddict-item]


def test_the_cache_tells_forms_of_answers_apart(server: ScriptedServer) -> None:
    cache = InMemoryCache()
    model = ChatAutoGLM(base_url=server.base_url, cache=cache)
    first, second = create_model("X", a=(int, ...)), create_model("X", b=(str, ...))
    assert json.loads(model.invoke("q", response_format=first).text).keys() == {"a"}
    assert json.loads(model.invoke("q", response_format=second).text).keys() == {"b"}
    model.invoke("q")
    blocks = ChatAutoGLM(base_url=server.base_url, cache=cache, output_version="v1").invoke("q")
    assert isinstance(blocks.content, list)


def test_traces(server: ScriptedServer) -> None:
    model = ChatAutoGLM(base_url=server.base_url, temperature=0.5, max_tokens=9, stop="X")
    assert model._get_ls_params(model="other", temperature=0.1) == {
        "ls_provider": "autoglm",
        "ls_model_name": "other",
        "ls_model_type": "chat",
        "ls_temperature": 0.1,
        "ls_max_tokens": 9,
        "ls_stop": ["X"],
    }
    assert ChatAutoGLM()._get_ls_params() == {
        "ls_provider": "autoglm",
        "ls_model_name": "autoglm-phone-9b",
        "ls_model_type": "chat",
    }
    assert model.metadata is not None
    assert "autoglm-client" in model.metadata["lc_versions"]


def test_tokens_are_counted_exactly_or_roughly(model: ChatAutoGLM) -> None:
    messages = [HumanMessage("Hello, how are you?")]
    usage = model.invoke(messages).usage_metadata
    assert usage is not None
    assert model.get_num_tokens_from_messages(messages) == usage["input_tokens"]
    assert model.get_num_tokens("Hello") == len(model.get_token_ids("Hello")) == 1
    elsewhere = ChatAutoGLM(base_url="http://127.0.0.1:9/v1", max_retries=0)
    assert elsewhere.get_num_tokens("Hello") == 2
    assert 0 < elsewhere.get_num_tokens_from_messages(messages, tools=[add]) < 200
    assert elsewhere.get_num_tokens_from_messages(messages) < 20


@pytest.mark.parametrize("parser", [True, False])
def test_tools_and_old_screens_count_as_they_are_sent(parser: bool) -> None:
    with ScriptedServer(tool_parser=parser) as server:
        model = ChatAutoGLM(base_url=server.base_url)
        question: list[BaseMessage] = [HumanMessage("add 1 and 2")]
        usage = model.bind_tools([add]).invoke(question).usage_metadata
        assert usage is not None
        assert model.get_num_tokens_from_messages(question, tools=[add]) == usage["input_tokens"] > 20
        phone = DrawnPhone()
        tools = phone_tools(phone)
        turns: list[BaseMessage] = [first_message(phone, "x"), AIMessage("do()"), first_message(phone, "x")]
        usage = model.bind_tools(tools).invoke(turns).usage_metadata
        assert usage is not None
        assert model.get_num_tokens_from_messages(turns, tools=tools) == usage["input_tokens"]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_the_profile() -> None:
    profile = ChatAutoGLM().profile
    assert profile is not None
    assert profile["max_input_tokens"] == 25480
    assert profile["structured_output"]


def test_runnables_around_it(server: ScriptedServer) -> None:
    model = ChatAutoGLM(base_url=server.base_url, max_retries=0)
    server.fail(429, times=1)
    assert model.with_retry(retry_if_exception_type=(RateLimited,), wait_exponential_jitter=False).invoke("Hello").text
    server.fail(503, times=1)
    assert model.with_fallbacks([ChatAutoGLM(base_url=server.base_url)]).invoke("Hello").text
    configurable = model.configurable_fields(temperature=ConfigurableField(id="warmth"))
    configurable.with_config(configurable={"warmth": 0.7}).invoke("Hello")
    assert body(server)["temperature"] == 0.7
    limited = ChatAutoGLM(
        base_url=server.base_url, rate_limiter=InMemoryRateLimiter(requests_per_second=50, check_every_n_seconds=0.01)
    )
    assert limited.invoke("Hello").text


def test_callbacks_hear_every_token(model: ChatAutoGLM) -> None:
    heard: list[str] = []

    class Ears(BaseCallbackHandler):
        def on_llm_new_token(self, token: Any, **told: Any) -> None:
            heard.append(token)

    text = "".join(chunk.text for chunk in model.stream("Hello", config={"callbacks": [Ears()]}))
    assert "".join(heard) == text


def test_conventional_streams_tell_their_run_manager(model: ChatAutoGLM) -> None:
    """LangChain gives ``_stream`` a run manager when something other than its own ``stream`` calls it."""
    told: list[str] = []

    class Manager:
        def on_llm_new_token(self, token: str, chunk: Any) -> None:
            told.append(token)

    class AsyncManager:
        async def on_llm_new_token(self, token: str, chunk: Any) -> None:
            told.append(token)

    texts = [chunk.text for chunk in model._stream([HumanMessage("Hello")], run_manager=Manager())]  # type: ignore[arg-type]
    assert texts == told
    told.clear()

    async def listen() -> list[str]:
        stream = model._astream([HumanMessage("Hello")], run_manager=AsyncManager())  # type: ignore[arg-type]
        return [chunk.text async for chunk in stream]

    assert asyncio.run(listen()) == told
    events = list(model._stream_chat_model_events([HumanMessage("Hello")]))
    assert events[0]["event"] == "message-start"


# Tools


class City(BaseModel):
    """Where one lives."""

    name: str


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
            assert "do" in json.dumps(body(server)["response_format"])


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


# Forms of answers


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


# Errors


def test_errors_are_ours_and_theirs(server: ScriptedServer) -> None:
    model = ChatAutoGLM(base_url=server.base_url, max_retries=0)
    server.fail(429, times=3, message="slow down")
    for call in (model.invoke, lambda text: list(model.stream(text))):
        with pytest.raises(ModelRateLimitError) as raised:
            call("Hello")
        assert isinstance(raised.value, RateLimited)
        assert raised.value.is_retryable
    with pytest.raises(ModelRateLimitError):
        asyncio.run(model.ainvoke("Hello"))
    with pytest.raises(ContextOverflowError):
        model.invoke("word " * 30_000)
    with pytest.raises(ModelNotFoundError):
        model.invoke("Hello", model="another")
    with pytest.raises(ModelInvalidRequestError, match="unknown option 'temprature'"):
        model.invoke("Hello", temprature=1)
    with pytest.raises(ModelConnectionError):
        ChatAutoGLM(base_url="http://127.0.0.1:9/v1", max_retries=0).invoke("Hello")
    with pytest.raises(ModelTimeoutError):
        ChatAutoGLM(base_url=server.base_url, max_retries=0).invoke("Hello", timeout=Timeouts(total=1e-6))
