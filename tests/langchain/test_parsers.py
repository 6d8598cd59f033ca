"""The output parser: what it reads an action from, when it tells it, and what it says when there is none."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, Generation

from autoglm_client import Action, ActionError, Back, Finish, Point, Tap, parse_action
from autoglm_client.langchain.parsers import ActionOutputParser

PARSER = ActionOutputParser()
TAP = Tap(Point(500, 300))
CALL = 'do(action="Tap", element=[500, 300])'
TAGGED = f"<think>There it is.</think><answer>{CALL}</answer>"
THOUGHT_OF = 'do(action="Home")\nNo, back.'


def message(content: Any, reasoning: str | None = None, **metadata: object) -> AIMessage:
    extra = {"reasoning_content": reasoning} if reasoning else {}
    return AIMessage(content, additional_kwargs=extra, response_metadata=metadata)


def chunk(content: Any, **rest: Any) -> AIMessageChunk:
    return AIMessageChunk(content=content, **rest)


READABLE: dict[str, tuple[str | BaseMessage, Action]] = {
    "text": (CALL, TAP),
    "text with tags": (TAGGED, TAP),
    "text with one tag": (f"{THOUGHT_OF}</think>{CALL}", TAP),
    "message": (message(CALL, finish_reason="stop"), TAP),
    "message with tags": (message(TAGGED), TAP),
    "reasoning beside it": (message(CALL, THOUGHT_OF), TAP),
    "blocks": (message([{"type": "reasoning", "reasoning": THOUGHT_OF}, {"type": "text", "text": CALL}]), TAP),
    "blocks of v1": (
        AIMessage(content_blocks=[{"type": "reasoning", "reasoning": THOUGHT_OF}, {"type": "text", "text": CALL}]),
        TAP,
    ),
    "blocks without a word": (
        message([{"type": "reasoning"}, {"type": "text", "text": CALL}], output_version="v1"),
        TAP,
    ),
    "strings in a list": (message(["<think>", f"{THOUGHT_OF}</think>", CALL]), TAP),
    "a tool call beside it": (
        AIMessage(CALL, tool_calls=[{"name": "tap", "args": {"element": [500, 300]}, "id": "1"}]),
        TAP,
    ),
    "blocks of other kinds": (
        AIMessage(
            content_blocks=[
                {"type": "text", "text": CALL},
                {"type": "tool_call", "name": "tap", "args": {"element": [500, 300]}, "id": "1"},
            ]
        ),
        TAP,
    ),
    "finish": ('finish(message="Done.")', Finish("Done.")),
}


@pytest.mark.parametrize("case", READABLE)
async def test_it_reads_an_action(case: str) -> None:
    answer, action = READABLE[case]
    assert PARSER.invoke(answer) == action
    assert await PARSER.ainvoke(answer) == action
    assert list(PARSER.stream(answer)) == [action]
    assert [found async for found in PARSER.astream(answer)] == [action]


UNREADABLE: dict[str, tuple[str | BaseMessage, str]] = {
    "nothing": ("", "empty_response"),
    "an empty message": (message(""), "empty_response"),
    "talk": ("I would tap the button.", "no_action"),
    "another action": ('do(action="Dance")', "unknown_action"),
    "off the screen": ('do(action="Tap", element=[1, 2000])', "coordinates_out_of_range"),
    "a half call": (CALL[:-3], "truncated"),
    "cut in its thinking": (message("", "Let me see", finish_reason="length"), "truncated"),
    "cut in its text": (message('do(action="Type", text="He said "hi")', finish_reason="length"), "truncated"),
    "filtered": (message(CALL, finish_reason="content_filter"), "content_filtered"),
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_what_holds_no_action_is_an_error(case: str) -> None:
    answer, code = UNREADABLE[case]
    with pytest.raises(OutputParserException, match=f"^{code}: ") as caught:
        PARSER.invoke(answer)
    assert isinstance(caught.value.__cause__, ActionError)
    assert caught.value.__cause__.code == code
    with pytest.raises(OutputParserException, match=f"^{code}: "):
        await PARSER.ainvoke(answer)
    with pytest.raises(OutputParserException, match=f"^{code}: "):
        list(PARSER.stream(answer))
    with pytest.raises(OutputParserException, match=f"^{code}: "):
        _ = [action async for action in PARSER.astream(answer)]


def test_the_error_tells_the_model_what_to_write() -> None:
    with pytest.raises(OutputParserException) as caught:
        PARSER.invoke(message("", "Let me see"))
    assert caught.value.send_to_llm
    assert caught.value.llm_output == "Let me see"
    assert PARSER.get_format_instructions() in (caught.value.observation or "")
    with pytest.raises(OutputParserException) as caught:
        PARSER.parse("Let me see")
    assert caught.value.llm_output == "Let me see"


def test_the_instructions_show_every_action_as_it_is_read() -> None:
    calls = re.findall(r"^- (.+)$", PARSER.get_format_instructions(), re.MULTILINE)
    actions = [parse_action(re.sub(r"\b[xy]\d?\b", "5", call)) for call in calls]
    assert {type(action) for action in actions} == set(get_args(Action))


@pytest.mark.parametrize("text", [TAGGED, f"{THOUGHT_OF}</think>{CALL}", CALL, f"<think>{THOUGHT_OF}</think>\n{CALL}"])
async def test_a_stream_may_be_cut_anywhere(text: str) -> None:
    for cut in range(len(text) + 1):
        for pieces in ([text[:cut], text[cut:]], [chunk(text[:cut]), chunk(text[cut:])]):
            given: list[Any] = pieces
            assert list(PARSER.transform(iter(given))) == [TAP]
    assert list(PARSER.transform(iter(text))) == [TAP]
    assert [action async for action in PARSER.atransform(each(list(text)))] == [TAP]


@pytest.mark.parametrize("end", range(len(TAGGED)))
def test_a_stream_that_was_cut_off_is_never_half_an_action(end: int) -> None:
    pieces = [*map(chunk, TAGGED[:end]), chunk("", response_metadata={"finish_reason": "length"})]
    try:
        assert list(PARSER.transform(iter(pieces))) == [TAP]
        assert CALL in TAGGED[:end]
    except OutputParserException:
        assert CALL not in TAGGED[:end]


FIELD = [chunk("", additional_kwargs={"reasoning_content": word}) for word in ("There ", THOUGHT_OF)]
BLOCKS = [chunk([{"type": "reasoning", "reasoning": word, "index": 0}]) for word in ("There ", THOUGHT_OF)]
EARLY: dict[str, list[Any]] = {
    "tags": ["<think>There it is.</think>", "<answer>", CALL],
    "tags in messages": [chunk("<think>There it is.</think>"), chunk(CALL)],
    "reasoning": [*FIELD, chunk(CALL)],
    "blocks": [*BLOCKS, chunk([{"type": "text", "text": CALL, "index": 1}])],
    "thinking that was taken for text": [f"{THOUGHT_OF}\n", "</think>", CALL],
}


@pytest.mark.parametrize("case", EARLY)
async def test_the_action_comes_before_the_end_and_once(case: str) -> None:
    given: list[Any] = []

    def pieces() -> Iterator[Any]:
        for piece in [*EARLY[case], "</answer>", f"\n{CALL}", ""]:
            given.append(piece)
            yield chunk(piece) if isinstance(piece, str) and case != "tags" else piece

    assert [(action, len(given)) for action in PARSER.transform(pieces())] == [(TAP, len(EARLY[case]))]
    assert len(given) == len(EARLY[case]) + 3  # the model's run is read to its end
    given.clear()
    assert [(action, len(given)) async for action in PARSER.atransform(each(pieces()))] == [(TAP, len(EARLY[case]))]


def test_text_that_nothing_announced_waits_for_the_end() -> None:
    assert list(PARSER.transform(iter([CALL, "\nThat was it.</think>", 'do(action="Back")']))) == [Back()]


async def test_it_stands_behind_a_model() -> None:
    model = GenericFakeChatModel(messages=iter([TAGGED] * 4))
    chain = model | PARSER
    assert chain.invoke("Go back.") == TAP
    assert await chain.ainvoke("Go back.") == TAP
    assert list(chain.stream("Go back.")) == [TAP]
    assert [action async for action in chain.astream("Go back.")] == [TAP]


def test_a_part_is_read_only_when_it_is_certain() -> None:
    for text in (CALL, TAGGED[:-20]):
        assert PARSER.parse_result([Generation(text=text)], partial=True) is None
    assert PARSER.parse_result([ChatGeneration(message=AIMessage(TAGGED))], partial=True) == TAP


def test_it_says_what_it_is() -> None:
    assert PARSER.OutputType == Action
    assert PARSER.asdict()["_type"] == "autoglm_action"


async def each(pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        yield piece
