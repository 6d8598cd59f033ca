"""LangChain's agents on the engine: its grammar holds calls and objects, and the tiny model really sees the phone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from pydantic import BaseModel

from autoglm_client import ContextOverflow, system_prompt
from autoglm_client.langchain import ChatAutoGLM, first_message, phone_tools
from server_stub.phone import DrawnPhone
from server_stub.screen import Button

from .engine import Engine

RED, BLUE = Button("red", 60, 160, 240, 120), Button("blue", 400, 900, 240, 120)
City = Literal["Paris", "Zürich", "北京"]


class Report(BaseModel):
    """What was found out."""

    city: City
    warm: bool


SCHEMA = {"title": "Report", "description": "What was found out.", **Report.model_json_schema()}
FORMATS: dict[str, Callable[[], Any]] = {
    "no form": lambda: None,
    "pydantic": lambda: Report,
    "dictionary": lambda: SCHEMA,
    "ToolStrategy": lambda: ToolStrategy(Report),
    "ProviderStrategy": lambda: ProviderStrategy(Report),
}
TOOLS: dict[str, list[str]] = {
    "no tools": [],
    "one tool": ["measure"],
    "two tools": ["measure", "look_up"],
    "phone": ["tap"],
    "phone and one tool": ["tap", "measure"],
}


class Desk:
    """Tools that remember how they were called."""

    def __init__(self, names: list[str]) -> None:
        self.called: list[tuple[str, str]] = []
        self.phone = DrawnPhone(720, 1280, [RED, BLUE])
        self.names = names
        ours = {"measure": self.measure(), "look_up": self.look_up()}
        self.tools = [ours[name] for name in names if name in ours]
        self.question: AnyMessage = HumanMessage("How warm is it?")
        if "tap" in names:
            self.tools = [*phone_tools(self.phone, settle=0), *self.tools]
            self.question = first_message(self.phone, "Tap the red button")

    def measure(self) -> Any:
        @tool
        def measure(city: City, degrees: Literal["Celsius", "Kelvin"]) -> str:
            """Measure how warm it is."""
            self.called.append((city, degrees))
            return f"21 {degrees} in {city}"

        return measure

    def look_up(self) -> Any:
        @tool
        def look_up(city: City) -> str:
            """Look a city up."""
            self.called.append((city, ""))
            return f"{city} is a city"

        return look_up

    @property
    def tapped(self) -> list[Button]:
        taps: Any = [action[1:3] for action in self.phone.actions if action[0] == "tap"]
        return [button for place in taps for button in (RED, BLUE) if button.holds(*place)]


ONE = {"parallel_tool_calls": False}


class Led(AgentMiddleware[Any, Any, Any]):
    """Has each tool called once, and then the answer given: the tiny model was taught to act, not to call tools.

    With a reasoning parser, vLLM holds only what follows the thinking, and the tiny model may end before that: there it
    does not think.
    """

    def __init__(self, names: list[str], *, thinking: bool) -> None:
        super().__init__()
        self.names = names
        self.one: dict[str, Any] = ONE if thinking else {**ONE, "thinking": False}

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        return handler(self.led(request))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        return await handler(self.led(request))

    def led(self, request: Any) -> Any:
        done = sum(isinstance(message, ToolMessage) for message in request.messages)
        if done < len(self.names) and (name := self.names[done]) != "tap":
            return request.override(response_format=None, tool_choice=name, model_settings=self.one)
        if done < len(self.names):
            return request
        settings = self.one if isinstance(request.response_format, ToolStrategy) else {"thinking": False}
        return request.override(tools=[], model_settings=settings)


def agent_of(engine: Engine, desk: Desk, form: str = "no form", middleware: Any = (), **options: Any) -> Any:
    options = {"temperature": 0, "max_tokens": 256, **options}
    model = ChatAutoGLM(base_url=engine.base_url, api_key=engine.api_key, **options)
    prompt = system_prompt("en") if desk.names == ["tap"] else None  # more would be too long for the tiny model
    return create_agent(
        model,
        desk.tools,
        response_format=FORMATS[form](),
        middleware=middleware,
        system_prompt=prompt,
        checkpointer=InMemorySaver(),
    )


THREAD: Any = {"recursion_limit": 20, "configurable": {"thread_id": "1"}}


async def run(agent: Any, desk: Desk, how: str) -> list[AnyMessage]:
    """The messages after the question, as the stream tells them where there is one."""
    given = {"messages": [desk.question]}
    if how == "invoke":
        agent.invoke(given, THREAD)
    elif how == "ainvoke":
        await agent.ainvoke(given, THREAD)
    else:
        told: dict[str, Any] = {}
        async for piece, _ in agent.astream(given, THREAD, stream_mode="messages"):
            told[piece.id] = told[piece.id] + piece if piece.id in told else piece
        return list(told.values())
    messages: list[AnyMessage] = agent.get_state(THREAD).values["messages"][1:]
    return messages


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", TOOLS)
async def test_every_combination(plain: Engine, kind: str, form: str) -> None:
    ways = ["invoke", "ainvoke", "astream"]  # each kind and each form in all of them; all three, on the script
    await check(plain, kind, form, ways[(list(TOOLS).index(kind) + list(FORMATS).index(form)) % len(ways)])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", TOOLS)
async def test_every_combination_with_a_reasoning_parser(parser: Engine, kind: str, form: str) -> None:
    await check(parser, kind, form, "astream")


async def check(engine: Engine, kind: str, form: str, how: str) -> None:
    names = TOOLS[kind]
    desk = Desk(names)
    thinking = engine.options.reasoning_parser is None
    agent = agent_of(engine, desk, form, [Led(names, thinking=thinking)])
    messages = await run(agent, desk, how)
    expected: list[Any] = [shown for name in names for shown in (["ai", name], ["tool", name])]
    expected += [["ai", "Report"], ["tool", "Report"]] if form == "ToolStrategy" else [["ai"]]
    assert [shown(message) for message in messages] == expected
    calls = [call["id"] for it in messages if isinstance(it, AIMessage) for call in it.tool_calls]
    assert calls == [it.tool_call_id for it in messages if isinstance(it, ToolMessage)]
    calling = [it for it in messages if isinstance(it, AIMessage) and it.tool_calls]
    assert all(map(reasoning, calling)) or not thinking
    assert len(desk.called) == len([name for name in names if name != "tap"])
    assert desk.tapped == [RED] * names.count("tap")
    state = agent.get_state(THREAD).values
    assert [shown(message) for message in state["messages"][1:]] == expected
    if form == "no form":
        assert "structured_response" not in state
    else:
        found = state["structured_response"]
        Report.model_validate(found if form == "dictionary" else found.model_dump())


def shown(message: AnyMessage) -> list[str | None]:
    calls = [call["name"] for call in message.tool_calls] if isinstance(message, AIMessage) else [message.name]
    return ["ai" if isinstance(message, AIMessage) else message.type, *calls]


def reasoning(message: AnyMessage) -> str:
    return "".join(str(block.get("reasoning")) for block in message.content_blocks if block["type"] == "reasoning")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("form", ["ToolStrategy", "ProviderStrategy"])
@pytest.mark.parametrize("kind", ["one tool", "two tools"])
def test_whatever_the_model_fancies_is_well_formed(plain: Engine, kind: str, form: str, seed: int) -> None:
    """Calls as the tools take them, or the object; it may go on for longer than anyone waits."""
    desk = Desk(TOOLS[kind])
    agent = agent_of(plain, desk, form, temperature=1, seed=seed)
    with suppress(GraphRecursionError, ContextOverflow):
        agent.invoke({"messages": [desk.question]}, {**THREAD, "recursion_limit": 8})
    state = agent.get_state(THREAD).values
    results = [it for it in state["messages"] if isinstance(it, ToolMessage) and it.name in {"measure", "look_up"}]
    assert all(result.status == "success" for result in results)
    assert isinstance(state.get("structured_response"), (Report, type(None)))


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_phone_agent_taps_and_ends_by_itself(plain: Engine, parser: Engine, streaming: bool) -> None:
    for engine in (plain, parser):
        desk = Desk(["tap"])
        agent = agent_of(engine, desk, streaming=streaming)
        state = await agent.ainvoke({"messages": [desk.question]}, THREAD)
        assert desk.tapped == [RED]
        assert desk.phone.buttons == [BLUE]
        assert [shown(message) for message in state["messages"]][1:] == [["ai", "tap"], ["tool", "tap"], ["ai"]]
        assert "finish" in state["messages"][-1].text
