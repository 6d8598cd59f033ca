"""``create_agent`` in every combination of tools, form of answer, way of calling tools, and way of running it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
    ToolCallLimitMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from autoglm_client import BadRequest, Point, Tap
from autoglm_client.langchain import ChatAutoGLM, first_message, phone_tools
from autoglm_client.langchain.client_tools import call_text
from server_stub import ScriptedServer
from server_stub.phone import DrawnPhone
from server_stub.screen import Button
from server_stub.scripted import Answer, ToolCall

WIDTH, HEIGHT = 101, 201
RED = Button("red", 40, 90, 20, 20)
THOUGHT = "I look."


def agent_of(*given: Any, **options: Any) -> Any:
    return create_agent(*given, **options)


class Report(BaseModel):
    """What was found out."""

    city: str
    degrees: int


SCHEMA = {"title": "Report", "description": "What was found out.", **Report.model_json_schema()}
FORMATS: dict[str, Callable[[], Any]] = {
    "no form": lambda: None,
    "pydantic": lambda: Report,
    "dictionary": lambda: SCHEMA,
    "ToolStrategy": lambda: ToolStrategy(Report),
    "ProviderStrategy": lambda: ProviderStrategy(Report),
}
CALLS: dict[str, tuple[str, dict[str, Any], str]] = {
    "get_temperature": ("get_temperature", {"city": "Paris"}, "21 degrees in Paris"),
    "get_time": ("get_time", {"city": "Paris", "hours": 2}, "14:00 in Paris"),
}
TAP = Tap(Point(500, 500))
TURNS: dict[str, list[list[str]]] = {
    "no tools": [],
    "one tool": [["get_temperature"]],
    "two tools": [["get_temperature", "get_time"], ["get_time"]],
    "phone": [["tap"], ["tap"]],
    "phone and one tool": [["tap"], ["get_temperature"], ["tap"]],
}
WAYS: dict[str, tuple[bool, str]] = {  # whether the server has a parser of tool calls, and who is to read them
    "auto": (False, "auto"),
    "auto, parser": (True, "auto"),
    "client": (False, "client"),
    "client, parser": (True, "client"),
    "server": (True, "server"),
}
RUNS = [
    *(("auto", how) for how in ("invoke", "ainvoke", "stream")),
    *(("server", how) for how in ("invoke", "ainvoke", "stream")),
    ("auto, parser", "invoke"),
    ("client", "ainvoke"),
    ("client, parser", "stream"),
]


class Run(NamedTuple):
    """How an agent ended, and the messages as a stream told them."""

    state: dict[str, Any]
    told: list[AnyMessage]

    @property
    def messages(self) -> list[AnyMessage]:
        found: list[AnyMessage] = self.state["messages"]
        return found


async def run(agent: Any, messages: Sequence[AnyMessage], how: str) -> Run:
    given = {"messages": list(messages)}
    if how == "invoke":
        state = agent.invoke(given)
    elif how == "ainvoke":
        state = await agent.ainvoke(given)
    else:
        pieces = list(agent.stream(given, stream_mode=["messages", "values"]))
        told = [it[0] for mode, it in pieces if mode == "messages"]
        return Run(pieces[-1][1], whole(told))
    return Run(state, state["messages"][1:])


def whole(pieces: Sequence[AnyMessage]) -> list[AnyMessage]:
    """The messages that the pieces of a stream add up to."""
    found: dict[str | None, Any] = {}
    for piece in pieces:
        known = found.get(piece.id)
        found[piece.id] = known + piece if isinstance(known, AIMessageChunk) else piece
    return list(found.values())


def reasoning(message: AnyMessage) -> str:
    return "".join(str(block.get("reasoning")) for block in message.content_blocks if block["type"] == "reasoning")


def script(kind: str, form: str) -> Callable[[dict[str, Any]], Answer]:
    """A model that does these turns, in the form that the server is to read, and then gives its answer."""

    def answer(request: dict[str, Any]) -> Answer:
        if request.get("max_tokens") == 1:
            return Answer("Hi")
        done = sum(message["role"] == "assistant" for message in request["messages"])
        turns = TURNS[kind]
        if done < len(turns):
            return said(turns[done], native="tools" in request)
        if form == "no form":
            return Answer(f"<think>{THOUGHT}</think>\n<answer>It is 21 degrees.")
        if form == "ToolStrategy":
            return calling([("Report", REPORT)], native="tools" in request)
        return Answer(("" if is_json(request) else f"<think>{THOUGHT}</think>") + json.dumps(REPORT))

    return answer


def said(names: Sequence[str], *, native: bool) -> Answer:
    if names == ["tap"]:
        return Answer(f"<think>{THOUGHT}</think>\n<answer>{TAP}")
    return calling([(CALLS[name][0], CALLS[name][1]) for name in names], native=native)


def calling(calls: Sequence[tuple[str, dict[str, Any]]], *, native: bool) -> Answer:
    thinking = f"<think>{THOUGHT}</think>"
    if native:
        return Answer(thinking, tuple(ToolCall(name, json.dumps(arguments)) for name, arguments in calls))
    return Answer(thinking + "".join(call_text(name, arguments) for name, arguments in calls))


def is_json(request: dict[str, Any]) -> bool:
    return bool((request.get("response_format") or {}).get("type") == "json_schema")


REPORT = {"city": "Paris", "degrees": 21}


class Desk:
    """Tools that remember how they were called."""

    def __init__(self, kind: str) -> None:
        self.called: list[tuple[str, dict[str, Any]]] = []
        self.phone = DrawnPhone(WIDTH, HEIGHT, [RED])
        named = {"get_temperature": self.get_temperature(), "get_time": self.get_time()}
        names = {name for names in TURNS[kind] for name in names}
        self.tools = [it for name, it in named.items() if name in names]
        if "tap" in names:
            self.tools = [*phone_tools(self.phone, settle=0), *self.tools]
        question = "How warm is it in Paris?"
        self.opening = first_message(self.phone, question) if "tap" in names else HumanMessage(question)

    def get_temperature(self) -> Any:
        @tool
        def get_temperature(city: str) -> str:
            """Measure how warm it is."""
            self.called.append(("get_temperature", {"city": city}))
            return "21 degrees in Paris"

        return get_temperature

    def get_time(self) -> Any:
        @tool
        def get_time(city: str, hours: int) -> str:
            """Look at the clock."""
            self.called.append(("get_time", {"city": city, "hours": hours}))
            return "14:00 in Paris"

        return get_time


@pytest.mark.parametrize(("way", "how"), RUNS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", TURNS)
async def test_every_combination(kind: str, form: str, way: str, how: str) -> None:
    has_parser, tool_calling = WAYS[way]
    desk = Desk(kind)
    with ScriptedServer(tool_parser=has_parser, answer=script(kind, form)) as server:
        model = ChatAutoGLM(base_url=server.base_url, tool_calling=tool_calling)
        agent = agent_of(model, desk.tools, response_format=FORMATS[form]())
        ran = await run(agent, [desk.opening], how)
        requests = chats(server)
    names = [name for names in TURNS[kind] for name in names]
    assert sorted(desk.called, key=str) == sorted((CALLS[name][:2] for name in names if name in CALLS), key=str)
    assert desk.phone.actions == [("tap", 50, 100, 1, 0.0)] * names.count("tap")
    check_order(ran.messages, TURNS[kind] + ([["Report"]] if form == "ToolStrategy" else []), form)
    check_ids(ran.messages)
    check_answer(ran.state, form)
    check_reasoning(ran.told, kind, form)
    assert len(requests) == len([it for it in ran.messages if isinstance(it, AIMessage)])
    check_history(requests, kind)
    check_way(requests, kind, form, way)


def chats(server: ScriptedServer) -> list[dict[str, Any]]:
    """The bodies of the agent's own requests, without the one that asks what the server can do."""
    bodies = [it.body or {} for it in server.requests if it.path.endswith("/chat/completions")]
    return [body for body in bodies if body.get("max_tokens") != 1]


def check_order(messages: Sequence[AnyMessage], turns: Sequence[Sequence[str]], form: str) -> None:
    expected: list[Any] = ["human"]
    for names in turns:
        expected += [("ai", [*names]), *(("tool", name) for name in names)]
    if form != "ToolStrategy":
        expected.append(("ai", []))
    assert [shown(message) for message in messages] == expected


def shown(message: AnyMessage) -> Any:
    if isinstance(message, AIMessage):
        assert not message.invalid_tool_calls
        return "ai", [call["name"] for call in message.tool_calls]
    return ("tool", message.name) if isinstance(message, ToolMessage) else message.type


def check_ids(messages: Sequence[AnyMessage]) -> None:
    """Each call has its result, in order, and no message has taken the place of another."""
    assert len({message.id for message in messages}) == len(messages)
    calls = [call["id"] for message in messages if isinstance(message, AIMessage) for call in message.tool_calls]
    assert calls == [message.tool_call_id for message in messages if isinstance(message, ToolMessage)]
    assert len(set(calls)) == len(calls)
    assert all(message.status == "success" for message in messages if isinstance(message, ToolMessage))


def check_answer(state: dict[str, Any], form: str) -> None:
    last = state["messages"][-1]
    if form == "no form":
        assert "structured_response" not in state
        assert last.text == "It is 21 degrees."
    else:
        assert state["structured_response"] == (REPORT if form == "dictionary" else Report(**REPORT))
        told = "Returning structured response: city='Paris' degrees=21"
        assert last.text == (told if form == "ToolStrategy" else json.dumps(REPORT))


def check_reasoning(told: Sequence[AnyMessage], kind: str, form: str) -> None:
    """Each answer shows its thinking, but the one that the server holds to bare JSON."""
    thoughts = [reasoning(message) for message in told if isinstance(message, AIMessage)]
    bare = kind == "no tools" and form in {"pydantic", "dictionary", "ProviderStrategy"}
    assert thoughts == [""] if bare else set(thoughts) == {THOUGHT}
    assert len(told) == len({message.id for message in told})


def check_history(requests: Sequence[dict[str, Any]], kind: str) -> None:
    history = json.dumps(requests[-1]["messages"], ensure_ascii=False)
    for name in {name for names in TURNS[kind] for name in names}:
        assert json.dumps(str(TAP))[1:-1] in history if name == "tap" else CALLS[name][2] in history
    for index, request in enumerate(requests[1:]):
        before = requests[index]["messages"]
        assert len(request["messages"]) > len(before)
    if "phone" in kind:
        assert [json.dumps(it["messages"]).count('"image_url"') // 2 for it in requests] == [1] * len(requests)


def check_way(requests: Sequence[dict[str, Any]], kind: str, form: str, way: str) -> None:
    """Who reads the calls: the server, where it can, and would shut out no form that the answer may take."""
    offered = [name for names in TURNS[kind] for name in names if name != "tap"] or form == "ToolStrategy"
    undecided = form in {"pydantic", "dictionary", "ProviderStrategy"} or (form == "ToolStrategy" and "phone" in kind)
    native = bool(offered) and way in {"auto, parser", "server"} and not undecided
    assert {"tools" in request for request in requests} == {native}
    for request in requests:
        assert request.get("tools") != []
        form_asked = (request.get("response_format") or {}).get("type")
        if native or (form == "no form" and not offered):
            assert form_asked is None
        else:
            assert form_asked == ("json_schema" if kind == "no tools" and form != "ToolStrategy" else "structural_tag")


@pytest.fixture(params=[False, True], ids=["no parser", "parser"])
def any_server(request: pytest.FixtureRequest) -> Iterator[ScriptedServer]:
    """A server whose own script answers, always in the form that it was asked for."""
    with ScriptedServer(tool_parser=request.param) as server:
        yield server


@pytest.mark.parametrize("form", ["pydantic", "dictionary", "ProviderStrategy"])
def test_first_the_tool_and_then_the_object(any_server: ScriptedServer, form: str) -> None:
    desk = Desk("one tool")
    agent = agent_of(ChatAutoGLM(base_url=any_server.base_url), desk.tools, response_format=FORMATS[form]())
    state = agent.invoke({"messages": [HumanMessage('How warm is it in "Paris"?')]})
    assert [shown(message) for message in state["messages"]] == [
        "human",
        ("ai", ["get_temperature"]),
        ("tool", "get_temperature"),
        ("ai", []),
    ]
    assert desk.called == [("get_temperature", {"city": "Paris"})]
    assert json.loads(state["messages"][-1].text)["city"] == "Paris"
    assert state["structured_response"]


def test_several_calls_at_once(any_server: ScriptedServer) -> None:
    desk = Desk("two tools")
    agent = agent_of(ChatAutoGLM(base_url=any_server.base_url), desk.tools)
    state = agent.invoke({"messages": [HumanMessage('Both the time and the temperature in "Paris", 2 hours from now')]})
    assert [shown(message) for message in state["messages"]][1] == ("ai", ["get_temperature", "get_time"])
    assert len(desk.called) == 2
    check_ids(state["messages"])


def test_the_answer_of_a_phone_agent_may_be_an_object_a_call_or_an_action() -> None:
    desk = Desk("phone and one tool")
    with ScriptedServer(answer=script("phone and one tool", "ProviderStrategy")) as server:
        agent = agent_of(ChatAutoGLM(base_url=server.base_url), desk.tools, response_format=ProviderStrategy(Report))
        agent.invoke({"messages": [desk.opening]})
        [form] = {json.dumps(it["response_format"]["format"]["elements"][1]) for it in chats(server)}
    kinds = [element["type"] for element in json.loads(form)["elements"]]
    assert kinds == ["json_schema", "tags_with_separator", "regex"]


QUOTED = """do(action='Back') <tool_call>{"name": "get_time", "arguments": {}}</tool_call>"""


class Quote(BaseModel):
    """What somebody said."""

    text: str


@pytest.mark.parametrize("thinking", ["", "<think>I look.</think>\n"])
@pytest.mark.parametrize("kind", TURNS)
@pytest.mark.parametrize("how", ["invoke", "stream"])
async def test_a_call_that_an_object_quotes_is_none(kind: str, thinking: str, how: str) -> None:
    desk = Desk(kind)
    with ScriptedServer(answer=lambda _: thinking + json.dumps({"text": QUOTED}), tool_parser=False) as server:
        model = ChatAutoGLM(base_url=server.base_url)
        agent = agent_of(model, desk.tools, response_format=ProviderStrategy(Quote))
        ran = await run(agent, [desk.opening], how)
    assert ran.state["structured_response"] == Quote(text=QUOTED)
    assert desk.phone.actions == []


def test_an_action_that_a_call_quotes_is_none() -> None:
    desk = Desk("phone and one tool")
    answers = iter([call_text("get_temperature", {"city": "do(action='Back')"}), "<answer>Done."])
    with ScriptedServer(answer=lambda _: next(answers), tool_parser=False) as server:
        agent = agent_of(ChatAutoGLM(base_url=server.base_url, tool_calling="client"), desk.tools)
        agent.invoke({"messages": [desk.opening]})
    assert desk.called == [("get_temperature", {"city": "do(action='Back')"})]
    assert desk.phone.actions == []


def test_no_tools_for_now_is_the_object_alone() -> None:
    desk = Desk("phone and one tool")
    with ScriptedServer() as server:
        model = ChatAutoGLM(base_url=server.base_url)
        form = ProviderStrategy(Report).to_model_kwargs()
        model.bind_tools(desk.tools, tool_choice="none", **form).invoke([desk.opening])
        [request] = chats(server)
    assert request["response_format"]["type"] == "json_schema"


# Middleware


@pytest.fixture
def model(server: ScriptedServer) -> ChatAutoGLM:
    return ChatAutoGLM(base_url=server.base_url, max_retries=0)


HELLO: Any = {"messages": [HumanMessage("Hello")]}
ECHO = "I have read your message: Hello"


def test_a_failure_that_may_pass_is_tried_again(server: ScriptedServer, model: ChatAutoGLM) -> None:
    server.fail(503, times=2)
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="error")
    assert agent_of(model, middleware=[retry]).invoke(HELLO)["messages"][-1].text == ECHO
    assert len(server.requests) == 3


def test_a_failure_that_stays_is_not(server: ScriptedServer, model: ChatAutoGLM) -> None:
    server.fail(400, times=2)
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="error")
    with pytest.raises(BadRequest):
        agent_of(model, middleware=[retry]).invoke(HELLO)
    assert len(server.requests) == 1


async def test_another_model_takes_over(server: ScriptedServer, model: ChatAutoGLM) -> None:
    nowhere = ChatAutoGLM(base_url="http://127.0.0.1:9/v1", max_retries=0)
    agent = agent_of(nowhere, middleware=[ModelFallbackMiddleware(model)])
    assert agent.invoke(HELLO)["messages"][-1].text == ECHO
    assert (await agent.ainvoke(HELLO))["messages"][-1].text == ECHO


@pytest.mark.parametrize(("words", "summaries"), [(10, 0), (30_000, 1)])
def test_a_long_history_is_summed_up(model: ChatAutoGLM, words: int, summaries: int) -> None:
    """At a part of the context, which the model's profile tells."""
    summarize = SummarizationMiddleware(model, trigger=("fraction", 0.5), keep=("messages", 1))
    history = [HumanMessage("word " * words), AIMessage("I have read it."), HumanMessage("Hello")]
    state = agent_of(model, middleware=[summarize]).invoke({"messages": list(history)})
    assert state["messages"][-1].text == ECHO
    assert sum("summary" in message.text for message in state["messages"]) == summaries


def test_a_history_too_long_to_be_summed_up_is_shortened(server: ScriptedServer, model: ChatAutoGLM) -> None:
    too_long = "This model's maximum context length is 25480 tokens. However, your prompt contains 30000 tokens."
    server.fail(400, message=too_long)
    summarize = SummarizationMiddleware(model, trigger=("messages", 5), keep=("messages", 1))
    history = [HumanMessage("One " * 100), AIMessage("Two " * 100), HumanMessage("Three"), AIMessage("Four")]
    state = agent_of(model, middleware=[summarize]).invoke({"messages": [*history, HumanMessage("Hello")]})
    assert state["messages"][-1].text == ECHO
    assert len(server.requests) == 3


def test_reported_tokens_count(model: ChatAutoGLM) -> None:
    message = model.invoke("Hello")
    summarize = SummarizationMiddleware(model, trigger=("tokens", 5), keep=("messages", 1), token_counter=lambda _: 0)
    state = agent_of(model, middleware=[summarize]).invoke({"messages": [HumanMessage("Hi"), message, "Hello"]})
    assert sum("summary" in it.text for it in state["messages"]) == 1


def test_calls_have_a_limit(server: ScriptedServer) -> None:
    desk = Desk("one tool")
    server.answer = lambda request: said(["get_temperature"], native="tools" in request)
    limit: Any = ToolCallLimitMiddleware(run_limit=2, exit_behavior="end")
    agent = agent_of(ChatAutoGLM(base_url=server.base_url), desk.tools, middleware=[limit])
    agent.invoke({"messages": [desk.opening]})
    assert len(desk.called) == 2


def test_the_user_approves_of_calls(server: ScriptedServer) -> None:
    desk = Desk("one tool")
    server.answer = script("one tool", "no form")
    ask: Any = HumanInTheLoopMiddleware(interrupt_on={"get_temperature": True})
    agent = agent_of(ChatAutoGLM(base_url=server.base_url), desk.tools, middleware=[ask], checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    assert agent.invoke({"messages": [desk.opening]}, thread)["__interrupt__"]
    assert desk.called == []
    state = agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), thread)
    assert desk.called == [("get_temperature", {"city": "Paris"})]
    assert state["messages"][-1].text == "It is 21 degrees."


def test_the_system_prompt_is_kept(server: ScriptedServer) -> None:
    desk = Desk("one tool")
    server.answer = script("one tool", "no form")
    model = ChatAutoGLM(base_url=server.base_url, tool_calling="client")
    agent_of(model, desk.tools, system_prompt="Be brief.").invoke({"messages": [desk.opening]})
    for request in chats(server):
        assert [it["role"] for it in request["messages"]].count("system") == 1
        assert request["messages"][0]["content"].startswith("Be brief.\n\n# Tools")
