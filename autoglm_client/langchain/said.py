"""What a message of the model says: its reasoning, its text and its calls, wherever the message keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from ..errors import ConfigurationError
from ..messages import TAGS_AT_THE_ENDS
from .client_tools import result_text
from .content import Call, Item, Result, Thought, is_known, read_blocks, read_call

__all__ = ["Said", "bare", "read_said", "shown_result"]


@dataclass(frozen=True)
class Said:
    """An answer that was given; ``assistant`` of the client can write it."""

    reasoning: str
    text: str
    calls: Sequence[Call] = ()
    tool_calls: tuple[()] = ()
    action_call: None = None


def read_said(message: BaseMessage, where: str) -> Said:
    """Read an AIMessage, or a ChatMessage of the model; a call that stands in two places is one call."""
    items = read_blocks(_content(message, where), where)
    calls = _calls(message, items, where)
    thoughts = [item.text for item in items if isinstance(item, Thought)]
    kept = message.additional_kwargs.get("reasoning_content")
    if isinstance(kept, str) and kept not in ("".join(thoughts), "\n".join(thoughts)):  # version 1 holds it twice
        thoughts.insert(0, kept)
    return Said(bare("\n".join(thoughts)), "".join(_texts(items, calls, where)), calls)


def bare(text: str) -> str:
    """Take off the tags at the ends, which are written once, by us."""
    return TAGS_AT_THE_ENDS.sub("", text).strip()


def shown_result(result: Result, text: str) -> str:
    """Write the result of a tool as text."""
    return result_text(result.name, text, result.status)


def _content(message: BaseMessage, where: str) -> str | Sequence[str | Mapping[str, object]]:
    if isinstance(message.content, str) or all(map(is_known, message.content)):
        return message.content
    if not (isinstance(message, AIMessage) and message.response_metadata.get("model_provider")):
        return message.content
    try:
        return message.content_blocks  # LangChain knows the blocks of other providers
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: the blocks of the content cannot be read ({error})") from error


def _calls(message: BaseMessage, items: Sequence[Item], where: str) -> list[Call]:
    calls = list(_listed_calls(message, where)) or list(_openai_calls(message.additional_kwargs, where))
    known = {call.key for call in calls}
    for item in items:
        if isinstance(item, Call) and not item.hosted and item.key not in known:
            known.add(item.key)
            calls.append(item)
    return calls


def _listed_calls(message: BaseMessage, where: str) -> Iterator[Call]:
    if isinstance(message, AIMessage):
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            yield read_call(call["name"], call["args"], call["id"], where)


def _openai_calls(kept: Mapping[str, Any], where: str) -> Iterator[Call]:
    old = kept.get("function_call")
    for call in kept.get("tool_calls") or ([{"function": old}] if old else []):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping):
            raise ConfigurationError(f"{where}: a call without a function in its additional_kwargs; use tool_calls")
        yield read_call(function.get("name"), function.get("arguments"), call.get("id"), where)


def _texts(items: Sequence[Item], calls: Sequence[Call], where: str) -> Iterator[str]:
    known = {call.key for call in calls}
    names = {item.id: item.name for item in items if isinstance(item, Call)}
    for item in items:
        if isinstance(item, Result):
            text = "".join(_texts(item.items, calls, where))
            yield shown_result(replace(item, name=names.get(item.id)), text)
        elif isinstance(item, Call):
            yield str(item) if item.hosted and item.key not in known else ""
        elif not isinstance(item, Thought):
            yield _text(item, where)


def _text(part: Mapping[str, object], where: str) -> str:
    if part["type"] == "text":
        return str(part["text"])
    raise ConfigurationError(
        f"{where}: a block of type {part['type']!r} in an answer of the model, which can hold text alone; "
        "put it into a HumanMessage"
    )
