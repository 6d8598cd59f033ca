"""Events of the client as LangChain's messages, chunks and protocol events."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from autoglm_client import (
    ActionReady,
    Back,
    Choice,
    Event,
    Finish,
    Finished,
    ReasoningDelta,
    Reply,
    TextDelta,
    TextWasReasoning,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from autoglm_client.langchain.answers import AnswerReader, Growth, whole_answer
from autoglm_client.langchain.messages import ChunkMaker, chat_result
from autoglm_client.langchain.metadata import usage_metadata

STOP = Finished("stop")
TAP = 'do(action="Back")'
ADD = '<tool_call>{"name": "add", "arguments": {}}</tool_call>'


def read(events: list[Event], **options: bool) -> list[Growth]:
    reader = AnswerReader(**options)
    return [growth for event in events for growth in reader.feed(event)]


def without_id(growth: Growth) -> Growth:
    return ToolCall("", growth.name, growth.arguments) if isinstance(growth, ToolCall) else growth


READINGS: dict[str, tuple[list[Event], dict[str, bool], list[Growth]]] = {
    "text": ([TextDelta("a"), TextDelta("b"), STOP], {}, [TextDelta("a"), TextDelta("b")]),
    "another answer": ([TextDelta("a", 1), Finished("stop", 1)], {}, []),
    "held to the end": ([TextDelta("a"), TextDelta("b"), STOP], {"hold_text": True}, [TextDelta("ab")]),
    "held until thinking": (
        [TextDelta("a"), ReasoningDelta("r"), TextDelta("b"), STOP],
        {"hold_text": True},
        [TextDelta("a"), ReasoningDelta("r"), TextDelta("b")],
    ),
    "it was thinking": (
        [TextDelta("a"), TextWasReasoning("a"), TextDelta("b"), STOP],
        {"hold_text": True},
        [ReasoningDelta("a"), TextDelta("b")],
    ),
    "it was thinking, told too late": (
        [TextDelta("a"), TextWasReasoning("a"), TextDelta("b"), STOP],
        {},
        [TextDelta("a"), ReasoningDelta("a"), TextDelta("b")],
    ),
    "calls in the text": (
        [TextDelta('so <tool_call>{"name": "add", "argu'), TextDelta('ments": {"a": 1}}</tool_call>'), STOP],
        {"text_calls": True},
        [TextDelta("so "), ToolCall("", "add", '{"a": 1}')],
    ),
    "an unfinished call": (
        [TextDelta('<tool_call>{"name": "add'), Finished("length")],
        {"text_calls": True},
        [ToolCall("", "", '(not valid JSON) {"name": "add')],
    ),
    "an object instead of a call": (
        [TextDelta(" "), TextDelta('{"a": "<tool_call>"}'), STOP],
        {"text_calls": True, "an_object": True},
        [TextDelta('{"a": "<tool_call>"}')],
    ),
    "calls of the server": (
        [
            ToolCallDelta(0, "1", "add", ""),
            ToolCallDelta(1, "2", "sub", "{"),
            ToolCallDelta(0, None, None, '{"a": 1}'),
            ToolCallDelta(1, None, None, "}"),
            Finished("tool_calls"),
        ],
        {},
        [ToolCall("", "add", '{"a": 1}'), ToolCall("", "sub", "{}")],
    ),
    "a phone action": (
        [TextDelta(TAP), ActionReady(Back()), STOP],
        {"phone": True},
        [TextDelta(TAP), ToolCall("", "back", "{}")],
    ),
    "a phone action before a call in the text": (
        [TextDelta(f"{TAP}\n"), ActionReady(Back()), TextDelta(ADD), STOP],
        {"phone": True, "text_calls": True},
        [TextDelta(f"{TAP}\n"), ToolCall("", "add", "{}"), ToolCall("", "back", "{}")],
    ),
    "a phone action after a call in the text": (
        [TextDelta(ADD), TextDelta(TAP), ActionReady(Back()), STOP],
        {"phone": True, "text_calls": True},
        [ToolCall("", "add", "{}"), TextDelta(TAP), ToolCall("", "back", "{}")],
    ),
    "the end of a task": (
        [TextDelta("finish()"), ActionReady(Finish()), STOP],
        {"phone": True},
        [TextDelta("finish()")],
    ),
    "an action quoted in an object": (
        [TextDelta('{"said": "do(action=\\"Back\\")"}'), ActionReady(Back()), STOP],
        {"phone": True, "an_object": True},
        [TextDelta('{"said": "do(action=\\"Back\\")"}')],
    ),
}


@pytest.mark.parametrize("text", [f"{TAP}\n{ADD}", f"{ADD}{TAP}", f"{TAP}\n<tool_cal", f"{TAP}\n"])
def test_an_action_beside_a_call_reads_alike_whole_and_in_pieces(text: str) -> None:
    options = {"phone": True, "text_calls": True}
    choice = Choice(text=text, finish_reason="stop")
    assert choice.action == Back()
    whole = [*map(without_id, whole_answer(choice, AnswerReader(**options)))]
    for at in range(len(text)):
        pieces: list[Event] = [TextDelta(text[:at]), ActionReady(Back()), TextDelta(text[at:]), STOP]
        answer = [*map(without_id, read(pieces, **options))]
        assert [it for it in answer if isinstance(it, ToolCall)] == [it for it in whole if isinstance(it, ToolCall)]


UNSENDABLE = ['{"a": NaN}', '{"a": [-Infinity]}', '{"a": "\\ud83d"}', '{"\\ude00": 1}']


@pytest.mark.parametrize("arguments", UNSENDABLE)
def test_arguments_that_could_not_be_sent_back_are_marked(arguments: str) -> None:
    marked = ToolCall("", "add", f"(not valid JSON) {arguments}")
    assert [*map(without_id, read([ToolCallDelta(0, "1", "add", arguments), STOP]))] == [marked]
    reply = Reply(choices=(Choice(tool_calls=(ToolCall("1", "add", arguments),), finish_reason="tool_calls"),))
    message: Any = chat_result(reply, AnswerReader).generations[0].message
    assert (message.tool_calls, message.invalid_tool_calls[0]["args"]) == ([], marked.arguments)


def test_half_a_character_in_a_call_in_the_text_is_marked() -> None:
    text = '<tool_call>{"name": "add", "arguments": {"a": "\\ud83d", "b": "é"}}</tool_call>'
    (call,) = read([TextDelta(text), STOP], text_calls=True)
    assert without_id(call) == ToolCall("", "add", '(not valid JSON) {"a": "\\ud83d", "b": "é"}')


@pytest.mark.parametrize(("events", "options", "expected"), READINGS.values(), ids=READINGS)
def test_readings(events: list[Event], options: dict[str, bool], expected: list[Growth]) -> None:
    assert [without_id(growth) for growth in read(events, **options)] == expected


def test_calls_have_ids_of_their_own() -> None:
    events: list[Event] = [ToolCallDelta(0, None, "add", ""), ToolCallDelta(1, "", "add", ""), STOP]
    first, second = read(events)
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert first.id.startswith("call_")
    assert first.id != second.id


def test_a_whole_answer_reads_as_its_stream() -> None:
    choice = Choice(
        reasoning="why",
        text=TAP,
        tool_calls=(ToolCall("1", "add", "{}"),),
        finish_reason="stop",
    )
    assert whole_answer(choice, AnswerReader()) == [
        ReasoningDelta("why"),
        TextDelta(TAP),
        ToolCall("1", "add", "{}"),
    ]


@pytest.mark.parametrize("growth", [TextDelta("a"), ReasoningDelta("a")])
@pytest.mark.parametrize("v1", [True, False])
def test_chunks_are_as_good_as_validated(growth: Growth, v1: bool) -> None:
    """They are made without validation, for speed: nothing may tell them from validated ones."""
    make = ChunkMaker(v1=v1)
    chunk = make.chunk(growth)
    message = chunk.message
    fields = {name: getattr(message, name) for name in ("content", "additional_kwargs", "response_metadata")}
    validated = ChatGenerationChunk(message=AIMessageChunk(**fields))
    for made, good in ((chunk, validated), (message, validated.message)):
        assert made == good
        assert made.__dict__.keys() == good.__dict__.keys()
        assert made.model_fields_set == good.model_fields_set
        assert made.__pydantic_extra__ == good.__pydantic_extra__
        assert made.__pydantic_private__ == good.__pydantic_private__
        assert made.model_dump() == good.model_dump()
    assert not shared_containers(chunk, make.chunk(growth))


def shared_containers(one: Any, other: Any) -> list[str]:
    pairs = zip(vars(one.message).items(), vars(other.message).values(), strict=True)
    return [name for (name, mine), its in pairs if mine is its and isinstance(mine, (list, dict, set))]


def test_a_refusal() -> None:
    reply = Reply(choices=(Choice(finish_reason="stop", refusal="no"),), usage=Usage(total_tokens=1))
    message = chat_result(reply, AnswerReader).generations[0].message
    assert message.additional_kwargs == {"refusal": "no"}
    assert ChunkMaker(v1=False).chunk(reply).message.additional_kwargs == {"refusal": "no"}


def test_blocks_of_a_message() -> None:
    calls = (ToolCall("1", "add", '{"a": 1}'), ToolCall("2", "add", "[1]"))
    reply = Reply(choices=(Choice(finish_reason="stop", text="so", tool_calls=calls),))
    blocks: list[Any] = chat_result(reply, AnswerReader).generations[0].message.content_blocks
    assert blocks == [
        {"type": "text", "text": "so"},
        {"type": "tool_call", "name": "add", "args": {"a": 1}, "id": "1"},
        {"type": "invalid_tool_call", "name": "add", "args": "[1]", "id": "2", "error": None},
    ]
    make = ChunkMaker(v1=False)
    chunk = make.chunk(calls[0]).message
    assert [block["type"] for block in chunk.content_blocks] == ["tool_call_chunk"]
    whole = chunk + make.chunk(reply).message
    assert [block["type"] for block in whole.content_blocks] == ["tool_call"]
    listed = AIMessageChunk(content=[{"type": "text", "text": "a"}], response_metadata={"model_provider": "autoglm"})
    assert listed.content_blocks == [{"type": "text", "text": "a"}]


def test_details_of_the_usage() -> None:
    usage = Usage(prompt_tokens=9, completion_tokens=2, total_tokens=11, cached_tokens=8, reasoning_tokens=1)
    assert usage_metadata(usage) == {
        "input_tokens": 9,
        "output_tokens": 2,
        "total_tokens": 11,
        "input_token_details": {"cache_read": 8},
        "output_token_details": {"reasoning": 1},
    }
