"""An answer as LangChain's messages: whole, or in chunks that add up to the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import BaseModel

from .. import Choice, ReasoningDelta, Reply, TextDelta, ToolCall
from .answers import AnswerReader, Growth, readable, whole_answer
from .metadata import PROVIDER, additional_kwargs, response_metadata, usage_metadata

__all__ = ["ChunkMaker", "chat_result"]

Content = str | list[str | dict[str, Any]]
Model = TypeVar("Model", bound=BaseModel)


def chat_result(reply: Reply, new_reader: Callable[[], AnswerReader]) -> ChatResult:
    """A generation for each answer of a reply; the usage, which is that of all of them, is on the first."""
    generations: list[ChatGeneration] = []
    for choice in reply.choices:
        message = _message(choice, whole_answer(choice, new_reader()))
        message.response_metadata = response_metadata(reply, choice)
        message.usage_metadata = None if generations else usage_metadata(reply.usage)
        generations.append(ChatGeneration(message=message))
    return ChatResult(generations=generations, llm_output={"model_name": reply.model})


def _message(choice: Choice, growths: Sequence[Growth]) -> AIMessage:
    calls = [growth for growth in growths if isinstance(growth, ToolCall)]
    return AIMessage(
        content="".join(growth.text for growth in growths if isinstance(growth, TextDelta)),
        additional_kwargs=additional_kwargs(choice),
        tool_calls=[tool_call(name=it.name, args=json.loads(it.arguments), id=it.id) for it in calls if readable(it)],
        invalid_tool_calls=[
            invalid_tool_call(name=it.name, args=it.arguments, id=it.id) for it in calls if not readable(it)
        ],
    )


class ChunkMaker:
    """Makes a stream's chunks; with ``v1``, of content blocks under keys of their own.

    LangChain would number v1 blocks by position, and a tool call's own index would meet that of the thinking; and kinds
    are never mixed in one chunk, or the text would fall into two blocks.
    """

    def __init__(self, *, v1: bool) -> None:
        self._v1 = v1
        self._metadata = {"model_provider": PROVIDER} | ({"output_version": "v1"} if v1 else {})
        self._calls = 0

    def chunk(self, item: Growth | Reply) -> ChatGenerationChunk:
        """The chunk by which a message grows; with the whole reply it ends."""
        if isinstance(item, TextDelta):
            text = item.text
            return self._clone([{"type": "text", "text": text, "index": "lc_txt_0"}] if self._v1 else text, text, {})
        if isinstance(item, ReasoningDelta):
            block = {"type": "reasoning", "reasoning": item.text, "index": "lc_rs_0"}
            return self._clone([block] if self._v1 else "", "", {"reasoning_content": item.text})
        return self._call(item) if isinstance(item, ToolCall) else self._last(item)

    def _last(self, reply: Reply) -> ChatGenerationChunk:
        """What must not be added up comes once, at the end."""
        metadata = self._metadata | response_metadata(reply, reply.first)
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content=[] if self._v1 else "",
                additional_kwargs={"refusal": reply.first.refusal} if reply.first.refusal else {},
                response_metadata=metadata,
                usage_metadata=usage_metadata(reply.usage),
                chunk_position="last",
            )
        )

    def _clone(self, content: Content, text: str, additional_kwargs: dict[str, Any]) -> ChatGenerationChunk:
        message = _message_with(
            {
                "content": content,
                "additional_kwargs": additional_kwargs,
                "response_metadata": self._metadata.copy(),
                "tool_calls": [],
                "invalid_tool_calls": [],
                "tool_call_chunks": [],
            }
        )
        return _generation_with({"text": text, "message": message})

    def _call(self, call: ToolCall) -> ChatGenerationChunk:
        chunk = tool_call_chunk(name=call.name, args=call.arguments, id=call.id, index=self._calls)
        kind = "tool_call_chunk" if readable(call) else "invalid_tool_call"
        block = {
            "type": kind,
            "id": call.id,
            "name": call.name,
            "args": call.arguments,
            "index": f"lc_tc_{self._calls}",
        }
        self._calls += 1
        message = AIMessageChunk(
            content=[block] if self._v1 else "", tool_call_chunks=[chunk], response_metadata=self._metadata.copy()
        )
        return ChatGenerationChunk(message=message)


_MESSAGE = AIMessageChunk(content="", additional_kwargs={}, response_metadata={})
_GENERATION = ChatGenerationChunk(message=_MESSAGE)


def _copier(pattern: Model) -> Callable[[dict[str, Any]], Model]:
    """Make copies of a validated object with other fields, without validating them again.

    That is a fifth of the time, and a stream would pay the rest for every token.
    """
    kind, fields, given = type(pattern), pattern.__dict__, pattern.__pydantic_fields_set__
    extra = pattern.__pydantic_extra__
    new, set_slot = object.__new__, object.__setattr__

    def copy(changes: dict[str, Any]) -> Model:
        made = new(kind)
        set_slot(made, "__dict__", fields | changes)
        set_slot(made, "__pydantic_fields_set__", given.copy())
        set_slot(made, "__pydantic_extra__", None if extra is None else {})
        set_slot(made, "__pydantic_private__", None)
        return made

    return copy


_message_with = _copier(_MESSAGE)
_generation_with = _copier(_GENERATION)
