"""A phone as tools: each action that the model may call, done on a device, with the new screen as the result."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from inspect import getdoc, iscoroutinefunction
from math import isfinite
from typing import Any, TypeAlias, cast, get_type_hints

from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException

from .. import (
    Action,
    ActionError,
    CallAPI,
    ConfigurationError,
    DoubleTap,
    Interact,
    LongPress,
    Note,
    Point,
    Swipe,
    TakeOver,
    Tap,
    Wait,
    first_turn,
    image,
    next_turn,
)
from .action_calls import ACTION_TOOLS, action_of
from .device import Device, perform

__all__ = ["Ask", "first_message", "is_phone_tool", "phone_tools"]

Ask: TypeAlias = Callable[[dict[str, Any]], Any]
"""Put a question to the user: ``{"kind": ..., "action": ..., "message": ...}`` in, the answer out."""

_MARK = "autoglm_action"
_LONGEST_WAIT = 60.0  # seconds: "10 min" would be a phone that nobody uses
_AGREED = "The user's answer: {}"
_NO_ANSWER = "The user gave no answer."
_REFUSED = "The user refused this tap: it was not done."
_REMARKS: dict[type[Action], str] = {
    Note: "Noted.",
    CallAPI: "Nothing was called: do this yourself, from the screens you have seen, when you finish.",
}

_MEANINGS = {
    "app": "The app's name.",
    "element": "Where: [x, y] in thousandths of the screen, from its top left.",
    "start": "From where: [x, y] in thousandths of the screen, from its top left.",
    "end": "To where: [x, y] in thousandths of the screen, from its top left.",
    "text": "The text.",
    "instruction": "What to do.",
    "duration": 'How long: "3 seconds".',
}
_MESSAGES: dict[type[Action], str] = {
    Tap: "Only where payment, privacy or property are at stake: what this tap does. The user is asked first.",
    Interact: "The question to the user.",
    Note: "What to remember.",
    TakeOver: "What the user has to do.",
}


def phone_tools(device: Device, *, settle: float = 1.0, ask: Ask | None = None) -> list[BaseTool]:
    """Make a tool of each action that the model may call, for `ChatAutoGLM.bind_tools`, ``create_agent``, ``ToolNode``.

    A tool does its action, waits ``settle`` seconds, and answers with the new screen, laid out as the model knows it.
    What cannot be done, and a call that means no action, is an answer of the status ``"error"``, which says why.

    Three actions are for the user: they stop the LangGraph graph with an ``interrupt``, before anything is done on the
    phone. Its value is ``{"kind": ..., "action": ..., "message": ...}``; go on with ``Command(resume=answer)``:

    - ``"confirm"``, a tap (or another touch) with a message: nothing but ``True`` is a yes, all else refuses the tap;
    - ``"choose"``, of ``interact``: the answer is told to the model;
    - ``"take_over"``: any answer says that the user has done it.

    AutoGLM calls one tool at a time. For models that call several at once, take ``create_agent``: a bare ``ToolNode``
    repeats, after an interrupt, also the calls beside it that were already done.

    Where there is no LangGraph, ``ask`` gets the same value and returns the answer; it is a plain function, which async
    tools call in a thread. Raises `ConfigurationError` when the device lacks a method; so does a tool that cannot ask.
    """
    _check_device(device)
    _check_settle(settle)
    _check_ask(ask)
    phone = _Phone(device, settle, ask or _interrupt)
    return [_tool(phone, name, kind) for name, kind in ACTION_TOOLS.items()]


def _check_device(device: object) -> None:
    if isinstance(device, type):
        raise ConfigurationError(f"device: {device.__name__} is a class; make a phone of it: {device.__name__}(...)")
    if not isinstance(device, Device):
        missing = [name for name in vars(Device) if not name.startswith("_") and not hasattr(device, name)]
        raise ConfigurationError(f"device: a {type(device).__name__} has no {', '.join(missing)}; see Device")


def _check_settle(settle: object) -> None:
    if isinstance(settle, bool) or not isinstance(settle, int | float) or not (isfinite(settle) and settle >= 0):
        raise ConfigurationError(f"settle={settle!r}: give seconds, 0 or more")


def _check_ask(ask: object) -> None:
    if ask is None:
        return
    if not callable(ask):
        raise ConfigurationError(f"ask={ask!r}: give a function that takes the question and returns the answer")
    if iscoroutinefunction(ask) or iscoroutinefunction(type(ask).__call__):
        raise ConfigurationError("ask: an async function cannot answer sync tools; give a plain one, or use LangGraph")


def is_phone_tool(tool: object) -> bool:
    """Whether this is one of `phone_tools`, which the model calls by its own ``do(...)``."""
    return isinstance(tool, BaseTool) and _MARK in (tool.metadata or {})


def first_message(device: Device, task: str) -> HumanMessage:
    """Open a task: the screen of the device now, and what to do."""
    return HumanMessage(first_turn(task, image(device.screenshot()), _screen_info(device))["content"])  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What to say with the next screen, and how long to wait for it."""

    said: str = ""
    pause: float = 0.0
    failed: bool = False


class _Failed(ToolException):
    """The answer of a tool that could not do its action."""

    def __init__(self, message: str, content: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.content = content


class _Phone:
    """Does actions: first act, then wait, then look. Only the waiting differs between sync and async."""

    def __init__(self, device: Device, settle: float, ask: Ask) -> None:
        self._device = device
        self._settle = settle
        self._ask = ask

    def run(self, name: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        outcome = self._act(name, arguments)
        time.sleep(outcome.pause)
        return self._look(outcome)

    async def arun(self, name: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        outcome = await asyncio.to_thread(self._act, name, arguments)
        await asyncio.sleep(outcome.pause)
        return await asyncio.to_thread(self._look, outcome)

    def _act(self, name: str, arguments: Mapping[str, Any]) -> _Outcome:
        try:
            action = action_of(name, arguments)
        except ActionError as error:
            return _Outcome(f"{name} was not done: {error} ({error.code})", failed=True)
        return self._consult(name, action, arguments.get("message")) or self._do(name, action)

    def _consult(self, name: str, action: Action, warning: object) -> _Outcome | None:
        """Ask the user where the action says so; nothing when it is then to be done.

        After an interrupt all of this runs again from the start, so it comes before anything is done on the phone.
        """
        match action:
            case TakeOver(message):
                self._ask({"kind": "take_over", "action": name, "message": message})
                return _Outcome()
            case Interact(message):
                answer = self._ask({"kind": "choose", "action": name, "message": message})
                return _Outcome(_NO_ANSWER if answer is None else _AGREED.format(answer))
            case Tap() | DoubleTap() | LongPress() | Swipe() if warning is not None and str(warning).strip():
                agreed = self._ask({"kind": "confirm", "action": name, "message": str(warning)})
                return None if agreed is True else _Outcome(_REFUSED)  # "no" and "false" are true, too
        return None

    def _do(self, name: str, action: Action) -> _Outcome:
        if isinstance(action, Wait):
            return _Outcome(pause=min(action.seconds, _LONGEST_WAIT))
        try:
            perform(self._device, action)
        except Exception as error:  # noqa: BLE001 - the device is the user's: whatever it raises, the model is told
            return _Outcome(f"{name} was not done: {_words(error)}", failed=True)
        said = _REMARKS.get(type(action), "")
        return _Outcome(said, pause=0.0 if said else self._settle)

    def _look(self, outcome: _Outcome) -> list[dict[str, Any]]:
        try:
            content = _screen(self._device, outcome.said)
        except Exception as error:
            said = f"{outcome.said}\n\nThere is no picture of the screen: {_words(error)}".strip()
            raise _Failed(said, [{"type": "text", "text": said}]) from error
        if outcome.failed:
            raise _Failed(outcome.said, content)
        return content


def _screen(device: Device, said: str) -> list[dict[str, Any]]:
    """The next turn's picture and text, with what is said on top of the text."""
    turn = next_turn(image(device.screenshot()), _screen_info(device))
    picture, text = cast("list[dict[str, Any]]", turn["content"])
    return [picture, {**text, "text": f"{said}\n\n{text['text']}"} if said else text]


def _screen_info(device: Device) -> dict[str, object]:
    return {"current_app": device.current_app()}


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _interrupt(question: dict[str, Any]) -> Any:
    why = f"{question['action']} asks the user"
    try:
        from langgraph.types import interrupt
    except ImportError as error:
        raise ConfigurationError(f"{why}: pip install langgraph, or pass phone_tools an `ask`") from error
    try:
        return interrupt(question)
    except (KeyError, RuntimeError) as error:  # what it raises outside of a graph
        raise ConfigurationError(f"{why}: run it in a LangGraph graph, or pass phone_tools an `ask`") from error


def _tool(phone: _Phone, name: str, kind: type[Action]) -> BaseTool:
    def run(**arguments: Any) -> list[dict[str, Any]]:
        return phone.run(name, arguments)

    async def arun(**arguments: Any) -> list[dict[str, Any]]:
        return await phone.arun(name, arguments)

    return StructuredTool(
        name=name,
        description=_description(kind),
        args_schema=_parameters(kind),
        func=run,
        coroutine=arun,
        metadata={_MARK: kind.name},
        handle_tool_error=lambda error: cast("_Failed", error).content,
    )


def _description(kind: type[Action]) -> str:
    """What the class's docstring says first, without its marks; with ``python -OO``, which drops it, the name."""
    doc = getdoc(kind) or ""
    if not doc or doc.startswith(f"{kind.__name__}("):  # a dataclass without one gets its signature
        return f"Do the action {kind.name.replace('_', ' ')} on the phone."
    first = re.split(r"[.;](?:\s|$)", doc, maxsplit=1)[0]
    return f"{first}."


def _parameters(kind: type[Action]) -> dict[str, Any]:
    """A JSON schema for other models that drive the phone; what a call means, and its errors, `action_of` decides."""
    hints = get_type_hints(kind)
    given = [field for field in fields(kind) if kind is not Swipe or hints[field.name] is Point]
    return {
        "type": "object",
        "properties": {field.name: _parameter(kind, field.name, hints[field.name]) for field in given},
        "required": [field.name for field in given if field.default is MISSING],
    }


def _parameter(kind: type[Action], name: str, hint: object) -> dict[str, Any]:
    description = _MESSAGES[kind] if name == "message" else _MEANINGS[name]
    if hint is not Point:
        return {"type": "string", "description": description}
    number = {"type": "integer", "minimum": 0, "maximum": 999}
    return {"type": "array", "items": number, "minItems": 2, "maxItems": 2, "description": description}
