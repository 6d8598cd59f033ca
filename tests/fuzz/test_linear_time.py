"""Time grows with the size and not with its square, on input that is built to make it.

Measured: eight times the input, at a size that takes long enough to be measured. A square takes 64 times as long.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Callable
from itertools import product
from time import process_time
from typing import Any

import pytest

from autoglm_client import AutoGLMError
from autoglm_client._assembler import Assembler
from autoglm_client._sse import SSEDecoder
from autoglm_client.actions import ActionScanner, parse_action
from autoglm_client.media.header import read_header
from autoglm_client.reasoning import ReasoningSplitter

from .effort import SECONDS

MOST_BYTES = 1 << 27
GROWTH = 8
ALLOWED = 20
LONG_ENOUGH = 0.02 if SECONDS else 0.004

Work = Callable[[], object]


def seconds(prepare: Callable[[int], Work], size: int) -> float:
    work = prepare(size)  # making the input is not measured
    gc.disable()  # it walks through all that the other tests left, at moments of its own
    began = process_time()
    with contextlib.suppress(AutoGLMError):
        work()
    taken = process_time() - began
    gc.enable()
    return taken


def assert_linear(prepare: Callable[[int], Work]) -> None:
    size = 256
    while seconds(prepare, size) < LONG_ENOUGH and size < 1 << 19:
        size *= 2
    for _ in range(3):  # a busy machine may disturb one measurement, a square disturbs all
        if seconds(prepare, size * GROWTH) < ALLOWED * seconds(prepare, size):
            return
    pytest.fail("more than linear")


def event(chunk: Any) -> bytes:
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def delta(**given: Any) -> Any:
    return {"choices": [{"index": 0, "delta": given}]}


# Events

LINES = [
    b"data: x\n",
    b"data\n",
    b":\n",
    b"id: 1\r\n",
    b"\n",
    b"\r",
    b"\r\n",
    b"x",
    b"data: {}\n\n",
    b"\xef\xbb\xbf\n",
    b"\0",
]


@pytest.mark.parametrize("piece", [1, 1024, None], ids=["bytes", "pieces", "whole"])
@pytest.mark.parametrize("unit", LINES, ids=repr)
def test_lines(unit: bytes, piece: int | None) -> None:
    def prepare(size: int) -> Work:
        stream = b"data: {" + unit * (size // len(unit)) + b"\n\n"
        pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)] if piece else [stream]
        decoder = SSEDecoder(MOST_BYTES)
        return lambda: [text for data in pieces for text in decoder.feed(data)]

    assert_linear(prepare)


# Answers


def many(*chunks: Any) -> Callable[[int], list[bytes]]:
    return lambda count: [event(chunk) for chunk in chunks] * (count // 8 + 1)


def one(chunk: Callable[[int], Any]) -> Callable[[int], list[bytes]]:
    return lambda count: [event(chunk(count))]


def raw(start: bytes, unit: bytes, end: bytes = b"") -> Callable[[int], list[bytes]]:
    return lambda count: [b"data: " + start + unit * count + end + b"\n\n"]


ANSWERS = {
    "tiny pieces": many(delta(content="a")),
    "pieces of a call": many(delta(content="do("), delta(content=")")),
    "blanks": many(delta(content=" ")),
    "tags": many(delta(content="<think>"), delta(content="</think>"), delta(content="<answer>")),
    "halves of tags": many(delta(content="<|us")),
    "fields in turn": many(delta(reasoning="a <"), delta(content="b <")),
    "refusals": many(delta(refusal="no")),
    "keep-alives": many({"choices": []}),
    "logprobs": many({"choices": [{"index": 0, "logprobs": {"content": [{"token": "a"}]}, "token_ids": [1]}]}),
    "fragments of a tool call": many(delta(tool_calls=[{"index": 0, "function": {"arguments": '{"'}}])),
    "fragments in one chunk": one(
        lambda count: delta(tool_calls=[{"index": 1, "function": {"arguments": "x"}}] * count)
    ),
    "many tool calls": one(lambda count: delta(tool_calls=[{"id": "x"}] * count)),
    "many answers": one(
        lambda count: {"choices": [{"index": index, "finish_reason": "stop"} for index in range(count)]}
    ),
    "many wrong answers": one(lambda count: {"choices": [{"index": "x"}] * count}),
    "a loop": one(lambda count: delta(content="round and round " * count)),
    "deep": raw(b'{"error":', b"["),
    "deep and closed": raw(b'{"error":' + b"[" * 150, b"[],", b"1" + b"]" * 150 + b"}"),
    "digits": raw(b'{"created":', b"9", b"}"),
    "a code of digits": raw(b'{"error":{"code":"', b"4", b'"}}'),
    "backslashes": raw(b'{"id":"', b"\\\\", b'"}'),
    "half characters": raw(b'{"choices":[{"delta":{"content":"', b"\\ud83d", b'"}}]}'),
    "quotes": raw(b"{", b'"":"",', b'"":1}'),
    "words of an ingress": one(
        lambda count: {"error": {"message": "Message: " + "x (Request ID: 1), Internal exception: " * (count // 8)}}
    ),
    "words of half an ingress": one(lambda count: {"error": {"message": "Message: " + "x (Request ID: 1" * count}}),
}


@pytest.mark.parametrize("pieces", ANSWERS.values(), ids=ANSWERS)
def test_answers(pieces: Callable[[int], list[bytes]]) -> None:
    def prepare(size: int) -> Work:
        fed = [*pieces(size), event({"choices": [{"index": 0, "finish_reason": "stop"}]})]
        assembler = Assembler(max_event_bytes=MOST_BYTES)

        def work() -> None:
            for data in fed:
                assembler.feed(data)
                assembler.events.clear()
            assembler.reply()

        return work

    assert_linear(prepare)


# Text: the families of tests/test_actions.py and tests/test_reasoning.py, and those that are worst in one piece

TEXTS = [
    *(
        "<",
        "<think>",
        "</think>a",
        "<|user|>",
        " <answer>",
        "\n",
        "\u3000",
        "`",
        "``` ",
        "finish\n",
        "\nfinish ",
        "{",
        "[(",
    ),
    *(
        "do(",
        "finish(",
        'do(action="',
        'do(action="Type", text="',
        '{"action": "',
        "foo(action=",
        "do(action=1 ",
        "(1,1)",
    ),
    *(
        '"',
        "“",
        "”",
        "\\",
        '\\"',
        '")\n',
        '", ',
        "'",
        '"" ',
        "a\u2028",
        'text="a "b" c", ',
        "9",
        "9 ",
        "-",
        ".1",
        "\\u",
        "\\ud83d",
    ),
    'do(action="Type", text="a "b" c")\n',
    'foo(action="Type", text="a (b" c")\n',
    'do(action="Wait", duration=["',
    'do(action="Tap", element=["1 ',
]


def parse(text: str) -> object:
    return parse_action(text)


def scan(text: str) -> object:
    scanner = ActionScanner()
    for at in range(0, len(text), 4):
        scanner.feed(text[at : at + 4])
    return scanner.close()


def split(text: str) -> object:
    splitter = ReasoningSplitter(json=True)
    for letter in text:
        splitter.feed(letter)
    return splitter.close()


@pytest.mark.parametrize("read", [parse, scan, split])
@pytest.mark.parametrize(
    ("before", "unit"), [*product(["", 'do(action="Type", text="'], TEXTS), ("<", "a"), ("<think> <answer", " ")]
)
def test_texts(unit: str, before: str, read: Callable[[str], object]) -> None:
    def prepare(size: int) -> Work:
        text = before + unit * (size // len(unit) + 1)
        return lambda: read(text)

    assert_linear(prepare)


# Pictures

PICTURES = {
    "markers": (b"\xff\xd8", b"\xff\xfe\0\2"),
    "markers without a length": (b"\xff\xd8", b"\xff\xfe\0\0"),
    "half markers": (b"\xff\xd8", b"\xff"),
    "restarts": (b"\xff\xd8", b"\xff\xd0"),
    "chunks": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\7\0\0\0\5\x08\2\0\0\0abcd", b"\0\0\0\0abcdefgh"),
    "blanks": (b"", b" "),
    "tags": (b"", b"<"),
}


@pytest.mark.parametrize(("start", "unit"), PICTURES.values(), ids=PICTURES)
def test_pictures(start: bytes, unit: bytes) -> None:
    def prepare(size: int) -> Work:
        data = start + unit * size
        return lambda: read_header(data, "x")

    assert_linear(prepare)
