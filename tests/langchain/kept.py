"""What LangChain's models keep of an AutoGLM server's answers: the table in docs/langchain.md, each cell by a probe.

``python -m tests.langchain.kept`` prints it, ``python -m tests.langchain.kept write`` puts it into the file.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from secrets import randbelow
from typing import Any, cast
from unittest import mock

from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy
from langchain.chat_models import init_chat_model
from langchain_core.caches import InMemoryCache
from langchain_core.exceptions import ContextOverflowError, ModelAPIError, ModelNotFoundError, ModelRateLimitError
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models import _client_utils
from pydantic import BaseModel, Field

from autoglm_client.langchain import ChatAutoGLM, phone_tools
from autoglm_client.langchain.chat_openai import chat_openai
from autoglm_client.langchain.register import register
from server_stub import ScriptedServer
from server_stub.phone import DrawnPhone
from server_stub.screen import Button, draw_screen
from server_stub.scripted.rules import Answer, ToolCall

from ..raw_server import DONE, HEAD, delta, event, raw_server

__all__ = ["FEATURES", "PEERS", "Bench", "Feature", "Place", "documented", "measured", "table"]

DOCS = Path(__file__).parents[2] / "docs" / "langchain.md"
BEGIN, END = "<!-- kept:begin -->", "<!-- kept:end -->"
MODEL = "autoglm-phone-9b"
QUESTION = "Open Settings"
CONTEXT = 4096

KEPT, LOST = "kept", "lost"


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and what it says to the question."""

    base_url: str
    thinking: str = "I need the app Settings."
    answer: str = 'do(action="Launch", app="Settings")'
    parser: bool = False
    """It was started with a reasoning parser."""
    api_key: str | None = None
    scripted: ScriptedServer | None = None


Settings = dict[str, Any]


def _openai(place: Place, options: Settings) -> BaseChatModel:
    return chat_openai(base_url=place.base_url, api_key=place.api_key, **options)


def _deepseek(place: Place, options: Settings) -> BaseChatModel:
    tags = {} if place.parser else {"skip_special_tokens": False}
    ours = {"model": MODEL, "stream_usage": True, "extra_body": tags, "max_retries": 2}
    return ChatDeepSeek(api_base=place.base_url, api_key=place.api_key or "EMPTY", **ours | options)


def _autoglm(place: Place, options: Settings) -> BaseChatModel:
    return ChatAutoGLM(base_url=place.base_url, api_key=place.api_key, **options)


PEERS: dict[str, Callable[[Place, Settings], BaseChatModel]] = {
    "ChatOpenAI": _openai,
    "ChatDeepSeek": _deepseek,
    "ChatAutoGLM": _autoglm,
}
"""Each with the options that suit the server best; ``ChatOpenAI`` as `chat_openai` makes it."""


@dataclass
class Bench:
    """One peer at one server; its models are closed when the probe is over."""

    peer: str
    place: Place
    made: list[BaseChatModel] = field(default_factory=list)

    def model(self, **options: Any) -> BaseChatModel:
        if self.peer == "ChatOpenAI" and self.place.parser:  # tags would only stand around its clean answers
            options = {"extra_body": {}, **options}
        settings = {"temperature": 0, "max_retries": 0, **options}
        return self.keep(PEERS[self.peer](self.place, settings))

    def keep(self, model: BaseChatModel) -> BaseChatModel:
        self.made.append(model)
        return model

    @property
    def server(self) -> ScriptedServer:
        assert self.place.scripted
        return self.place.scripted

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(self._closing(coroutine))

    async def _closing(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """End with the connections of this loop closed, as openai's client cannot close them afterwards."""
        try:
            return await coroutine
        finally:
            for model in self.made:
                if client := getattr(model, "root_async_client", None):
                    await client.close()

    def every_way(self, given: Any, **options: Any) -> dict[str, AIMessage]:
        """The message by each way of asking."""
        ways = ("invoke", "stream", "astream", "v3 events")
        return {way: self.ask(given, way, **options) for way in ways}

    def ask(
        self, given: Any, way: str, bound: Settings | None = None, tools: Sequence[Any] = (), **options: Any
    ) -> AIMessage:
        model = self.model(**options)
        runnable: Any = model.bind_tools(tools, **bound or {}) if tools else model.bind(**bound or {})
        if way == "invoke":
            return cast("AIMessage", runnable.invoke(given))
        if way == "stream":
            return _sum(list(runnable.stream(given)))
        if way == "astream":
            message: AIMessage = self.run(_asum(runnable.astream(given)))
            _forget()
            return message
        return cast("AIMessage", runnable.stream_events(given, version="v3").output)


def _sum(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    first, *rest = chunks
    return sum(rest, first)


async def _asum(chunks: AsyncIterator[AIMessageChunk]) -> AIMessageChunk:
    return _sum([chunk async for chunk in chunks])


def _forget() -> None:
    """Empty LangChain's store of openai clients: it would give out the closed ones to a server at the same address."""
    _client_utils._cached_sync_httpx_client.cache_clear()
    _client_utils._cached_async_httpx_client.cache_clear()


Probe = Callable[[Bench], str]


def of(**seen: bool) -> str:
    """``kept`` where all is, ``lost`` where nothing is, else what is kept."""
    if all(seen.values()):
        return KEPT
    kept = ", ".join(name.replace("_by_", " by ") for name, is_kept in seen.items() if is_kept)
    return f"partly: {kept}" if kept else LOST


def works(call: Callable[[], object]) -> bool:
    try:
        return bool(call())
    except Exception:
        return False


def fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:
        return True
    return False


class Payment(BaseModel):
    """A payment."""

    amount: int = Field(description="The amount.")


class App(BaseModel):
    """An app."""

    app: str = Field(json_schema_extra={"enum": ["Settings", "Maps"]})


@tool
def pay(amount: int) -> str:
    """Pay an amount."""
    return f"paid {amount}"


@tool
def switch(on: bool) -> str:
    """Switch the lamp on or off."""
    return "done"


# Thinking and answer


def thinking(bench: Bench) -> str:
    """Every way of asking tells the thinking, all of it, in a reasoning block; or at least somewhere."""
    messages = bench.every_way(QUESTION)
    seen = {way: _reasoning(message) == bench.place.thinking for way, message in messages.items()}
    if not any(seen.values()) and all(bench.place.thinking in message.text for message in messages.values()):
        return "partly: in the answer's text"
    return of(**seen)


def _reasoning(message: AIMessage) -> str:
    return "".join(str(it.get("reasoning")) for it in message.content_blocks if it["type"] == "reasoning").strip()


def clean_answer(bench: Bench) -> str:
    messages = bench.every_way(QUESTION)
    return of(**{way: message.text.strip() == bench.place.answer for way, message in messages.items()})


def sent_back(bench: Bench) -> str:
    """In the second turn, the request shows the thinking of the first."""
    return of(**{way: _sends_back(bench, way) for way in ("invoke", "stream")})


def _sends_back(bench: Bench, way: str) -> bool:
    first = bench.ask(QUESTION, way)
    bench.model().invoke([HumanMessage(QUESTION), first, HumanMessage("Go back")])
    sent = bench.server.requests[-1].body
    assert sent
    return bench.place.thinking in json.dumps(sent["messages"][1], ensure_ascii=False)


def thinking_and_call(bench: Bench) -> str:
    """A stream in the form v1 has a reasoning block and a tool call, each by itself."""
    message = bench.ask("Pay 1500", "stream", tools=[pay], output_version="v1")
    blocks: dict[str, Any] = {it["type"]: it for it in message.content_blocks}
    call = blocks.get("tool_call", {})
    return of(thinking=bool(_reasoning(message)), call=call.get("args") == {"amount": 1500})


# What is told besides


def usage_by_default(bench: Bench) -> str:
    """Nothing but the address is given."""
    address: Any = {"base_url": bench.place.base_url, "model": MODEL, "api_key": bench.place.api_key or "EMPTY"}
    plain: dict[str, Callable[[], BaseChatModel]] = {
        "ChatOpenAI": lambda: ChatOpenAI(**address),
        "ChatDeepSeek": lambda: ChatDeepSeek(api_base=address.pop("base_url"), **address),
        "ChatAutoGLM": lambda: ChatAutoGLM(**address),
    }
    if _sum(list(bench.keep(plain[bench.peer]()).stream(QUESTION))).usage_metadata:
        return KEPT
    _forget()
    return "partly: with `stream_usage=True`" if bench.ask(QUESTION, "stream").usage_metadata else LOST


def usage_details(bench: Bench) -> str:
    return of(**{way: _reasoning_tokens(it) > 0 for way, it in bench.every_way(QUESTION).items()})


def _reasoning_tokens(message: AIMessage) -> int:
    usage = message.usage_metadata or cast("Any", {})
    return int(usage.get("output_token_details", {}).get("reasoning", 0))


def response_id(bench: Bench) -> str:
    return of(**{way: "chatcmpl-" in str(it.model_dump()) for way, it in bench.every_way(QUESTION).items()})


def stop_reason(bench: Bench) -> str:
    """Which of the stop strings it was."""
    messages = bench.every_way(QUESTION, bound={"stop": ["Sett", "!"]})
    return of(**{way: it.response_metadata.get("stop_reason") == "Sett" for way, it in messages.items()})


def logprobs(bench: Bench) -> str:
    messages = bench.every_way(QUESTION, bound={"logprobs": True, "top_logprobs": 2})
    return of(**{way: _has_logprobs(message) for way, message in messages.items()})


def _has_logprobs(message: AIMessage) -> bool:
    told = message.response_metadata.get("logprobs") or {}
    return len(told.get("content") or ()) > 5


def several_answers(bench: Bench) -> str:
    model = bench.model(n=2, temperature=1)
    return of(all=len(model.generate([[HumanMessage(QUESTION)]]).generations[0]) == 2)


# Tools and forms


def no_tools(bench: Bench) -> str:
    return of(all=works(lambda: bench.model().bind_tools([]).invoke(QUESTION)))


def agent_without_tools(bench: Bench) -> str:
    def answer() -> bool:
        agent: Any = create_agent(bench.model(), tools=[], response_format=ProviderStrategy(App))
        return isinstance(agent.invoke({"messages": QUESTION})["structured_response"], App)

    return of(all=works(answer))


def tools(bench: Bench) -> str:
    def call() -> object:
        return bench.model().bind_tools([switch], tool_choice="any").invoke(QUESTION).tool_calls

    return of(all=works(call))


def phone_actions(bench: Bench) -> str:
    phone = phone_tools(DrawnPhone())
    return of(all=works(lambda: bench.model().bind_tools(phone).invoke(QUESTION).tool_calls))


def structured(bench: Bench) -> str:
    """On a server without a tool parser, with the method that works there."""

    def by(method: str) -> bool:
        model: Any = bench.model().with_structured_output(App, method=method)
        return isinstance(model.invoke(QUESTION), App)

    if works(partial(by, "json_schema")):
        return KEPT
    any_json: Any = cast("Any", bench.model()).with_structured_output(None, method="json_mode")
    return "partly: any JSON, by `json_mode`" if works(lambda: any_json.invoke("`app`")) else LOST


def regex(bench: Bench) -> str:
    """The answer is held to a regular expression: an option of ours, ``extra_body`` elsewhere."""
    held: Settings = {"regex": "(yes|no)"}
    bound = held if bench.peer == "ChatAutoGLM" else {"extra_body": {"structured_outputs": held}}
    return of(all=bench.ask(QUESTION, "invoke", bound).text.strip() in {"yes", "no"})


def cut_call(bench: Bench) -> str:
    """Wherever ``pay(amount=1500)`` is cut, no call of 1 or 150 is a valid one."""
    bench.server.answer = _pays
    ways = ("invoke", "stream", "v3 events")
    return of(**{way: all(_safe(bench, way, length) for length in range(6, 10)) for way in ways})


def _safe(bench: Bench, way: str, length: int) -> bool:
    message = bench.ask("Pay 1500", way, tools=[pay], max_tokens=length)
    return all(call["args"] == {"amount": 1500} for call in message.tool_calls)


def cut_json(bench: Bench) -> str:
    """Wherever ``{"amount": 1500}`` is cut, nobody gets 1 or 150: an error, or nothing."""
    bench.server.answer = _pays
    schemas = [Payment, Payment.model_json_schema()]

    def refused(method: str, way: str) -> bool:
        return all(_refused(bench, schema, method, way, length) for schema in schemas for length in range(6, 9))

    return of(
        json_schema=refused("json_schema", "invoke") and refused("json_schema", "stream"),
        json_mode=refused("json_mode", "invoke") and refused("json_mode", "stream"),
        function_calling_by_invoke=refused("function_calling", "invoke"),
        function_calling_by_stream=refused("function_calling", "stream"),
    )


def _refused(bench: Bench, schema: Any, method: str, way: str, length: int) -> bool:
    model: Any = bench.model(max_tokens=length).with_structured_output(schema, method=method)
    try:
        found = model.invoke("Pay 1500") if way == "invoke" else [None, *model.stream("Pay 1500")][-1]
    except Exception:
        return True
    return found in (None, {}, {"amount": 1500}, Payment(amount=1500))


def _pays(body: Settings) -> Answer:
    written = '{"amount": 1500}'
    if "tools" not in body:
        return Answer(written)
    return Answer(tool_calls=(ToolCall(body["tools"][0]["function"]["name"], written),))


def bad_arguments(bench: Bench) -> str:
    """A call with arguments that are no object is an invalid call, not an exception."""
    bench.server.answer = lambda _: Answer(tool_calls=(ToolCall("pay", "[1]"),))

    def is_invalid(way: str) -> bool:
        message = bench.ask("Pay 1500", way, tools=[pay])
        return bool(message.invalid_tool_calls) and not message.tool_calls

    return of(**{way: works(partial(is_invalid, way)) for way in ("invoke", "stream")})


def picture_of_tool(bench: Bench) -> str:
    """The prompt grows by the picture that a tool gave: it reached the model."""
    data = "data:image/png;base64," + _base64(_new_picture())
    picture = {"type": "image_url", "image_url": {"url": data}}

    def tokens(content: list[Any]) -> int:
        call = {"name": "look", "args": {}, "id": "1"}
        history = [HumanMessage(QUESTION), AIMessage("", tool_calls=[call]), ToolMessage(content, tool_call_id="1")]
        message = bench.model().invoke(history)
        assert message.usage_metadata
        return message.usage_metadata["input_tokens"]

    text = {"type": "text", "text": "This is the screen."}
    return of(all=works(lambda: 20 < tokens([text, picture]) - tokens([text]) < 200))


def _new_picture() -> bytes:
    """One that was never sent: vLLM 0.32 answers 500 once more to a picture that was part of a request that failed."""
    return draw_screen(112, 224, [Button("red", randbelow(50), randbelow(100), 1 + randbelow(50), 1 + randbelow(100))])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# What goes wrong


def overflow(bench: Bench) -> str:
    try:
        bench.model().invoke("word " * (CONTEXT + 1000))
    except ContextOverflowError:
        return KEPT
    except Exception:
        return LOST
    raise AssertionError("the prompt was taken")


def error_classes(bench: Bench) -> str:
    expected: dict[int, type[Exception]] = {429: ModelRateLimitError, 404: ModelNotFoundError, 503: ModelAPIError}
    return of(**{str(status): _raises(bench, status, error) for status, error in expected.items()})


def _raises(bench: Bench, status: int, error: type[Exception]) -> bool:
    bench.server.fail(status)
    try:
        bench.model().invoke(QUESTION)
    except error:
        return True
    except Exception:
        return False
    return False


def broken_stream(bench: Bench) -> str:
    """A stream that ends before the answer does is an error."""
    with raw_server([HEAD, delta('do(action="Type", '), delta('text="pay 15'), b""]) as server:
        place = Place(server.url)
        return of(
            **{
                way: fails(partial(Bench(bench.peer, place, bench.made).ask, QUESTION, way))
                for way in ("stream", "astream")
            }
        )


def error_in_stream(bench: Bench) -> str:
    error = event('{"error": {"message": "The engine has died", "type": "InternalServerError", "code": 500}}')
    with raw_server([HEAD, delta("do("), error, DONE]) as server:
        place = Place(server.url)
        return of(
            **{
                way: fails(partial(Bench(bench.peer, place, bench.made).ask, QUESTION, way))
                for way in ("stream", "astream")
            }
        )


def deadline(bench: Bench) -> str:
    """With ``timeout=0.5`` an answer that takes seconds is an error after half of one."""
    bench.server.pace = 0.05
    return of(
        invoke=_in_time(lambda: bench.model(timeout=0.5).invoke("think long")), stream=_in_time(lambda: _briefly(bench))
    )


def _in_time(call: Callable[[], object]) -> bool:
    start = time.monotonic()
    return fails(call) and time.monotonic() - start < 2


def _briefly(bench: Bench) -> None:
    start = time.monotonic()
    for _ in bench.model(timeout=0.5).stream("think long"):
        if time.monotonic() - start > 2:
            return


def leaving(bench: Bench) -> str:
    """Who leaves a stream early ends the generation."""
    bench.server.pace = 0.05

    async def leave() -> bool:
        async with aclosing(cast("Any", bench.model().astream("think long"))) as chunks:
            await anext(chunks)
        for _ in range(100):
            if bench.server.running:
                await asyncio.sleep(0.01)
        return not bench.server.running

    chunks = cast("Any", bench.model().stream("think long"))
    next(chunks)
    chunks.close()
    until = time.monotonic() + 1
    while bench.server.running and time.monotonic() < until:
        time.sleep(0.01)
    return of(stream=not bench.server.running, astream=bool(bench.run(leave())))


def two_loops(bench: Bench) -> str:
    model = bench.model()
    asyncio.run(cast("Any", model.ainvoke(QUESTION)))
    return of(all=works(lambda: asyncio.run(cast("Any", model.ainvoke(QUESTION)))))


# Around


def cache_key(bench: Bench) -> str:
    """A model of another temperature does not get this one's cached answer; the same model does."""
    cache = InMemoryCache()
    asked = []
    for temperature in (0, 0, 1):
        bench.model(cache=cache, temperature=temperature).invoke(QUESTION)
        asked.append(len(bench.server.requests))
    return of(all=asked == [1, 1, 2])


def token_count(bench: Bench) -> str:
    """Counted as the server does, and nothing is downloaded."""
    messages: list[BaseMessage] = [HumanMessage(QUESTION)]
    message = bench.model().invoke(messages)
    assert message.usage_metadata
    counted = message.usage_metadata["input_tokens"]
    with mock.patch("requests.sessions.Session.send", side_effect=OSError("a download")):
        return of(all=works(lambda: bench.model().get_num_tokens_from_messages(messages) == counted))


def saved(bench: Bench) -> str:
    """LangChain's own classes are read by ``loads`` as they are; for others it wants to be told where they live."""
    model = bench.model()
    home = type(model).__module__.partition(".")[0]

    def read(**options: Any) -> bool:
        key = bench.place.api_key or "EMPTY"
        secrets = {"OPENAI_API_KEY": key, "AUTOGLM_API_KEY": key}
        copy = loads(dumps(model), allowed_objects="all", secrets_map=secrets, **options)
        return bool(bench.keep(copy).invoke(QUESTION).text)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangChain calls ``loads`` a beta
        if works(read):
            return KEPT
        return f'partly: with `valid_namespaces=["{home}"]`' if works(partial(read, valid_namespaces=[home])) else LOST


def by_name(bench: Bench) -> str:
    names = {"ChatOpenAI": "openai", "ChatDeepSeek": "deepseek", "ChatAutoGLM": "autoglm"}
    url = "api_base" if bench.peer == "ChatDeepSeek" else "base_url"

    def make() -> BaseChatModel:
        settings: Any = {url: bench.place.base_url, "api_key": "EMPTY"}
        return bench.keep(init_chat_model(f"{names[bench.peer]}:{MODEL}", **settings))

    with mock.patch.dict("langchain.chat_models.base._BUILTIN_PROVIDERS"):
        if works(make):
            return KEPT
        register()
        return "partly: after `register()`" if works(make) else LOST


@dataclass(frozen=True, slots=True)
class Feature:
    """A row of the table."""

    title: str
    probe: Probe
    server: Settings = field(default_factory=dict)
    """How the scripted server is started."""
    engine: str = ""
    """The kind of vLLM that the same probe is also run on."""
    on_engine: dict[str, str] = field(default_factory=dict)
    """What is found there, where that is something else."""


_TAGS: Settings = {"reasoning": "tags", "tool_parser": False}
_FIELD: Settings = {"reasoning": "reasoning"}
_OLD_FIELD: Settings = {"reasoning": "reasoning_content"}
_ANSWER_TAG = dict.fromkeys(("ChatOpenAI", "ChatDeepSeek"), "partly: invoke")
"""The parser leaves ``<answer>`` in streams, whatever the request says."""

FEATURES = (
    Feature("thinking, which a server without a parser sends in tags", thinking, _TAGS, "plain"),
    Feature("thinking from vLLM's field `reasoning`", thinking, _FIELD, "parser"),
    Feature("thinking from the older `reasoning_content`", thinking, _OLD_FIELD),
    Feature("an answer without thinking and tags, server without a parser", clean_answer, _TAGS, "plain"),
    Feature(
        "an answer without thinking and tags, server with a reasoning parser",
        clean_answer,
        _FIELD,
        "parser",
        _ANSWER_TAG,
    ),
    Feature("earlier thinking in the next request, server without a parser", sent_back, _TAGS),
    Feature("earlier thinking in the next request, server with a reasoning parser", sent_back, _FIELD),
    Feature('thinking and tool call as blocks of one stream (`output_version="v1"`)', thinking_and_call, _FIELD),
    Feature("usage in streams, by default", usage_by_default, _TAGS, "plain"),
    Feature("usage tells the tokens of thinking", usage_details, _FIELD, "parser"),
    Feature("the server's id of the answer", response_id, _TAGS, "plain"),
    Feature("vLLM's `stop_reason`", stop_reason, _TAGS, "plain"),
    Feature("log probabilities", logprobs, _TAGS, "plain"),
    Feature("several answers (`n=2`)", several_answers, _TAGS, "plain"),
    Feature("tools, on a server without a tool parser", tools, _TAGS, "plain"),
    Feature("the model's `do(...)` as a tool call", phone_actions, _TAGS, "plain"),
    Feature("`bind_tools([])`", no_tools, _TAGS, "plain"),
    Feature("`create_agent` without tools, with a form of answer", agent_without_tools, _TAGS, "plain"),
    Feature("structured output, on a server without a tool parser", structured, _TAGS, "plain"),
    Feature("an answer held to a regular expression", regex, _TAGS, "plain"),
    Feature("a picture in a tool's result reaches the model", picture_of_tool, _TAGS, "plain"),
    Feature("a tool call that was cut off is no valid call", cut_call, _FIELD),
    Feature("an object that was cut off is no result", cut_json, _FIELD),
    Feature("arguments that are no object: an invalid call, no exception", bad_arguments, _FIELD),
    Feature("a prompt that is too long raises `ContextOverflowError`", overflow, _TAGS, "plain"),
    Feature("refusals are LangChain's `ModelError`s", error_classes, _TAGS),
    Feature("an error inside a stream is raised", error_in_stream, _TAGS),
    Feature("a stream that breaks off is an error", broken_stream, _TAGS),
    Feature("`timeout` holds for the whole call", deadline, _TAGS),
    Feature("leaving a stream ends the generation", leaving, _TAGS),
    Feature("a second `asyncio.run` with the same model", two_loops, _TAGS, "plain"),
    Feature("a cached answer is not that of another temperature", cache_key, _TAGS),
    Feature("tokens are counted exactly, without a download", token_count, _TAGS, "plain"),
    Feature("`dumps` and `loads`", saved, _TAGS, "plain"),
    Feature('`init_chat_model("provider:model")`', by_name, _TAGS),
)


def measured(feature: Feature, peer: str, place: Place | None = None) -> str:
    """Run a probe; without a ``place``, at a scripted server of its own."""
    if place is not None:
        with _quietly(Bench(peer, place)) as bench:
            return feature.probe(bench)
    with ScriptedServer(max_model_len=CONTEXT, **feature.server) as server:
        parser = feature.server["reasoning"] != "tags"
        with _quietly(Bench(peer, Place(server.base_url, parser=parser, scripted=server))) as bench:
            return feature.probe(bench)


@contextmanager
def _quietly(bench: Bench) -> Iterator[Bench]:
    """Close what was made; what openai's client leaves open in a loop that is closed, nobody can close."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            yield bench
        finally:
            for model in bench.made:
                if client := getattr(model, "root_client", None):
                    client.close()
            bench.made.clear()
            _forget()
            gc.collect()


def table(rows: Sequence[Sequence[str]]) -> str:
    """The table in Markdown."""
    head = ["", *PEERS, "also on vLLM"]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def row(feature: Feature) -> list[str]:
    """One row of the table, measured now."""
    told = "; ".join(["yes", *(f"{peer} {cell}" for peer, cell in feature.on_engine.items())])
    return [feature.title, *(measured(feature, peer) for peer in PEERS), told if feature.engine else ""]


def documented() -> list[list[str]]:
    """The rows that stand in the documentation."""
    text = DOCS.read_text().partition(BEGIN)[2].partition(END)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.strip().splitlines()[2:]]


def main(*arguments: str) -> None:
    text = table([row(feature) for feature in FEATURES])
    print(text)
    if "write" in arguments:
        before, _, rest = DOCS.read_text().partition(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main(*sys.argv[1:])
