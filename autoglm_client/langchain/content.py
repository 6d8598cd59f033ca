"""What stands in a LangChain message: content blocks, read into parts, thoughts, calls and results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..errors import ConfigurationError
from .client_tools import call_text
from .parts import PART_READERS, Block, Part, refused, string_of, text_part

__all__ = ["Call", "Item", "Result", "Thought", "is_known", "read_blocks", "read_call", "read_result"]


@dataclass(frozen=True, slots=True)
class Thought:
    """Thinking, without tags."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as the model wrote it; ``arguments`` is None when that is no JSON object."""

    name: str
    written: str
    arguments: Mapping[str, Any] | None
    id: str | None
    hosted: bool = False
    """Whether another provider's server ran it, so that nobody here gives its result."""

    def __str__(self) -> str:
        if self.arguments is not None:
            return call_text(self.name, self.arguments)
        name = json.dumps(self.name, ensure_ascii=False)
        return f'<tool_call>{{"name": {name}, "arguments": {self.written}}}</tool_call>'

    @property
    def key(self) -> tuple[str, ...]:
        """What the same call has in common, in the content and in the list of calls."""
        if self.id:
            return (self.id,)
        return self.name, self.written if self.arguments is None else json.dumps(self.arguments, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool gave back; the name may have to be looked up by the id."""

    items: Sequence[Item]
    id: str | None
    name: str | None = None
    status: str = "success"


Item: TypeAlias = Part | Thought | Call | Result


def read_blocks(content: str | Sequence[str | Block], where: str) -> list[Item]:
    """Read the content of a message, in its order; raises `ConfigurationError` for a block that cannot be sent."""
    if isinstance(content, str):
        return [text_part(content)] if content else []
    return [item for block in content for item in _read(block, where)]


def read_result(content: str | Sequence[str | Block], where: str) -> list[Item]:
    """Read what a tool gave back; what only looks like a block is data, and becomes JSON.

    An error would come again with each further call of a thread that holds the result, and nobody could mend it.
    """
    if isinstance(content, str):
        return read_blocks(content, where)
    return [item for block in content for item in _read_or_write(block, where)]


def read_call(name: object, arguments: object, call_id: object, where: str, *, hosted: bool = False) -> Call:
    """Read a tool call; arguments that were JSON stay as they were written."""
    name, call_id = name if isinstance(name, str) else "", call_id if isinstance(call_id, str) else None
    if isinstance(arguments, str):
        return Call(name, arguments if arguments.strip() else "{}", _json_object(arguments), call_id, hosted)
    arguments = {} if arguments is None else arguments
    try:
        written = json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{where}: the arguments of the call of {name!r} cannot be written as JSON ({error}); give plain values"
        ) from error
    return Call(name, written, _json_object(written), call_id, hosted)


def is_known(block: object) -> bool:
    """Whether a block's type is one that can be read."""
    return isinstance(block, str) or (isinstance(block, Mapping) and str(block.get("type")) in READERS)


def _json_object(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _read_or_write(block: object, where: str) -> list[Item]:
    try:
        return list(_read(block, where))
    except ConfigurationError:
        with suppress(TypeError, ValueError, RecursionError):
            return [text_part(json.dumps(block, ensure_ascii=False, default=_in_short))]
        raise


def _in_short(value: object) -> str:
    return "(bytes)" if isinstance(value, bytes) else str(value)  # a picture's, perhaps: no model could read them


def _read(block: object, where: str) -> Iterable[Item]:
    if isinstance(block, str):
        return [text_part(block)]
    if not isinstance(block, Mapping):
        raise ConfigurationError(f"{where}: a {type(block).__name__} is no content block; use a string or a dict")
    if not is_known(block):
        raise refused(block, where, "cannot be sent; write it as text, or leave it out")
    return READERS[str(block["type"])](block, where)


def _thought(block: Block, where: str) -> Iterator[Item]:
    if "reasoning" in block:
        yield Thought(string_of(block, "reasoning", where))
    if isinstance(summaries := block.get("summary"), list):  # OpenAI's Responses
        yield from (Thought(string_of(summary, "text", where)) for summary in summaries if isinstance(summary, Mapping))


def _thinking(block: Block, where: str) -> Iterator[Item]:
    yield Thought(string_of(block, "thinking", where))


def _redacted(_block: Block, _where: str) -> Iterator[Item]:
    return iter(())  # encrypted: there is nothing that anybody but Anthropic could read


def _call(block: Block, where: str) -> Iterator[Item]:
    yield read_call(block.get("name"), block.get("args"), block.get("id"), where)


def _hosted_call(block: Block, where: str) -> Iterator[Item]:
    yield read_call(block.get("name"), block.get("args"), block.get("id"), where, hosted=True)


def _tool_use(block: Block, where: str) -> Iterator[Item]:
    yield read_call(block.get("name"), block.get("input") or block.get("partial_json"), block.get("id"), where)


def _tool_result(block: Block, where: str) -> Iterator[Item]:
    content = block.get("content") or ""
    if not isinstance(content, str | list):
        raise refused(block, where, "needs a string or a list of blocks as its 'content'")
    status = "error" if block.get("is_error") else "success"
    yield Result(read_result(content, where), _id(block.get("tool_use_id")), status=status)


def _hosted_result(block: Block, where: str) -> Iterator[Item]:
    output = block.get("output")
    text = output if isinstance(output, str) else read_call("", output, None, where).written
    status = "error" if block.get("status") == "error" else "success"
    yield Result([text_part(text)], _id(block.get("tool_call_id")), status=status)


def _id(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _non_standard(block: Block, where: str) -> Iterable[Item]:
    return _read(block.get("value"), f"{where}, in a block of type 'non_standard'")


READERS: Mapping[str, Callable[[Block, str], Iterable[Item]]] = {
    **PART_READERS,
    "invalid_tool_call": _call,
    "non_standard": _non_standard,
    "reasoning": _thought,
    "redacted_thinking": _redacted,
    "server_tool_call": _hosted_call,
    "server_tool_call_chunk": _hosted_call,
    "server_tool_result": _hosted_result,
    "thinking": _thinking,
    "tool_call": _call,
    "tool_call_chunk": _call,
    "tool_result": _tool_result,
    "tool_use": _tool_use,
}
