"""ChatAutoGLM against the scripted server: what is asked, what comes back, and what LangChain wants to know."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import time
from typing import Any

import httpx2
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
)
from langchain_core.load import dumpd, dumps, loads
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField
from pydantic import ValidationError, create_model

from autoglm_client import RateLimited, Timeouts
from autoglm_client.langchain import ChatAutoGLM, first_message, phone_tools
from server_stub import ScriptedServer
from server_stub.phone import DrawnPhone

from ..cutting_proxy import cutting
from .asking import add, added, answering, body

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
KEY = "sk-not-to-be-seen"


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
    assert message.usage_metadata == {"input_tokens": 8, "output_tokens": 25, "total_tokens": 33}


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


def test_a_stream_that_was_cut_goes_on_where_it_was_asked_to() -> None:
    with ScriptedServer() as server, cutting(server.base_url, events=12) as url:
        told = added(ChatAutoGLM(base_url=url, model_kwargs={"resume": "always"}).stream("Open Settings"))
        whole = added(ChatAutoGLM(base_url=url).stream("Open Settings"))
    assert told.response_metadata["resumed"]
    assert "resumed" not in whole.response_metadata
    assert (told.content, told.additional_kwargs) == (whole.content, whole.additional_kwargs)
