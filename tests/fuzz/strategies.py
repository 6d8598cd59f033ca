"""What to try: real bytes and real answers, broken in the places where real ones break."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from ..wire_samples import DATA, STREAMS, body_of
from .promises import CONTROL, TAGS

__all__ = [
    "ANSWERS",
    "CODE",
    "CUTS",
    "FINISH",
    "PICTURES",
    "SIZES",
    "STREAMS_OF_CHUNKS",
    "STREAMS_OF_EVENTS",
    "TEXTS",
    "UNBROKEN",
]

FINISH = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "other"])
SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=4)
"""Of pieces, taken in turn."""

# Text: tags and halves of tags, calls and halves of calls, quotes, blanks, and anything

OUTPUTS = [json.loads(line)["raw"] for line in (DATA / "autoglm_outputs.jsonl").read_text("utf-8").splitlines()]
CALLS = [
    *(
        'do(action="Type", text="smile :") is nice")',
        f'do(action="Tap", element={"[" * 3000}',
        f"finish(message={'([' * 2000}",
    ),
    *('do(action="Tap", element=[500, 300])', 'do(action="Type", text="a "b" c")', 'finish(message="ok")', "finish()"),
    *(
        'do(action="Swipe", start=[1,2], end=[3,4])',
        "do(action='Wait', duration=2.5)",
        '{"action": "Back"}',
        "foo(action=1)",
    ),
    *(
        'do(action="Wait", duration=1e999)',
        'do(action="Wait", duration=[-1e400])',
        f'do(action="Wait", duration={"9" * 350})',
    ),
    *(
        'do(action="Swipe", direction="up", dist="long")',
        "do（action=“Launch”，app=“微信”）",
        '```\ndo(action="Home")\n```',
    ),
    *('do(action="Tap", element=["1", 2])', 'do(action="Tap", element=[[0,0],[999,999]])', 'do(action="Back",)'),
]
CODE = [
    '__import__("os").system("x")',
    "eval('1')",
    "(lambda: 1)()",
    "[x for x in (1,)]",
    "1+1",
    "f'{1}'",
    "open('x')",
    "10**9",
]
SHARDS = [
    *TAGS,
    *CONTROL,
    *(tag[: len(tag) // 2] for tag in TAGS + CONTROL),
    *(tag[len(tag) // 2 :] for tag in TAGS + CONTROL),
    *"\"'“”‘’＂()（）[]{}<>=:,，\\`#-.0\n\r\t \u3000\u2028\x85\x00a好😀",
    *(
        '")',
        '",',
        "='",
        'text="',
        "element=",
        "message=",
        "<tool_call>",
        "```",
        "True",
        "None",
        "1e999",
        "-0.0",
        "999",
        "1000",
    ),
    *("do(", 'do(action="', "finish(", "\\u", "\\x4", "\\ud83d", "\\777", "\\U0010ffff", "\\N{DASH}", "\n\n"),
    *CALLS,
    *CODE,
]


@st.composite
def broken(draw: st.DrawFn, whole: st.SearchStrategy[str], shards: st.SearchStrategy[str]) -> str:
    """A whole with a few spans lost, doubled or replaced."""
    text = draw(whole)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + draw(shards | st.just(text[start:end] * 2) | st.just("")) + text[end:]
    return text


PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SHARD = st.sampled_from(SHARDS)
TEXTS = st.lists(SHARD | PLAIN, max_size=14).map("".join) | broken(st.sampled_from(OUTPUTS + CALLS), SHARD)
ANSWERS = TEXTS | st.text(max_size=60)
"""With lone surrogates, too."""
CUTS = st.lists(st.tuples(st.booleans() | st.just(value=False), TEXTS), max_size=6) | st.lists(
    st.tuples(st.just(value=False), SHARD), max_size=20
)

# Events: fields, line ends, bytes that are no text

LINE_ENDS = [b"\n", b"\r", b"\r\n"]
FIELDS = [
    b"data: {}",
    b"data:",
    b"data",
    b"data:  x",
    b"data: [DONE]",
    b"event: x",
    b"id: 1",
    b"retry: 5",
    b": ping",
    b":",
]
FIELDS += [
    b"",
    b"",
    b"",
    b" data: x",
    b"DATA: x",
    b"data : x",
    "data: \u2028\x85好😀".encode(),
    b"data: a:b",
    b"\xef\xbb\xbf",
]
FIELDS += [
    b"unknown",
    b"data: \xff",
    b": \xe5\xa5",
    b"\xef\xbb\xbfdata: x",
    b"data: \0",
    b"\xef\xbb",
    b"\x0bdata: x",
    b"\x1c",
]
LINES = st.sampled_from(FIELDS) | st.binary(max_size=12) | PLAIN.map(lambda text: b"data: " + text.encode())
STREAMS_OF_EVENTS = st.lists(st.tuples(LINES, st.sampled_from(LINE_ENDS)), max_size=24).map(
    lambda lines: b"".join(line + end for line, end in lines)
)
STREAMS_OF_EVENTS |= STREAMS_OF_EVENTS.map(lambda stream: b"\xef\xbb\xbf" + stream) | st.binary(max_size=80)

# Chunks: real ones, and what JSON can do to them

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 10**30, 10**4000, 0.5, 1e308, float("nan"), float("inf"), "", "stop", "1"),
    *(
        "\ud83d",
        "a\ude00b",
        [],
        {},
        [[]],
        [None],
        {"a": None},
        ["x"],
        {"index": 0},
        "000400" + 5000 * "0",
        "４０４",
        "[DONE]",
    ),
    *(
        {"code": "000400" + 5000 * "0"},
        {"code": 404},
        {"message": ["x"]},
        {"content": "x"},
        {"tool_calls": [{}]},
        [{"index": 2}],
    ),
]
DEEP: list[Any] = []
for _ in range(300):
    DEEP = [DEEP]
ODD.append(DEEP)
KEYS = [
    "choices",
    "delta",
    "message",
    "content",
    "reasoning",
    "reasoning_content",
    "tool_calls",
    "finish_reason",
    "index",
]
KEYS += [
    "usage",
    "error",
    "object",
    "id",
    "model",
    "function",
    "arguments",
    "name",
    "logprobs",
    "token_ids",
    "refusal",
    "code",
]
REAL = {name: [text[6:] for text in body_of(name).decode().split("\n\n") if text[6:7] == "{"] for name in STREAMS}
JSON = st.sampled_from(ODD).map(json.dumps).map(json.loads) | st.recursive(  # a fresh one each time: it gets changed
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)


ERRORS = st.fixed_dictionaries({"error": JSON | st.fixed_dictionaries({}, optional={"code": JSON, "message": JSON})})


@st.composite
def chunks(draw: st.DrawFn) -> list[Any]:
    """The chunks of an answer: a real one's, or made for a text; some of them changed."""
    if draw(st.booleans()):
        real = [json.loads(text) for text in REAL[draw(st.sampled_from(STREAMS))]]
        start = draw(st.integers(0, len(real)))
        made = real[start : start + draw(st.integers(0, 12))] + real[-2:] * draw(st.integers(0, 1))
    else:
        made = [{"choices": [draw(choice())]} for _ in range(draw(st.integers(0, 8)))]
        made += draw(st.lists(ERRORS, max_size=1))
    for _ in range(draw(st.integers(0, 3)) if made else 0):
        change(draw, made)
    return made


@st.composite
def choice(draw: st.DrawFn) -> Any:
    """What one chunk brings to one answer."""
    texts = st.sampled_from([None, "", *CALLS]) | TEXTS | SHARD
    calls = st.fixed_dictionaries(
        {},
        optional={
            "index": st.none() | st.integers(0, 2),
            "id": st.none() | st.just("a"),
            "function": st.fixed_dictionaries({}, optional={"name": texts, "arguments": texts}),
        },
    )
    words = dict.fromkeys(["content", "content", "reasoning", "reasoning_content", "refusal"], texts)
    delta = st.fixed_dictionaries({}, optional={**words, "tool_calls": st.none() | st.lists(calls, max_size=3)})
    given = {
        "index": st.sampled_from([0, 0, 0, 1, None]),
        draw(st.sampled_from(["delta", "delta", "message"])): delta,
        "finish_reason": st.sampled_from([None, None, None, "stop", "length", "content_filter", ""]),
    }
    return draw(st.fixed_dictionaries(given))


def change(draw: st.DrawFn, value: Any) -> None:
    """Walk some way into a value, and replace, add or drop something there."""
    places = list(value) if isinstance(value, dict) else list(range(len(value)))
    place = draw(st.sampled_from(places)) if places else None
    inside = value[place] if place is not None else None
    if isinstance(inside, (dict, list)) and inside and draw(st.integers(0, 3)):
        change(draw, inside)
        return
    if isinstance(value, dict):
        key = draw(st.sampled_from([*places, *KEYS]))
        if draw(st.integers(0, 3)):
            value[key] = draw(JSON)
        else:
            value.pop(key, None)
    elif place is not None:
        value[place] = draw(JSON)
    else:
        value.append(draw(JSON))


def written(value: Any, *, ascii_only: bool) -> bytes:
    """As a server may write it: with or without escapes, with NaN."""
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


@st.composite
def streams_of_chunks(draw: st.DrawFn) -> bytes:
    """The bytes of an answer, in events of any dress, sometimes with bytes lost or strange ones between them."""
    end = draw(st.sampled_from(LINE_ENDS))
    ascii_only = draw(st.booleans())
    between = st.just(b"") | st.just(b"") | LINES.map(lambda line: line + end) | st.just(end)
    stream = b"".join(
        draw(between) + b"data: " + written(chunk, ascii_only=ascii_only) + end + end for chunk in draw(chunks())
    ) + draw(st.sampled_from([b"", b"data: [DONE]", b"data: [DONE]" + end + end]))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(stream)))
        stream = stream[:at] + draw(st.binary(max_size=4)) + stream[at + draw(st.integers(0, 4)) :]
    return stream


STREAMS_OF_CHUNKS = streams_of_chunks()
UNBROKEN = st.lists(choice(), max_size=5).map(
    lambda made: b"".join(b"data: " + written({"choices": [each]}, ascii_only=False) + b"\n\n" for each in made)
)
"""Chunks as a server may send them, with nothing lost or changed."""

# Pictures

PICTURE_PARTS = [
    *(
        b"\x89PNG\r\n\x1a\n",
        b"\0\0\0\rIHDR\0\0\0\7\0\0\0\5\x08\2\0\0\0abcd",
        b"\0\0\0\0IEND\xae\x42\x60\x82",
        b"\0\0\0\0",
    ),
    *(
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xc0\0\x11\x08\0\5\0\7\3",
        b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0",
        b"\xff\xda\0\2",
        b"\xff",
    ),
    *(
        b"RIFF\x24\0\0\0WEBP",
        b"VP8 \x18\0\0\0\x30\1\0\x9d\1\x2a\7\0\5\0",
        b"VP8L\x10\0\0\0\x2f\6\0\1\0",
        b"VP8X\x0a\0\0\0\0\0\0\0",
    ),
    *(
        b"\xff\xd0",
        b"\xff\x01",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"%PDF",
        b"<html",
        b"\0\0\0\x20ftypavif",
        b"\xff\xff\xff\xff",
    ),
]
PARTS = st.lists(st.sampled_from(PICTURE_PARTS) | st.binary(max_size=6), max_size=12).map(b"".join)
PICTURES = PARTS | PARTS.map(lambda parts: b"\xff\xd8" + parts + b"\xff\xd9")
