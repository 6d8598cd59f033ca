"""An answer as events of LangChain's v3 protocol, told directly instead of through chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from langchain_core.callbacks import BaseRunManager
from langchain_core.utils.utils import LC_ID_PREFIX
from langchain_protocol.protocol import MessagesData

from .. import ReasoningDelta, Reply, TextDelta, ToolCall
from .answers import Growth, readable
from .metadata import PROVIDER, additional_kwargs, response_metadata, usage_metadata

__all__ = ["ProtocolEvents"]

Event = MessagesData


class ProtocolEvents:
    """Tells one message: its start, its blocks as they grow, its end."""

    def __init__(self, run: BaseRunManager | None) -> None:
        self._message_id = f"{LC_ID_PREFIX}-{run.run_id}" if run else ""
        self._started = False
        self._blocks: list[dict[str, Any]] = []
        self._open: dict[str, int] = {}
        self._parts: dict[int, list[str]] = {}

    def events(self, item: Growth | Reply) -> list[Event]:
        """The events for what has come; with the whole reply the message ends."""
        if not self._started:
            self._started = True
            start = _event("message-start", role="ai", id=self._message_id, metadata={"provider": PROVIDER})
            return [start, *self.events(item)]
        if isinstance(item, TextDelta):
            return self._grow("text", item.text)
        if isinstance(item, ReasoningDelta):
            return self._grow("reasoning", item.text)
        return self._call(item) if isinstance(item, ToolCall) else list(self._end(item))

    def _grow(self, kind: str, text: str) -> list[Event]:
        begin = [] if kind in self._open else [self._begin(kind)]
        index = self._open[kind]
        self._parts[index].append(text)
        delta = {"type": f"{kind}-delta", kind: text}
        return [*begin, cast("Event", {"event": "content-block-delta", "index": index, "delta": delta})]

    def _end(self, reply: Reply) -> Iterator[Event]:
        for kind, index in self._open.items():
            self._blocks[index][kind] = "".join(self._parts[index])
        for index, block in enumerate(self._blocks):
            yield _event("content-block-finish", index=index, content=block)
        told: dict[str, Any] = {"metadata": response_metadata(reply, reply.first)}
        if usage := usage_metadata(reply.usage):
            told["usage"] = usage
        if additional := additional_kwargs(reply.first):
            told["additional_kwargs"] = additional
        yield _event("message-finish", **told)

    def _begin(self, kind: str) -> Event:
        index = self._open[kind] = len(self._blocks)
        self._parts[index] = []
        self._blocks.append({"type": kind})
        return _event("content-block-start", index=index, content={"type": kind, kind: ""})

    def _call(self, call: ToolCall) -> list[Event]:
        index = len(self._blocks)
        named = {"id": call.id, "name": call.name}
        self._blocks.append(_finished_call(call) | named)
        return [
            _event("content-block-start", index=index, content={"type": "tool_call_chunk", **named, "args": ""}),
            _event("content-block-delta", index=index, delta={"type": "tool-call-delta", "args": call.arguments}),
        ]


def _finished_call(call: ToolCall) -> dict[str, Any]:
    if readable(call):
        return {"type": "tool_call", "args": json.loads(call.arguments)}
    return {"type": "invalid_tool_call", "args": call.arguments, "error": "the arguments are no JSON object"}


def _event(name: str, **told: Any) -> Event:
    return cast("Event", {"event": name, **told})
