"""What the tests of the chat model ask with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks
from pydantic import BaseModel

from server_stub import ScriptedServer

__all__ = ["City", "add", "added", "answering", "body"]


def body(server: ScriptedServer, position: int = -1) -> dict[str, Any]:
    found = server.requests[position].body
    assert found is not None
    return found


def added(chunks: Iterable[Any]) -> AIMessageChunk:
    first, *others = chunks
    return add_ai_message_chunks(first, *others)


def answering(text: str, **options: Any) -> Iterator[ScriptedServer]:
    with ScriptedServer(answer=lambda request: text, **options) as server:
        yield server


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class City(BaseModel):
    """Where one lives."""

    name: str
