"""LangChain messages as they go over the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, cast

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from ..actions import ActionCall, read_action
from ..errors import ActionError, ConfigurationError
from ..messages import Message, assistant, fetched_from, refuse_remote, without_images
from .action_calls import ACTION_TOOLS, action_of
from .content import Call, Item, Result, Thought, read_blocks, read_result
from .parts import Part, text_part
from .said import Said, bare, read_said, shown_result

__all__ = ["ReasoningInHistory", "to_wire"]

ReasoningInHistory: TypeAlias = Literal["drop", "field", "tags"]
"""How the model sees what it thought before: not at all, as vLLM's field ``reasoning``, or in tags as it wrote it."""

ROLES = {"ai": "assistant", "developer": "system", "function": "tool", "human": "user"}
KINDS: tuple[tuple[type[BaseMessage], str], ...] = (
    (AIMessage, "assistant"),
    (FunctionMessage, "tool"),
    (HumanMessage, "user"),
    (SystemMessage, "system"),
    (ToolMessage, "tool"),
)


def to_wire(
    messages: Sequence[BaseMessage],
    *,
    reasoning: ReasoningInHistory = "tags",
    native_tools: bool = False,
    phone: bool = False,
    allow_remote_images: bool = False,
) -> list[Message]:
    """Write LangChain's messages as the server reads them.

    ``native_tools`` is for a server whose chat template knows tools; without it calls and their results are written
    as text. With ``phone``, phone actions are the model's own ``do(...)``, what they led to is the user's turn, and
    only the last message with pictures keeps them: with two screens before it the model taps in the wrong place.
    Without ``allow_remote_images`` nothing is sent that the server would fetch: a block that names it by an http(s) URL
    is refused, and in what a tool gave back it is data, which becomes JSON.

    Raises `ConfigurationError`, which names the message and the block, for what cannot be sent.
    """
    history = _History(reasoning, native_tools, phone, allow_remote_images)
    for index, message in enumerate(messages):
        history.add(message, index)
    wire = history.close()
    return _with_the_latest_screen(wire) if phone else wire


@dataclass
class _History:
    reasoning: ReasoningInHistory
    native_tools: bool
    phone: bool
    allow_remote_images: bool
    wire: list[Message] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)  # of one answer: they are given together
    calls: Sequence[Call] = ()  # of the latest answer
    names: dict[str | None, str] = field(default_factory=dict)

    def add(self, message: BaseMessage, index: int) -> None:
        where = f"messages[{index}]"
        role = _role(message, where)
        if role == "tool":
            self.take(_result(message, where), where)
        elif role == "assistant":
            self.answer(message, index)
        else:
            self.say(role, message, where)

    def close(self) -> list[Message]:
        self.give_results()
        return self.wire

    def say(self, role: str, message: BaseMessage, where: str) -> None:
        items = read_blocks(message.content, where)
        results = [item for item in items if isinstance(item, Result)]  # Anthropic's users give them
        for result in results:
            self.take(result, where)
        self.give_results()
        if len(results) < len(items) or not items:
            said = [item for item in items if not isinstance(item, Result)]
            self.check(said, where)
            parts = self.parts(said)
            text_alone = role == "system" or isinstance(message.content, str)  # templates write a system list as it is
            self.put(role, _joined(parts) if text_alone else parts or "", name=message.name)

    def check(self, items: Sequence[Item], where: str) -> None:
        for item in items:
            if isinstance(item, Mapping) and not self.allow_remote_images:
                refuse_remote(item, where)

    def answer(self, message: BaseMessage, index: int) -> None:
        self.give_results()
        said = read_said(message, f"messages[{index}]")
        self.calls = [call if call.id else replace(call, id=f"call-{index}-{at}") for at, call in enumerate(said.calls)]
        self.names |= {call.id: call.name for call in self.calls}
        others = [call for call in self.calls if not self.acts(call.name)]
        native = others if self.native_tools else []
        content = self.spoken(said, others, "" if native else "".join(map(str, others)))
        self.put(
            "assistant",
            content or (None if native else ""),
            name=message.name,
            tool_calls=[_native(call) for call in native],
            reasoning=said.reasoning if self.reasoning == "field" else None,
        )

    def spoken(self, said: Said, others: Sequence[Call], written: str) -> str:
        """The text with the reasoning before it, once; ``<answer>`` is for what ends a turn, so not before calls."""
        actions = [call for call in self.calls if self.acts(call.name)]
        ends, tagged = not others, self.reasoning == "tags"
        text = _with_actions(said.text, actions, tagged=tagged and ends and not said.reasoning)
        if not (tagged and said.reasoning) or text.lstrip().startswith("<think>"):
            return _lines(text, written)
        if ends:
            return str(assistant(Said(said.reasoning, text))["content"])
        return f"<think>{said.reasoning}</think>{_lines(bare(text), written)}"

    def take(self, result: Result, where: str) -> None:
        result = replace(result, name=result.name or self.names.get(result.id))
        if self.native_tools and not result.id and not self.shows(result):
            result = replace(result, id=self.id_of(result, where))
        self.results.append(result)

    def id_of(self, result: Result, where: str) -> str | None:
        for call in self.calls:
            if call.name == result.name:
                return call.id
        raise ConfigurationError(
            f"{where}: the result of a tool that the answer before did not call; use ToolMessage(..., tool_call_id=...)"
        )

    def give_results(self) -> None:
        results, self.results = self.results, []
        others = [result for result in results if not self.shows(result)]
        if self.native_tools:
            self.give_natively(others)
        elif others:
            self.put("user", _joined([part for result in others for part in self.written(result)]))
        for result in results:
            if self.shows(result):
                media, texts = _split(self.parts(result.items))
                self.put("user", _joined([*media, *texts]))

    def give_natively(self, results: Sequence[Result]) -> None:
        pictures: list[Part] = []
        for result in results:
            media, texts = _split(self.parts(result.items))
            pictures += media
            self.put("tool", _joined(texts), tool_call_id=result.id)
        if pictures:
            self.put("user", pictures)

    def written(self, result: Result) -> list[Part]:
        media, texts = _split(self.parts(result.items))
        return [*media, text_part(shown_result(result, str(_joined(texts))))]

    def parts(self, items: Sequence[Item]) -> list[Part]:
        return [part for item in items for part in self.parts_of(item)]

    def parts_of(self, item: Item) -> list[Part]:
        match item:
            case Thought():
                return [text_part(item.text)] if item.text and self.reasoning != "drop" else []
            case Call():
                return [text_part(str(item))]
            case Result():
                return self.written(item)
            case _ if self.allow_remote_images or not fetched_from(item):
                return [item]
            case _:  # in a result: elsewhere it was refused
                return [text_part(json.dumps(item, ensure_ascii=False))]

    def acts(self, name: str) -> bool:
        return self.phone and name in ACTION_TOOLS

    def shows(self, result: Result) -> bool:
        return self.phone and (result.name is None or result.name in ACTION_TOOLS)

    def put(self, role: str, content: str | Sequence[Part] | None, **more: object) -> None:
        message = {"role": role, "content": content, **{key: value for key, value in more.items() if value}}
        self.wire.append(cast("Message", message))


def _role(message: object, where: str) -> str:
    for kind, role in KINDS:
        if isinstance(message, kind):
            return role
    if not isinstance(message, ChatMessage):
        raise ConfigurationError(
            f"{where}: a {type(message).__name__} cannot be sent; apply it to the list first, or take it out"
        )
    role = ROLES.get(message.role, message.role)
    if role not in {"assistant", "system", "tool", "user"}:
        raise ConfigurationError(f"{where}: the role {message.role!r}; use one of assistant, system, tool, user")
    return role


def _result(message: BaseMessage, where: str) -> Result:
    items = read_result(message.content, where)
    if isinstance(message, ToolMessage):
        return Result(items, message.tool_call_id, message.name, message.status)
    return Result(items, None, message.name)


def _native(call: Call) -> dict[str, object]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.written}}


def _with_actions(text: str, actions: Sequence[Call], *, tagged: bool) -> str:
    if not actions:
        return text
    made = [_action(call) for call in actions]
    try:
        said = read_action(text)
    except ActionError:  # there is none, whatever the words look like
        written = "\n".join(made)
        return f"<answer>{written}</answer>" if tagged and not text else _lines(text, written)
    return _with_the_made(said, made)


def _with_the_made(said: ActionCall, made: Sequence[str]) -> str:
    """Write what was done; that may differ from what was said, where a human reviews calls and has changed one."""
    if str(said.action) in made:
        return _lines(said.raw, *(action for action in made if action != str(said.action)))
    if said.raw.lstrip().startswith("<"):
        return str(assistant(Said(said.thinking, "\n".join(made)))["content"])
    return _lines(said.thinking, *made)


def _action(call: Call) -> str:
    try:
        return str(action_of(call.name, call.arguments or {}))
    except ActionError:
        return str(call)  # it was refused when it was made, and the turn after it says so


def _lines(*texts: str) -> str:
    return "\n".join(filter(None, texts))


def _split(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    media = [part for part in parts if part["type"] != "text"]
    return media, [part for part in parts if part["type"] == "text"]


def _joined(parts: Sequence[Part]) -> str | Sequence[Part]:
    media, texts = _split(parts)
    return parts if media else "\n".join(part["text"] for part in texts)


def _with_the_latest_screen(wire: Sequence[Message]) -> list[Message]:
    for index in range(len(wire) - 1, 0, -1):
        if without_images([wire[index]]) != [wire[index]]:
            return [*without_images(wire[:index]), *wire[index:]]
    return list(wire)
