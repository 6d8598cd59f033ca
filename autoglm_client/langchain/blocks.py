"""The standard content blocks of ChatAutoGLM's messages, which LangChain asks for by the provider's name."""

from __future__ import annotations

from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.block_translators import register_translator
from langchain_core.messages.content import ContentBlock

from .metadata import PROVIDER

__all__ = ["register_blocks"]


def register_blocks() -> None:
    """Tell LangChain, in this process, how to read these messages; elsewhere its own best effort gives the same."""
    register_translator(PROVIDER, _blocks, _chunk_blocks)


def _blocks(message: AIMessage) -> list[ContentBlock]:
    blocks = _words(message)
    blocks += [
        {"type": "tool_call", "name": it["name"], "args": it["args"], "id": it["id"]} for it in message.tool_calls
    ]
    blocks += [{**it, "type": "invalid_tool_call"} for it in message.invalid_tool_calls]
    return cast("list[ContentBlock]", blocks)


def _chunk_blocks(message: AIMessageChunk) -> list[ContentBlock]:
    if message.chunk_position == "last":  # all of a stream, added up
        return _blocks(message)
    blocks = _words(message)
    blocks += [{**it, "type": "tool_call_chunk"} for it in message.tool_call_chunks]
    return cast("list[ContentBlock]", blocks)


def _words(message: AIMessage) -> list[dict[str, Any]]:
    if not isinstance(message.content, str):
        raise NotImplementedError  # LangChain's signal for "read it yourself"
    reasoning = message.additional_kwargs.get("reasoning_content")
    blocks: list[dict[str, Any]] = [{"type": "reasoning", "reasoning": reasoning}] if reasoning else []
    return [*blocks, {"type": "text", "text": message.content}] if message.content else blocks
