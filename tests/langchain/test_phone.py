"""The phone's tools: what each does on a device, what it answers, and when the user is asked."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, cast, get_args

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tools import BaseTool, tool as make_tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import Command

from autoglm_client import Action, Back, ConfigurationError, Finish, MediaError, Point, Swipe, image_size, read_action
from autoglm_client.langchain.action_calls import ACTION_TOOLS, arguments_of
from autoglm_client.langchain.device import Device, perform
from autoglm_client.langchain.phone import first_message, is_phone_tool, phone_tools
from server_stub.phone import HOME, DrawnPhone
from server_stub.screen import Button

WIDTH, HEIGHT = 101, 201  # so that 0, 500 and 999 of the model are 0, 50 and 100 across, 0, 100 and 200 down
RED, BLUE = Button("red", 0, 0, 20, 20), Button("blue", 40, 90, 20, 20)


def drawn(**options: Any) -> DrawnPhone:
    return DrawnPhone(WIDTH, HEIGHT, [RED, BLUE], **options)


def tool_of(phone: Device, name: str, **options: Any) -> BaseTool:
    return next(tool for tool in phone_tools(phone, **{"settle": 0, **options}) if tool.name == name)


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_call", "id": "1", "name": name, "args": arguments}


def run(phone: Device, name: str, arguments: dict[str, Any], **options: Any) -> ToolMessage:
    return cast("ToolMessage", tool_of(phone, name, **options).invoke(call(name, arguments)))


async def arun(phone: Device, name: str, arguments: dict[str, Any], **options: Any) -> ToolMessage:
    return cast("ToolMessage", await tool_of(phone, name, **options).ainvoke(call(name, arguments)))


def words(message: AnyMessage) -> str:
    """What stands in a turn that shows the screen, whose picture comes first."""
    picture, text = cast("list[dict[str, Any]]", message.content)
    assert picture["type"] == "image_url"
    return str(text["text"])


def picture(message: AnyMessage) -> bytes:
    url = cast("Any", message.content[0])["image_url"]["url"]
    return base64.b64decode(url.partition(",")[2])


def screen(app: str = HOME) -> str:
    return f'** Screen Info **\n\n{{"current_app": "{app}"}}'


DONE: dict[str, tuple[str, dict[str, Any], list[tuple[object, ...]]]] = {
    "launch": ("launch", {"app": "微信"}, [("launch", "微信")]),
    "tap at the start": ("tap", {"element": [0, 0]}, [("tap", 0, 0, 1, 0.0)]),
    "tap in the middle": ("tap", {"element": [500, 500]}, [("tap", 50, 100, 1, 0.0)]),
    "tap at the end": ("tap", {"element": [999, 999]}, [("tap", 100, 200, 1, 0.0)]),
    "tap on a box": ("tap", {"element": [0, 0, 999, 999]}, [("tap", 50, 100, 1, 0.0)]),
    "tap without a message": ("tap", {"element": [0, 0], "message": None}, [("tap", 0, 0, 1, 0.0)]),
    "tap and more": ("tap", {"element": [0, 0], "config": 1, "name": "x", "clear": True}, [("tap", 0, 0, 1, 0.0)]),
    "type": ("type", {"text": 'a "b"\n</answer>'}, [("type", 'a "b"\n</answer>')]),
    "type_name": ("type_name", {"text": "王"}, [("type", "王")]),
    "swipe": ("swipe", {"start": [500, 999], "end": [500, 0]}, [("swipe", (50, 200), (50, 0))]),
    "swipe of old": ("swipe", {"direction": "up", "dist": "long"}, [("swipe", (50, 100), (50, 10))]),
    "note": ("note", {"message": "True"}, []),
    "call_api": ("call_api", {"instruction": "Sum up."}, []),
    "long_press": ("long_press", {"element": [999, 0]}, [("tap", 100, 0, 1, 1.5)]),
    "double_tap": ("double_tap", {"element": [0, 999]}, [("tap", 0, 200, 2, 0.0)]),
    "back": ("back", {}, [("key", "back")]),
    "home": ("home", {}, [("key", "home")]),
    "wait": ("wait", {"duration": "0 seconds"}, []),
}
SAID = {
    "note": "Noted.",
    "call_api": "Nothing was called: do this yourself, from the screens you have seen, when you finish.",
}


@pytest.mark.parametrize("case", DONE)
async def test_a_tool_does_its_action_and_shows_the_screen(case: str) -> None:
    name, arguments, actions = DONE[case]
    one, other = drawn(), drawn()
    for phone, message in ((one, run(one, name, arguments)), (other, await arun(other, name, arguments))):
        assert phone.actions == actions
        assert (message.status, message.name, message.tool_call_id) == ("success", name, "1")
        assert picture(message) == phone.screenshot()
        assert words(message).removeprefix(f"{SAID.get(name, '')}\n\n") == screen(phone.app)


def test_the_picture_is_that_of_the_new_screen() -> None:
    phone = drawn()
    before = phone.screenshot()
    assert picture(run(phone, "tap", {"element": [500, 500]})) == phone.screenshot() != before
    assert phone.buttons == [RED]


FAILED: dict[str, tuple[str, dict[str, Any], str]] = {
    "an app that is not there": ("launch", {"app": "X"}, "launch was not done: LookupError: there is no app named 'X'"),
    "off the scale": ("tap", {"element": [1, 1000]}, "coordinates_out_of_range"),
    "no point": ("tap", {"element": "here"}, "invalid_coordinates"),
    "no argument": ("tap", {}, "missing_parameter"),
    "another action": ("back", {"action": "Home"}, "malformed_call"),
}


@pytest.mark.parametrize("case", FAILED)
async def test_what_cannot_be_done_is_an_error_with_the_screen(case: str) -> None:
    name, arguments, said = FAILED[case]
    phone = drawn(apps=["Chrome"])
    for message in (run(phone, name, arguments), await arun(phone, name, arguments)):
        assert message.status == "error"
        assert words(message).startswith(f"{name} was not done: ")
        assert said in words(message)
        assert words(message).endswith(f"\n\n{screen()}")
        assert picture(message) == phone.screenshot()
    assert phone.actions == []


class Lost(DrawnPhone):
    """A phone that is lost after so many screenshots."""

    screenshots = 0

    def screenshot(self) -> bytes:
        if not self.screenshots:
            raise ConnectionError
        self.screenshots -= 1
        return super().screenshot()


@pytest.mark.parametrize(
    ("screenshots", "said", "done"),
    [
        (0, "tap was not done: ConnectionError\n\nThere is no picture of the screen: ConnectionError", 0),
        (1, "There is no picture of the screen: ConnectionError", 1),
    ],
)
async def test_a_phone_without_a_screen_is_an_error_in_words(screenshots: int, said: str, done: int) -> None:
    phone = Lost(WIDTH, HEIGHT)
    phone.screenshots = screenshots
    message = run(phone, "tap", {"element": [0, 0]})
    assert (message.status, message.content) == ("error", [{"type": "text", "text": said}])
    assert len(phone.actions) == done


def test_it_waits_for_the_screen_to_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for name, arguments in (
        ("back", {}),
        ("note", {"message": "True"}),
        ("wait", {}),
        ("wait", {"duration": "2.5 seconds"}),
        ("wait", {"duration": "10 min"}),
        ("tap", {}),
    ):
        run(drawn(), name, cast("dict[str, Any]", arguments), settle=0.75)
    assert slept == [0.75, 0.0, 1.0, 2.5, 60.0, 0.0]


async def test_waiting_holds_up_nobody() -> None:
    started = time.monotonic()
    waits = [arun(drawn(), "wait", {"duration": "0.2 seconds"}) for _ in range(50)]
    await asyncio.gather(*waits)
    assert time.monotonic() - started < 5  # one after another: 10


@pytest.mark.parametrize("name", ACTION_TOOLS)
def test_each_tool_says_what_it_is(name: str) -> None:
    tool = tool_of(drawn(), name)
    assert is_phone_tool(tool)
    assert (tool.metadata or {})["autoglm_action"] == ACTION_TOOLS[name].name
    function = convert_to_openai_tool(tool)["function"]
    assert function["name"] == name
    assert function["description"].endswith(".")
    assert not {"`", ":class:"} & set(function["description"])
    parameters = function["parameters"]
    assert set(parameters["required"]) <= set(parameters["properties"])
    assert all(parameter["description"] for parameter in parameters["properties"].values())
    json.dumps(function)


def test_the_schema_tells_points_and_texts() -> None:
    assert (
        tool_of(drawn(), "tap").args["element"].items()
        >= {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 999},
            "minItems": 2,
            "maxItems": 2,
        }.items()
    )
    assert tool_of(drawn(), "type").args["text"]["type"] == "string"
    assert set(tool_of(drawn(), "swipe").args) == {"start", "end"}


def test_other_tools_are_no_phone_tools() -> None:
    @make_tool
    def search(query: str) -> str:
        """Search."""
        return query

    assert not is_phone_tool(search)
    assert not is_phone_tool({"name": "tap"})


def test_the_first_message_shows_the_screen_and_the_task() -> None:
    phone = drawn()
    message = first_message(phone, "Tap the red button")
    assert isinstance(message, HumanMessage)
    assert words(message) == f'Tap the red button\n\n{{"current_app": "{HOME}"}}'
    assert picture(message) == phone.screenshot()


def test_what_is_no_device_is_told_at_once() -> None:
    class Half:
        def screenshot(self) -> bytes:
            return b""

        def tap(self, x: int, y: int) -> None:
            """Nothing."""

    with pytest.raises(ConfigurationError, match="a Half has no current_app, swipe, type, key, launch"):
        phone_tools(cast("Device", Half()))


def test_a_class_is_no_device() -> None:
    with pytest.raises(ConfigurationError, match=r"DrawnPhone is a class; make a phone of it: DrawnPhone\(\.\.\.\)"):
        phone_tools(cast("Device", DrawnPhone))


@pytest.mark.parametrize("settle", [-1, float("nan"), float("inf"), True, "1", None])
def test_the_time_to_settle_is_checked_at_once(settle: Any) -> None:
    with pytest.raises(ConfigurationError, match="give seconds, 0 or more"):
        phone_tools(drawn(), settle=settle)


class Asker:
    async def __call__(self, question: dict[str, Any]) -> bool:
        return True


async def agree_later(question: dict[str, Any]) -> bool:
    return True


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (agree_later, "an async function cannot answer"),
        (partial(agree_later), "an async function cannot answer"),
        (Asker(), "an async function cannot answer"),
        ("yes", "ask='yes': give a function"),
    ],
)
def test_what_cannot_ask_is_told_at_once(ask: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        phone_tools(drawn(), ask=ask)


def never(question: dict[str, Any]) -> Any:
    raise AssertionError(question)


@pytest.mark.parametrize("message", ["", " "])
def test_a_tap_with_an_empty_message_asks_nobody(message: str) -> None:
    phone = drawn()
    assert words(run(phone, "tap", {"element": [0, 0], "message": message}, ask=never)) == screen()
    assert len(phone.actions) == 1


def test_a_user_may_give_no_answer() -> None:
    said = words(run(drawn(), "interact", {"message": "Which?"}, ask=lambda _: None))
    assert said == f"The user gave no answer.\n\n{screen()}"


def test_without_docstrings_the_tools_have_descriptions() -> None:
    program = (
        "from autoglm_client.langchain.phone import phone_tools; from server_stub.phone import DrawnPhone; "
        "print(*(tool.description for tool in phone_tools(DrawnPhone())), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-OO", "-c", program], capture_output=True, text=True, check=True)
    names = [kind.name.replace("_", " ") for kind in ACTION_TOOLS.values()]
    assert done.stdout.splitlines() == [f"Do the action {name} on the phone." for name in names]


@pytest.mark.parametrize("doc", [None, "Back()"])
def test_without_a_docstring_the_name_says_what_it_is(doc: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Back, "__doc__", doc)
    assert tool_of(drawn(), "back").description == "Do the action Back on the phone."


def test_what_is_no_picture_is_told() -> None:
    class Blind(DrawnPhone):
        def screenshot(self) -> bytes:
            return b"GIF89a"

    with pytest.raises(MediaError, match="GIF"):
        first_message(Blind(), "Tap")
    assert "this is GIF" in str(run(Blind(), "back", {}).content)


def test_actions_that_concern_no_phone_do_nothing_on_one() -> None:
    phone = drawn()
    perform(phone, Finish("Done."))
    assert phone.actions == []


QUESTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tap": ({"element": [0, 0], "message": "Pay"}, {"kind": "confirm", "action": "tap", "message": "Pay"}),
    "interact": ({"message": "Which?"}, {"kind": "choose", "action": "interact", "message": "Which?"}),
    "take_over": ({"message": "Log in"}, {"kind": "take_over", "action": "take_over", "message": "Log in"}),
}
REFUSED = f"The user refused this tap: it was not done.\n\n{screen()}"
ANSWERS: list[tuple[str, object, str, int]] = [
    ("tap", True, screen(), 1),
    ("tap", False, REFUSED, 0),
    ("tap", "no", REFUSED, 0),
    ("tap", {"type": "approve"}, REFUSED, 0),
    ("interact", "the second", f"The user's answer: the second\n\n{screen()}", 0),
    ("take_over", True, screen(), 0),
    ("take_over", "done", screen(), 0),
    ("take_over", False, screen(), 0),
]


class Scripted(GenericFakeChatModel):
    """A model that calls the tool it was told to, and then says that it is done."""

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Runnable[Any, AIMessage]:
        return self


def scripted(*calls: dict[str, Any]) -> Scripted:
    return Scripted(messages=iter([AIMessage("", tool_calls=list(calls)), AIMessage("Done.")]))


def agent_of(phone: DrawnPhone, *calls: dict[str, Any]) -> Any:
    return create_agent(scripted(*calls), phone_tools(phone, settle=0), checkpointer=InMemorySaver())


def node_of(phone: DrawnPhone, *calls: dict[str, Any]) -> Any:
    graph = StateGraph(MessagesState)
    graph.add_node("tools", ToolNode(phone_tools(phone, settle=0)))
    graph.add_edge(START, "tools")
    return graph.compile(checkpointer=InMemorySaver())


@pytest.fixture(params=[agent_of, node_of])
def graphs(request: pytest.FixtureRequest) -> Any:
    return request.param


def opening(phone: DrawnPhone, graph: Any, *calls: dict[str, Any]) -> dict[str, Any]:
    first: list[AnyMessage] = [first_message(phone, "Do it")]
    return {"messages": first if graph is agent_of else [*first, AIMessage("", tool_calls=list(calls))]}


def results(state: dict[str, Any]) -> list[ToolMessage]:
    return [message for message in state["messages"] if isinstance(message, ToolMessage)]


CONFIG: RunnableConfig = {"configurable": {"thread_id": "1"}}


@pytest.mark.parametrize(("name", "answer", "said", "done"), ANSWERS)
async def test_the_user_is_asked_before_anything_is_done(
    graphs: Any, name: str, answer: object, said: str, done: int
) -> None:
    arguments, question = QUESTIONS[name]
    for asynchronous in (False, True):
        phone = drawn()
        graph = graphs(phone, call(name, arguments))

        async def go(given: Any, graph: Any = graph, asynchronous: bool = asynchronous) -> Any:
            return await graph.ainvoke(given, CONFIG) if asynchronous else graph.invoke(given, CONFIG)

        state = await go(opening(phone, graphs, call(name, arguments)))
        assert [interrupt.value for interrupt in state["__interrupt__"]] == [question]
        assert phone.actions == []
        state = await go(Command(resume=answer))
        assert "__interrupt__" not in state
        assert [(message.status, words(message)) for message in results(state)] == [("success", said)]
        assert len(phone.actions) == done


def test_an_agent_goes_on_after_the_tools() -> None:
    phone = drawn()
    agent = agent_of(phone, call("tap", {"element": [500, 500]}))
    state = agent.invoke(opening(phone, agent_of), CONFIG)
    assert state["messages"][-1].text == "Done."
    assert [words(message) for message in results(state)] == [screen()]
    assert phone.actions == [("tap", 50, 100, 1, 0.0)]


def test_an_agent_is_told_what_could_not_be_done() -> None:
    phone = drawn()
    state = agent_of(phone, call("tap", {"element": [1, 1000]})).invoke(opening(phone, agent_of), CONFIG)
    assert [message.status for message in results(state)] == ["error"]
    assert state["messages"][-1].text == "Done."


async def test_without_langgraph_a_function_asks() -> None:
    asked: list[dict[str, Any]] = []

    def agree(question: dict[str, Any]) -> bool:
        asked.append(question)
        return True

    phone = drawn()
    arguments, question = QUESTIONS["tap"]
    assert words(run(phone, "tap", arguments, ask=agree)) == screen()
    assert words(await arun(phone, "tap", arguments, ask=agree)) == screen()
    assert asked == [question, question]
    assert len(phone.actions) == 2


@pytest.mark.parametrize("name", QUESTIONS)
async def test_a_question_that_nobody_hears_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    phone = drawn()
    with pytest.raises(ConfigurationError, match=f"{name} asks the user: run it in a LangGraph graph"):
        run(phone, name, QUESTIONS[name][0])
    with pytest.raises(ConfigurationError, match=f"{name} asks the user: run it in a LangGraph graph"):
        await arun(phone, name, QUESTIONS[name][0])
    monkeypatch.setitem(sys.modules, "langgraph.types", None)
    with pytest.raises(ConfigurationError, match=f"{name} asks the user: pip install langgraph"):
        run(phone, name, QUESTIONS[name][0])
    assert phone.actions == []


def test_the_drawn_phone_is_a_device() -> None:
    phone: Device = DrawnPhone()
    assert isinstance(phone, Device)
    assert image_size(phone.screenshot()) == (720, 1280)


def test_the_drawn_phone_changes_as_it_says() -> None:
    over = Button("green", 5, 5, 5, 5)
    phone = DrawnPhone(WIDTH, HEIGHT, [RED, over])
    phone.tap(5, 5)
    assert phone.buttons == [RED]
    phone.tap(100, 200)
    assert phone.buttons == [RED]
    phone.launch("Chrome")
    phone.key("back")
    assert phone.current_app() == "Chrome"
    phone.key("home")
    assert phone.current_app() == HOME
    for places in ([(101, 0)], [(0, 201)], [(-1, 0)], [(0, 0), (0, -1)], [(0, -1), (0, 0)]):
        with pytest.raises(ValueError, match="is not on a screen of 101 by 201 pixels"):
            phone.swipe(places[0], places[-1]) if len(places) > 1 else phone.tap(*places[0])


@pytest.mark.parametrize("name", ACTION_TOOLS)
def test_what_the_model_writes_is_done_as_it_was_meant(name: str) -> None:
    arguments = next(arguments for tool, arguments, _ in [*DONE.values(), *asked()] if tool == name)
    action = read_action(f"do(action={ACTION_TOOLS[name].name!r}, {keywords(arguments)})").action
    tool_of(drawn(), name, ask=lambda _: True).invoke(call(name, arguments_of(action)))
    assert isinstance(action, ACTION_TOOLS[name])


def asked() -> list[tuple[str, dict[str, Any], None]]:
    return [(name, arguments, None) for name, (arguments, _) in QUESTIONS.items()]


def keywords(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())


def test_every_action_but_the_end_has_a_tool() -> None:
    assert set(ACTION_TOOLS.values()) == set(get_args(Action)) - {Finish}
    assert [tool.name for tool in phone_tools(drawn())] == list(ACTION_TOOLS)
    assert arguments_of(Swipe(Point(1, 2), Point(3, 4))) == {"start": [1, 2], "end": [3, 4]}


def test_an_interrupt_repeats_no_call_beside_it() -> None:
    phone = drawn()
    calls = [call("tap", {"element": [0, 0]}), {**call("take_over", {"message": "Log in"}), "id": "2"}]
    agent = agent_of(phone, *calls)
    assert "__interrupt__" in agent.invoke(opening(phone, agent_of), CONFIG)
    assert len(results(agent.invoke(Command(resume=True), CONFIG))) == 2
    assert phone.actions == [("tap", 0, 0, 1, 0.0)]
