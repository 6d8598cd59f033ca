"""What the core promises for any input, as functions: hypothesis and atheris both call them with what they think up.

Each raises ``AssertionError`` where a promise is broken, and lets an error pass that is none of ours.
"""

from __future__ import annotations

import builtins
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, NamedTuple
from unittest import mock

from autoglm_client import (
    ActionError,
    ActionReady,
    AutoGLMError,
    Choice,
    EventTooLarge,
    Finished,
    InvalidReply,
    MediaError,
    ReasoningDelta,
    RepetitionDetected,
    Reply,
    StreamInterrupted,
    TextDelta,
    TextWasReasoning,
    ToolCallDelta,
)
from autoglm_client._assembler import Assembler
from autoglm_client._sse import SSEDecoder
from autoglm_client.actions import Action, ActionScanner, Point, Swipe, Wait, parse_action, read_action
from autoglm_client.events import Event
from autoglm_client.media.header import read_header
from autoglm_client.reasoning import Piece, ReasoningSplitter, Split, split_reasoning

MAX_BYTES = 1 << 20
TAGS = ("<think>", "</think>", "<answer>", "</answer>", "<ans>", "</ans>", "<|begin_of_box|>", "<|end_of_box|>")
CONTROL = ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|system|>")
ANY_TAG = re.compile("|".join(map(re.escape, TAGS + CONTROL)))
FILTERED = {"content_filter", "sensitive"}

Error = type[AutoGLMError] | None


def cut(data: bytes, *sizes: int) -> list[bytes]:
    """The bytes in pieces of these sizes, taken in turn as often as it needs."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        pieces.append(data[at : at + sizes[len(pieces) % len(sizes)]])
        at += len(pieces[-1])
    return pieces


def cut_text(text: str, *sizes: int) -> list[str]:
    """The same for text."""
    data = text.encode("utf-32-le", "surrogatepass")
    return [piece.decode("utf-32-le", "surrogatepass") for piece in cut(data, *(4 * size for size in sizes))]


# Server-sent events


def check_events(pieces: Sequence[bytes]) -> None:
    """Events are what the rules say, at any cut; a limit only ends them, and wherever the cuts are."""
    stream = b"".join(pieces)
    expected, broken = by_the_rules(stream)
    assert framed(pieces, MAX_BYTES) == framed([stream], MAX_BYTES) == (expected, broken)
    sizes = {len(block) for block in re.split(rb"(?>\r\n|\r|\n){2}", stream)}
    for limit in sorted({size + by for size in sizes for by in (-1, 0) if size + by >= 0})[-8:]:
        events, error = framed(pieces, limit)
        assert (events, error) == framed([stream], limit)
        assert events == expected[: len(events)]
        assert error is EventTooLarge or (events, error) == (expected, broken)
        assert error is not EventTooLarge or max(sizes) > limit


def framed(pieces: Iterable[bytes], limit: int) -> tuple[list[str], Error]:
    """The events of a decoder, and the error that ends them."""
    decoder = SSEDecoder(limit)
    events: list[str] = []
    try:
        for piece in pieces:
            events.extend(decoder.feed(piece))  # takes those before an error, too
    except AutoGLMError as error:
        return events, type(error)
    return events, None


def by_the_rules(stream: bytes) -> tuple[list[str], Error]:
    """The events of a whole stream, line by line as the WHATWG text reads them; fields that are no UTF-8 end it."""
    events: list[str] = []
    block: list[bytes] = []
    *lines, _unfinished = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    for line in lines:
        if line:
            block.append(line)
            continue
        try:
            fields = [each.decode().partition(":") for each in block if not each.startswith(b":")]
        except UnicodeDecodeError:
            return events, InvalidReply
        data = [value.removeprefix(" ") for name, _, value in fields if name == "data"]
        events += ["\n".join(data)] if data else []
        block = []
    return events, None


# A whole answer


class Outcome(NamedTuple):
    """What became of a stream."""

    events: list[Event]
    error: Error
    reply: Reply
    complete: bool


def assembled(pieces: Iterable[bytes], **options: Any) -> Outcome:
    """Read a stream to its end, or to its error."""
    assembler = Assembler(**options)
    error: Error = None
    try:
        for piece in pieces:
            assembler.feed(piece)
        assembler.close()
    except AutoGLMError as caught:
        error = type(caught)
        str(caught)
    return Outcome(list(assembler.events), error, assembler.reply(), assembler.complete)


def check_answer(pieces: Sequence[bytes], **options: Any) -> None:
    """Any bytes, in any cuts: the same events and reply as from the whole, or one of our errors."""
    outcome = assembled(pieces, **options)
    assert outcome == assembled([b"".join(pieces)], **options)
    assert outcome.complete <= outcome.reply.complete
    assert outcome.error is not StreamInterrupted or not outcome.complete
    assert outcome.error is not None or outcome.complete
    assert {event.choice for event in outcome.events} <= {choice.index for choice in outcome.reply.choices}
    for choice in outcome.reply.choices:
        check_choice(choice, [event for event in outcome.events if event.choice == choice.index])


def check_choice(choice: Choice, events: list[Event]) -> None:
    """The events of one answer add up to it; its action is told once, and never from a part."""
    assert added_up(events) == (choice.reasoning, choice.text)
    calls = {event.index: "" for event in events if isinstance(event, ToolCallDelta)}
    for event in events:
        if isinstance(event, ToolCallDelta):
            calls[event.index] += event.arguments
    assert [arguments for _, arguments in sorted(calls.items())] == [call.arguments for call in choice.tool_calls]
    ends = [event.reason for event in events if isinstance(event, Finished)]
    assert ends == ([] if choice.finish_reason is None else [choice.finish_reason])
    assert not ends or isinstance(events[-1], Finished)
    assert sum(isinstance(event, RepetitionDetected) for event in events) <= 1
    told = [event.action for event in events if isinstance(event, ActionReady)]
    if not choice.complete:
        assert choice.action is None
        assert len(told) <= 1
    elif choice.finish_reason in FILTERED:
        assert choice.action is None
    else:
        assert told == ([] if choice.action is None else [choice.action])


def added_up(events: list[Event]) -> tuple[str, str]:
    """What a user has who adds up the events of one answer."""
    reasoning = text = ""
    for event in events:
        match event:
            case TextDelta(new):
                text += new
            case ReasoningDelta(new):
                reasoning += new
            case TextWasReasoning(new):
                reasoning, text = reasoning + new, ""
            case _:
                pass
    return reasoning, text


def check_the_end(pieces: Sequence[bytes], behind: Sequence[bytes], **options: Any) -> None:
    """Once an answer is complete, nothing that follows changes it or makes it an error."""
    assembler = Assembler(**options)
    try:
        for piece in pieces:
            assembler.feed(piece)
    except AutoGLMError:
        pass
    if not assembler.complete:
        return
    choices = assembler.reply().choices
    try:
        for piece in behind:
            assembler.feed(piece)
    except AutoGLMError:
        pass
    assembler.close()
    assert assembler.complete
    assert assembler.reply().choices == choices


Cuts = Sequence[tuple[bool, str]]
"""Pieces of an answer, and whether they came in the server's field for reasoning."""


def check_cuts_of_the_server(cuts: Cuts, finish: str | None) -> None:
    """However a server cuts an answer into chunks, and if it does not, it is the same answer."""
    in_chunks = reply_in_chunks(cuts, finish)
    assert in_chunks == reply_in_chunks(together(cuts), finish)
    assert in_chunks.raw == "".join(text for reasoning, text in cuts if not reasoning)
    fields = [reasoning for reasoning, _ in together(cuts)]
    if finish is not None and fields in ([], [True], [False], [True, False]):
        message = {("reasoning" if reasoning else "content"): text for reasoning, text in together(cuts)}
        plain = Assembler()
        plain.feed_whole(json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode())
        assert plain.reply() == in_chunks


def reply_in_chunks(cuts: Cuts, finish: str | None) -> Reply:
    """The reply of a stream with one chunk for each cut."""
    deltas = [{"reasoning" if reasoning else "content": text} for reasoning, text in cuts]
    chunks: list[Any] = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks += [{"choices": [{"delta": {}, "finish_reason": finish}]}]
    return assembled([f"data: {json.dumps(chunk)}\n\n".encode() for chunk in chunks]).reply


def together(cuts: Cuts) -> Cuts:
    """The same with neighbours of one kind in one piece, and without empty ones."""
    given = [each for each in cuts if each[1]]
    return [(kind, "".join(text for _, text in group)) for kind, group in groupby(given, key=lambda each: each[0])]


# Thinking and answer


def check_split(cuts: Cuts, *, json: bool = False) -> None:
    """Any cuts give the same; the pieces add up to it; every letter that is no tag is in one of the two, in order."""
    found, pieces = split_up(cuts, json=json)
    assert found == split_up(together(cuts), json=json)[0]
    assert summed(pieces) == (found.reasoning, found.text)
    sent = [text for _, text in together(cuts)]
    letters = "".join(without_blanks(ANY_TAG.sub("", text)) for text in sent)
    kept = Counter(without_blanks(found.reasoning + found.text))
    if json:
        assert Counter(letters) <= kept <= Counter("".join(sent))
        return
    assert kept == Counter(letters)
    assert in_order(without_blanks(found.reasoning), letters)
    assert in_order(without_blanks(found.text), letters)
    if not ANY_TAG.search("".join(sent)) and not any(reasoning for reasoning, _ in cuts):
        assert found == Split("", "".join(sent), open=False)


def split_up(cuts: Cuts, *, json: bool) -> tuple[Split, list[Piece]]:
    splitter = ReasoningSplitter(json=json)
    pieces: list[Piece] = []
    for reasoning, text in cuts:
        pieces += splitter.feed(text, reasoning=reasoning)
    pieces += splitter.close()
    return splitter.split(), pieces


def summed(pieces: list[Piece]) -> tuple[str, str]:
    reasoning = text = ""
    for kind, new in pieces:
        if kind == "text":
            text += new
        else:
            reasoning, text = reasoning + new, "" if kind == "was_reasoning" else text
    return reasoning, text


def without_blanks(text: str) -> str:
    return re.sub(r"[ \t\r\n]", "", text)


def in_order(part: str, whole: str) -> bool:
    """Whether the letters of the part stand in the whole in this order."""
    letters = iter(whole)
    return all(letter in letters for letter in part)


# Actions


def check_action(text: str, finish_reason: str | None = None) -> None:
    """Any text is an action that can be written and read again, or an :class:`ActionError`; nothing is evaluated."""
    try:
        with nothing_evaluated():
            call = read_action(text, finish_reason=finish_reason)
    except ActionError as error:
        refused = error
        assert 0 <= refused.position <= len(refused.text)
        assert str(refused)
        return
    for action in (call.action, *call.extra_actions):
        check_one_action(action)


def check_one_action(action: Action) -> None:
    """An action is on the screen, lasts a time, and is its text."""
    str(action).encode()
    assert parse_action(str(action)) == action
    assert parse_action(f"<think>so</think><answer>{action}</answer>") == action
    for value in (getattr(action, name, None) for name in ("element", "start", "end")):
        if isinstance(value, Point):
            assert type(value.x) is type(value.y) is int
            assert 0 <= min(value.x, value.y) <= max(value.x, value.y) <= 999
            assert all(0 <= at < size for at, size in zip(value.at(1080, 2400), (1080, 2400), strict=True))
    if isinstance(action, Wait):
        assert 0 <= action.seconds < math.inf
    assert not isinstance(action, Swipe) or action.at(1, 1) == ((0, 0), (0, 0))


@contextmanager
def nothing_evaluated() -> Iterator[None]:
    """Inside, what turns text into code fails."""
    refused = AssertionError("text was evaluated")
    with (
        mock.patch.object(builtins, "eval", side_effect=refused),
        mock.patch.object(builtins, "exec", side_effect=refused),
        mock.patch.object(builtins, "compile", side_effect=refused),  # also what ast.literal_eval needs
    ):
        yield


def check_scanner(text: str, *sizes: int) -> None:
    """What is told while the text grows is what the whole text says, and the end says it at any cut."""
    text = split_reasoning(text).text
    scanner, whole = ActionScanner(), ActionScanner()
    told = [scanner.feed(piece) for piece in cut_text(text, *sizes)]
    whole.feed(text)
    final = whole.close()
    assert scanner.close() == final
    assert all(action == final for action in told if action is not None)


# Pictures


FRAME = rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]..."


def check_header(data: bytes) -> None:
    """Any bytes have a size, or a :class:`MediaError` that names the file."""
    try:
        header = read_header(data, "x.png")
    except MediaError as error:
        words = str(error)
        assert words.startswith("x.png: ")
        return
    assert 0 < min(header.size) <= max(header.size) < 2**32
    if header.format == "JPEG":
        size = header.height.to_bytes(2, "big") + header.width.to_bytes(2, "big")
        assert re.search(FRAME + re.escape(size), data, re.DOTALL)
