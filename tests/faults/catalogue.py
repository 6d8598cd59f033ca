"""Faults on the wire, as data: what a server does, how it is asked, and what a client should make of it.

Every client is judged by the same `Ideal`. The promises that are no faults of the wire have their probes in `probes`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from typing import Any, Literal

from autoglm_client import Timeouts

from ..raw_server import DONE, HEAD, Step, delta, event, finish, kept, next_request, plain, reset
from ..wire_samples import RAY_SAMPLES, SAMPLES, body_of

PROMISES = {
    1: "An incomplete answer is never returned as a complete one",
    2: "A complete answer is not spoiled by what follows it",
    3: "What had arrived stays available: it is in the error's `partial`",
    4: "Every failure is an error of the library's own, never a raw one of what it is built on",
    5: "One deadline holds for the whole call: connecting, uploading, every attempt and pause, the whole answer",
    6: "The first token and the time between tokens have limits of their own, which pings do not feed",
    7: "What fails before the first event is tried again, three times at most; after it never: no text is repeated",
    8: "`Retry-After` is obeyed, nonsense in it ignored, and a wait that is too long fails at once",
    9: "An outage is not multiplied by retries",
    10: "Cancelling is immediate and hangs up, so that the generation ends on the server",
    11: "The pool survives cancellation",
    12: "A client is safe after a fork",
    13: "An async client works in every event loop, also in the next `asyncio.run`",
    14: "Failing calls leak no descriptor",
    15: "A connection that was kept too long never surfaces",
    16: "Events are read as the WHATWG text says, cut anywhere",
    17: "Odd shapes are tolerated",
    18: "Memory is bounded",
    19: "Each kind of refusal is an error of its own class, with the server's words",
    20: "The key is never shown: not by `repr`, errors, logs or pickles, not where the server echoes it",
    21: "Nothing is sent to another origin, and a POST never becomes a GET",
    22: "A server of this machine is never asked through the environment's proxy",
    23: "Pictures are read and checked here; nobody is made to fetch a URL",
    24: "The action parser never evaluates, and takes whole actions alone",
    25: "The launcher is closed by default: this machine alone, key by environment, no local or remote media, no video",
}
"""One line for each; the numbers are stable."""

LATE = 4.0
"""Seconds within which a failure must be told, where no longer limit is the point; the stalled scripts take 20."""
WALL = 8.0
"""Seconds after which a client that is still waiting is said to hang."""

USUAL = Timeouts(connect=3, send=3, first_token=10, between_tokens=10, total=20)
Kind = Literal[
    "bad_request", "context", "key", "not_found", "rate_limit", "server", "died", "redirect", "timeout", "other"
]


@dataclass(kw_only=True)
class Outcome:
    """What a client made of a fault."""

    text: str = ""
    reasoning: str = ""
    finish: str | None = None
    error: str = ""
    """The class of the error that came out, "" when an answer did."""
    typed: bool = False
    """Whether that class is the library's own."""
    kind: Kind = "other"
    words: str = ""
    partial: str | None = None
    """Text and reasoning that the error holds."""
    hung: bool = False
    seconds: float = 0.0
    asked: int = 0
    """How many times the server was asked for an answer, on fresh connections."""
    elsewhere: int = 0
    """How many requests came to a second server."""
    hung_up: bool = False
    """Whether the client hung up before the server had said everything."""


@dataclass(frozen=True, kw_only=True)
class Ideal:
    """What a client should make of it: an answer when ``text`` is given, or else an error."""

    text: str | None = None
    reasoning: str | None = None
    finish: str = "stop"
    typed: bool = True
    """An error must be of the library's own classes."""
    kind: Kind | None = None
    words: str = ""
    partial: str | None = None
    most: int = 3
    """Requests at most."""
    least_seconds: float = 0.0
    late: float = LATE
    elsewhere: int = 0
    hung_up: bool = False

    def complaints(self, outcome: Outcome, patience: float = 0.0) -> list[str]:
        """Why the outcome is not ideal, nothing when it is; on a busy machine, be patient for some more seconds."""
        found = ["hung"] if outcome.hung else []
        found += [f"asked {outcome.asked} times"] * (outcome.asked > self.most)
        found += [f"{outcome.elsewhere} requests went elsewhere"] * (outcome.elsewhere != self.elsewhere)
        found += [f"took {outcome.seconds:.1f} s"] * (not self.least_seconds <= outcome.seconds <= self.late + patience)
        found += ["the server could say everything"] * (self.hung_up and not outcome.hung_up)
        return found + list(self._of_error(outcome) if self.text is None else self._of_answer(outcome))

    def _of_answer(self, outcome: Outcome) -> Iterator[str]:
        if outcome.error:
            yield f"{outcome.error}: {outcome.words[:150]}"
        elif (outcome.text, outcome.finish) != (self.text, self.finish):
            yield f"text {outcome.text[:80]!r}, finish {outcome.finish!r}"
        elif self.reasoning is not None and outcome.reasoning.strip() != self.reasoning:
            yield f"reasoning {outcome.reasoning[:80]!r}"

    def _of_error(self, outcome: Outcome) -> Iterator[str]:
        if not outcome.error and not outcome.hung:
            yield f"no error, but text {outcome.text[:80]!r}, finish {outcome.finish!r}"
        if outcome.error and self.typed and not outcome.typed:
            yield f"a raw {outcome.error}: {outcome.words[:150]}"
        if self.kind is not None and outcome.kind != self.kind:
            yield f"{outcome.error} says {outcome.kind!r}, not {self.kind!r}"
        if self.words not in outcome.words:
            yield f"the server's words are missing: {outcome.words[:150]}"
        if self.partial is not None and outcome.partial != self.partial:
            yield f"partial {outcome.partial!r}"


Way = Literal["stream", "plain"]
Server = Literal["raw", "refuses", "never accepts", "never reads", "sips"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong."""

    promise: int
    name: str
    ideal: Ideal
    scripts: tuple[Sequence[Step], ...] = ()
    way: Way = "stream"
    timeouts: Timeouts = USUAL
    calls: int = 1
    """How often the same client asks; the last outcome counts, and every request."""
    pause: float = 0.0
    """Seconds between the calls."""
    server: Server = "raw"
    question: str = "x"
    wall: float = WALL
    elsewhere: tuple[Sequence[Step], ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        return f"P{self.promise}-{self.name.replace(' ', '-')}-{self.way}"


FAILS = Ideal()
CUT = Ideal(typed=False)  # P1 asks for any error; whose it is belongs to P4
CHUNKED = HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked")
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
LAST = b"0\r\n\r\n"
STALL = 20.0
ERROR = event('{"error":{"message":"no GPU left","type":"InternalServerError","param":null,"code":500}}')
DEAD = (
    '{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.",'
    '"type":"InternalServerError","param":null,"code":500}}'
)
DEAD_500 = plain(DEAD.encode(), "500 Internal Server Error")
BUSY = plain(b"", "503 Service Unavailable")


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def completion(content: object = "ab", reason: object = "stop", **message: object) -> dict[str, Any]:
    """An answer in one piece, with all that OpenAI's has."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1795224172,
        "model": "autoglm-phone-9b",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": reason,
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
    }


def whole(body: object, *headers: str) -> bytes:
    """The same, on the wire."""
    return plain(json.dumps(body).encode(), "200 OK", *headers)


def piece(reason: str | None = None, **delta: object) -> bytes:
    """A chunk of a stream."""
    return event(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}))


def stream_of(*events: bytes) -> list[Step]:
    """A stream from its events to its clean end."""
    return [HEAD, *events]


def dripping(data: bytes, seconds: float = 0.1, times: int = 150) -> list[Step]:
    """The same bytes again and again."""
    return [data, seconds] * times


def refused(status: str, body: bytes | str = b"", *headers: str) -> list[Step]:
    """An answer that says no."""
    return [plain(body.encode() if isinstance(body, str) else body, status, *headers)]


def vllm_error(message: str, kind: str, code: int) -> str:
    """As vLLM writes it."""
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


AB = Ideal(text="ab")
ANSWER = whole(completion())
KEPT = kept(ANSWER)
STREAM = HEAD + delta("a") + delta("b") + finish() + DONE


def faults() -> list[Fault]:
    """All of them; a list that is made anew, since some hold the time of day."""
    found = [
        *_p1(),
        *_p2(),
        *_p3(),
        *_p4(),
        *_p5(),
        *_p6(),
        *_p7(),
        *_p8(),
        *_p9(),
        *_p15(),
        *_p16(),
        *_p17(),
        *_p18(),
        *_p19(),
        *_p21(),
    ]
    names = [str(fault) for fault in found]
    assert len(set(names)) == len(names), "two faults have one name"
    return found


def nothing_wrong() -> list[Fault]:
    """A server that does all as it should: whoever is judged here must be found right."""
    return [
        Fault(promise=0, name="nothing", ideal=AB, scripts=([STREAM],), wall=60),
        Fault(promise=0, name="nothing", ideal=AB, scripts=([ANSWER],), wall=60, way="plain"),
    ]


def _of(promise: int, ideal: Ideal, scripts: dict[str, Any], **details: Any) -> Iterator[Fault]:
    """Faults that differ in their script alone: one for every connection, or a tuple of scripts, one for each."""
    for name, script in scripts.items():
        several = script if isinstance(script, tuple) else (script,)
        yield Fault(promise=promise, name=name, ideal=ideal, scripts=several, **details)


def _p1() -> Iterator[Fault]:
    ab = [delta("a"), delta("b")]
    yield from _of(
        1,
        CUT,
        {
            "closed": [HEAD, *ab],
            "chunked, with its terminator": [CHUNKED, *[chunk(data) for data in ab], LAST],
            "chunked, without it": [CHUNKED, *[chunk(data) for data in ab]],
            "done but no finish": [HEAD, *ab, DONE],
            "done but no finish, then open": [HEAD, *ab, DONE, STALL],
            "usage but no finish": [HEAD, *ab, event('{"choices":[],"usage":{"completion_tokens":2}}'), DONE],
            "reset": [HEAD, *ab, 0.2, reset],
            "reset inside an event": [HEAD, *ab, b'data: {"choices":[{"ind', 0.2, reset],
            "finish without its blank line": [HEAD, *ab, finish()[:-1]],
            "finish cut": [HEAD, *ab, finish()[:-12]],
            "an error, then done": [HEAD, *ab, ERROR, DONE],
            "a dead engine, then done": [HEAD, *ab, event(DEAD), DONE],
            "an end that is an abortion": [HEAD, *ab, finish("abort"), DONE],
            "a recorded stream cut": [HEAD, body_of("parser.tap_image.stream")[:2500]],
            "a killed replica": [HEAD, body_of("killed.stream", RAY_SAMPLES)],
            "nothing at all": [HEAD],
            "done alone": [HEAD, DONE],
        },
    )
    body = json.dumps(completion()).encode()
    yield from _of(
        1,
        CUT,
        {
            "half a body": [JSON_HEAD, body[:40]],
            "less than its length": [plain(body)[:-9]],
            "no finish reason": [whole(completion(reason=None))],
            "broken off by the server": [whole(completion(reason="network_error"))],
        },
        way="plain",
    )


def _p2() -> Iterator[Fault]:
    end = [HEAD, delta("a"), delta("b"), finish()]
    chunks = [CHUNKED, *[chunk(data) for data in end[1:]]]
    yield from _of(
        2,
        AB,
        {
            "then closed": end,
            "then reset": [*end, 0.2, reset],
            "then open": [*end, STALL],
            "then pings": [*end, *dripping(b": ping\n\n")],
            "done, then open": [*end, DONE, STALL],
            "done, then reset": [*end, DONE, 0.2, reset],
            "no terminator": chunks,
            "no terminator, then open": [*chunks, chunk(DONE), STALL],
            "then an error": [*end, ERROR, DONE],
            "then garbage": [*end, b"data: {oops\n\n"],
            "then no UTF-8": [*end, b"data: \xff\xfe\n\n"],
            "then a broken chunk": [*chunks, b"zz\r\n"],
            "its last piece again": [*end, delta("b"), finish(), DONE],
        },
    )
    yield from _of(2, AB, {"after its length": [ANSWER, b"more", 0.1, reset]}, way="plain")


def _p3() -> Iterator[Fault]:
    short = replace(USUAL, between_tokens=0.4)
    a: list[Step] = [HEAD, piece(reasoning="t"), delta("a"), 0.05]
    ideal = Ideal(partial="ta", most=1)
    yield from _of(
        3,
        ideal,
        {
            "closed": a,
            "reset": [*a, 0.2, reset],
            "an error": [*a, ERROR, DONE],
            "a dead engine": [*a, event(DEAD), DONE],
            "garbage": [*a, event("{oops")],
            "no UTF-8": [*a, b"data: \xff\xfe\n\n"],
            "a wrong type": [*a, event('{"choices": 7}')],
            "a broken chunk": [CHUNKED, *[chunk(data) for data in (piece(reasoning="t"), delta("a"))], b"zz\r\n"],
            "in one write": [HEAD + piece(reasoning="t") + delta("a") + event("{oops")],
        },
    )
    yield from _of(3, ideal, {"a stall": [*a, STALL]}, timeouts=short)
    yield from _of(3, ideal, {"the deadline": [*a, *dripping(b": ping\n\n")]}, timeouts=replace(USUAL, total=1))


def _p4() -> Iterator[Fault]:
    ascii_art = "<html><body>502</body></html>"
    in_stream = {
        "json that is none": event("{oops"),
        "no UTF-8": b"data: \xff\xfe\n\n",
        "half a code point": b'data: {"choices":[{"delta":{"content":"\xe4\xbd"}}]}\n\n',
        "choices is a number": event('{"choices": 7}'),
        "choices holds strings": event('{"choices": ["a"]}'),
        "a delta is a list": event('{"choices":[{"delta":[]}]}'),
        "content is a number": event('{"choices":[{"delta":{"content":7}}]}'),
        "an event is a list": event("[]"),
        "an event is null": event("null"),
        "an event is a string": event('"hello"'),
        "deep nesting": event("[" * 100_000),
        "a number of many digits": event('{"created": ' + "9" * 5000 + "}"),
    }
    yield from _of(4, FAILS, {name: stream_of(data, DONE) for name, data in in_stream.items()})
    yield from _of(
        4,
        FAILS,
        {
            "no HTTP": [b"SSH-2.0-OpenSSH_9.6\r\n"],
            "nonsense after HTTP": [b"HTTP/9.9 what\r\n\r\n"],
            "closed at once": [b""],
            "reset at once": [reset],
            "half a head": [b"HTTP/1.1 200 OK\r\nContent-"],
            "a chunk of no size": [CHUNKED, b"zz\r\nab\r\n"],
            "a page of HTML": [b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n", b"<html>"],
            "gzip that is none": [HEAD.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection"), b"oops", DONE],
            "a head that never ends": [b"HTTP/1.1 200 OK\r\n", *[b"X-" + b"a" * 60_000 + b": b\r\n"] * 4],
        },
    )
    bodies = {
        "a page of HTML": plain(ascii_art.encode()).replace(b"application/json", b"text/html"),
        "HTML called JSON": plain(ascii_art.encode()),
        "nothing": plain(b""),
        "half the JSON": plain(b'{"choices":[{"index":0,"mess'),
        "null": plain(b"null"),
        "a list": plain(b"[]"),
        "a string": plain(b'"hello"'),
        "no choices": plain(b"{}"),
        "choices is null": plain(b'{"choices":null}'),
        "choices is empty": plain(b'{"choices":[]}'),
        "choices is a number": plain(b'{"choices":7}'),
        "no UTF-8": plain(b'{"choices":[{"message":{"content":"\xff\xfe"},"finish_reason":"stop"}]}'),
        "content is a list": whole(completion(content=[1])),
        "deep nesting": plain(b"[" * 100_000),
        "an error in a 200": plain(vllm_error("no GPU left", "InternalServerError", 500).encode()),
        "a wrong length": plain(b"{}").replace(b"Content-Length: 2", b"Content-Length: -2"),
        "two lengths": plain(b"{}", "200 OK", "Content-Length: 7"),
    }
    yield from _of(4, FAILS, {name: [data] for name, data in bodies.items()}, way="plain")
    yield Fault(promise=4, name="nobody listens", ideal=FAILS, server="refuses")
    yield Fault(promise=4, name="502 with HTML", ideal=FAILS, scripts=(refused("502 Bad Gateway", ascii_art),))


def _p5() -> Iterator[Fault]:
    second = replace(USUAL, total=1)
    in_time = Ideal(late=3)
    yield from _of(
        5,
        in_time,
        {
            "silent": [STALL],
            "a head that drips": [b"HTTP/1.1 200 OK\r\n", *dripping(b"X-Ping: 1\r\n")],
            "pings": [HEAD, *dripping(b": ping\n\n")],
            "tokens that drip": [HEAD, *dripping(delta("a"))],
            "an event that drips": [HEAD, b"data: ", *dripping(b" ")],
            "a flood of pings": [HEAD, *dripping(b": ping\n\n" * 500, 0.001, 15_000)],
            "a slow refusal": [b"HTTP/1.1 500 Oops\r\nContent-Length: 9999\r\n\r\n", *dripping(b"x")],
            "busy for long": refused("503 Busy", b"", "Retry-After: 3"),
            "slow each time": [0.7, BUSY],
        },
        timeouts=second,
    )
    body = json.dumps(completion()).encode()
    drip = [JSON_HEAD, body[:9], *dripping(b" ")]
    yield from _of(5, in_time, {"a body that drips": drip, "silent": [STALL]}, timeouts=second, way="plain")
    yield Fault(promise=5, name="never accepts", ideal=in_time, server="never accepts", timeouts=second)
    upload = "x" * 28_000_000
    readers: tuple[Server, ...] = ("never reads", "sips")
    for server in readers:
        yield Fault(promise=5, name=server, ideal=in_time, server=server, timeouts=second, question=upload, way="plain")


def _p6() -> Iterator[Fault]:
    told = Ideal(late=5.5)  # a peer that asks three times may take as long
    half = replace(USUAL, first_token=0.5, between_tokens=0.5, total=30)
    a: list[Step] = [HEAD, delta("a")]
    yield from _of(
        6,
        told,
        {
            "no head": [STALL],
            "no first token": [HEAD, STALL],
            "pings before the first": [HEAD, *dripping(b": ping\n\n")],
            "the role and no more": [HEAD, piece(role="assistant", content=""), *dripping(b": ping\n\n")],
            "a stall": [*a, STALL],
            "pings between tokens": [*a, *dripping(b": ping\n\n")],
            "empty lines between tokens": [*a, *dripping(b"\n\n")],
            "an event that drips": [*a, b"data: ", *dripping(b" ")],
        },
        timeouts=half,
    )
    own = replace(USUAL, first_token=6, between_tokens=0.5, total=30)
    slow: list[Step] = [HEAD, 1.2, delta("a")]
    yield from _of(6, told, {"a stall after a slow first token": [*slow, STALL]}, timeouts=own)
    yield from _of(6, AB, {"a slow first token": [*slow, delta("b"), finish(), DONE]}, timeouts=own)


def _p7() -> Iterator[Fault]:
    again: list[Step] = [HEAD, delta("ab"), finish(), DONE]
    yield from _of(
        7,
        FAILS,
        {
            "always busy": [BUSY],
            "always reset": [reset],
            "always an error first": [HEAD, ERROR, DONE],
            "always ended before the first event": [HEAD],
        },
    )
    yield from _of(
        7,
        AB,
        {
            "busy, then well": ([BUSY], again),
            "reset, then well": ([reset], again),
            "twice 500, then well": (refused("500 Oops"), refused("500 Oops"), again),
            "an error first, then well": ([HEAD, ERROR, DONE], again),
            "a head and no more, then well": ([HEAD], again),
        },
    )
    once = Ideal(typed=False, most=1)
    yield from _of(
        7,
        once,
        {
            "reset after the first event": ([HEAD, delta("a"), 0.2, reset], again),
            "closed after the first event": ([HEAD, delta("a")], again),
            "an error after the first event": ([HEAD, delta("a"), ERROR, DONE], again),
            **{f"{status} is not tried again": (refused(status), again) for status in ("400 Bad", "404 No", "422 Bad")},
        },
    )


def _p8() -> Iterator[Fault]:
    def busy(value: str, status: str = "429 Too Many") -> tuple[list[Step], list[Step]]:
        return refused(status, b"", f"Retry-After: {value}"), [ANSWER]

    later = format_datetime(datetime.now(UTC) + timedelta(minutes=30), usegmt=True)
    waits = replace(AB, least_seconds=0.9)
    yield from _of(8, waits, {"a second": busy("1"), "of a 503": busy("1", "503 Busy")}, way="plain")
    yield from _of(8, replace(FAILS, most=1), {"too long": busy("300"), "too late a date": busy(later)}, way="plain")
    nonsense = ("nan", "inf", "-5", "soon", "Wed, 99 Foo 2099 00:00:00 GMT", "\xb2")
    named = {f"nonsense {value[:9]!r}": busy(value) for value in nonsense}
    yield from _of(8, AB, named, way="plain")
    beyond = replace(FAILS, most=1, kind="rate_limit")
    yield from _of(8, beyond, {"beyond the deadline": busy("8")}, timeouts=replace(USUAL, total=3), way="plain")


def _p9() -> Iterator[Fault]:
    outage = Ideal(most=12)
    yield from _of(9, outage, {"an outage": [BUSY], "reset each time": [reset]}, calls=6, wall=30, way="plain")
    yield from _of(9, Ideal(most=2), {"a dead engine": [DEAD_500]}, timeouts=replace(USUAL, total=2), way="plain")
    yield from _of(
        9, Ideal(most=2), {"a dead engine": [HEAD, event(DEAD), DONE]}, timeouts=replace(USUAL, total=2), way="stream"
    )


def _p15() -> Iterator[Fault]:
    chunks = [CHUNKED, *[chunk(data) for data in (delta("ab"), finish(), DONE)], LAST]
    stream: list[Step] = [*chunks, next_request, reset]
    oops = kept(plain(b"{}", "500 Internal Server Error"))
    yield from _of(
        15,
        AB,
        {
            "reset when used again": ([KEPT, next_request, reset], [KEPT]),
            "closed when used again": ([KEPT, next_request], [KEPT]),
            "closed after a 500": ([oops, next_request, reset], [KEPT, next_request, KEPT]),
        },
        way="plain",
        calls=2,
    )
    yield from _of(15, AB, {"reset when used again": (stream, chunks), "closed": (stream[:-1], chunks)}, calls=2)
    idle = ([KEPT, 0.1], [KEPT])
    yield from _of(15, AB, {"closed while idle": idle}, way="plain", calls=2, pause=0.4)
    reset_idle = ([KEPT, 0.1, reset], [KEPT])
    yield from _of(15, AB, {"reset while idle": reset_idle}, way="plain", calls=2, pause=0.4)


def _p16() -> Iterator[Fault]:
    chinese = json.dumps({"choices": [{"index": 0, "delta": {"content": "你好🙂"}}]}, ensure_ascii=False).encode()
    lines = json.dumps({"choices": [{"index": 0, "delta": {"content": "a\u2028b\x85c\u2029"}}]}, ensure_ascii=False)
    several = json.dumps({"choices": [{"index": 0, "delta": {"content": "ab"}}]}, indent=1).splitlines()
    ab = delta("a") + delta("b") + finish() + DONE
    named = {
        "comments": b": hello\n\n" + delta("a") + b":\n\n" + delta("b") + finish(),
        "a comment in an event": b": one\n" + delta("a") + b": two\n" + delta("b") + finish(),
        "retry alone": b"retry: 3000\n\n" + ab,
        "id alone": b"id: 7\n\n" + ab,
        "an event without data": b"event: ping\n\n" + ab,
        "fields in each event": b"id: 1\nevent: message\n" + delta("a") + b"retry: 5\n" + delta("b") + finish() + DONE,
        "unknown fields": b"foo: bar\nfoo\n" + delta("a") + delta("b") + finish() + DONE,
        "CRLF": ab.replace(b"\n", b"\r\n"),
        "CR": ab.replace(b"\n", b"\r"),
        "mixed line ends": (delta("a") + delta("b").replace(b"\n", b"\r") + finish().replace(b"\n", b"\r\n") + DONE),
        "a byte order mark": b"\xef\xbb\xbf" + ab,
        "no blank after the colon": ab.replace(b"data: ", b"data:"),
        "data of several lines": "".join(f"data: {line}\n" for line in several).encode() + b"\n" + finish(),
        "data without a colon": b"data\n\n" + ab,
        "empty lines": b"\n\n\n" + ab.replace(b"\n\n", b"\n\n\n\n"),
    }
    yield from _of(16, AB, {name: stream_of(data) for name, data in named.items()})
    yield from _of(16, AB, {"byte by byte": [HEAD, *[ab[i : i + 1] for i in range(len(ab))]]})
    odd = Ideal(text="你好🙂")
    cut = b"data: " + chinese + b"\n\n" + finish() + DONE
    place = cut.index("好".encode()) + 1
    yield from _of(16, odd, {"a code point cut": [HEAD, cut[:place], 0.05, cut[place:]]})
    ends = Ideal(text="a\u2028b\x85c\u2029")
    yield from _of(16, ends, {"line ends of Unicode in a string": stream_of(event(lines), finish(), DONE)})


def _p17() -> Iterator[Fault]:
    usage = event('{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}')
    ab = delta("a") + delta("b")
    named = {
        "choices is null": event('{"choices":null}') + ab + finish(),
        "no choices": event('{"id":"x","object":"chat.completion.chunk"}') + ab + finish(),
        "choices is empty": event('{"choices":[]}') + ab + finish(),
        "delta is null": event('{"choices":[{"index":0,"delta":null}]}') + ab + finish(),
        "no delta": event('{"choices":[{"index":0}]}') + ab + finish(),
        "an end without a delta": ab + event('{"choices":[{"index":0,"finish_reason":"stop"}]}'),
        "content is null": piece(content=None, role="assistant") + ab + finish(),
        "content is absent": piece(role="assistant") + ab + finish(),
        "usage at the end": ab + finish() + usage + DONE,
        "usage is null": ab + event('{"choices":[],"usage":null}') + finish(),
        "usage holds nulls": ab + finish() + event('{"choices":[],"usage":{"prompt_tokens":null}}'),
        "the end with the last text": delta("a") + piece("stop", content="b"),
        "no index": ab.replace(b'"index": 0, ', b"") + finish().replace(b'"index": 0, ', b""),
        "fields nobody knows": ab + event('{"choices":[{"index":0,"delta":{"x":{}},"y":[1]}],"z":null}') + finish(),
        "an empty id and model": event('{"id":"","model":null,"choices":[]}') + ab + finish(),
        "details of other types": event('{"id":7,"model":7,"created":1.5,"choices":[],"usage":[]}') + ab + finish(),
        "usage in words at the end": ab + event('{"choices":[{"finish_reason":"stop"}],"usage":"none"}'),
        "half a token": ab + event('{"choices":[{"finish_reason":"stop"}],"usage":{"total_tokens":1.5}}'),
        "tool calls is null": piece(content="a", tool_calls=None) + delta("b") + finish(),
        "logprobs is null": event('{"choices":[{"index":0,"delta":{"content":"ab"},"logprobs":null}]}') + finish(),
    }
    yield from _of(17, AB, {name: stream_of(data) for name, data in named.items()})
    thought = Ideal(text="ab", reasoning="why")
    for name in ("reasoning", "reasoning_content"):
        yield from _of(17, thought, {name: stream_of(piece(**{name: "why"}), ab, finish(), DONE)})
        yield from _of(17, thought, {name: [whole(completion(**{name: "why"}))]}, way="plain")
    recorded = _said("parser.tap_image")
    yield from _of(17, recorded, {"vLLM's own": [HEAD, _untagged("parser.tap_image.stream")]})
    yield from _of(17, recorded, {"vLLM's own": [plain(_untagged("parser.tap_image"))]}, way="plain")
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    yield from _of(17, AB, {"a 1xx before the answer": [early + early + ANSWER]}, way="plain")
    yield from _of(17, AB, {"a 1xx before the answer": [early + STREAM]})
    body = json.dumps(completion()).encode()
    head = HEAD.replace(b"Connection", b"Content-Encoding: gzip\r\nConnection")
    yield from _of(17, AB, {"compressed unasked": [head + _squeezed(ab, finish(), DONE)]})
    packed = plain(gzip.compress(body), "200 OK", "Content-Encoding: gzip")
    yield from _of(17, AB, {"compressed unasked": [packed]}, way="plain")
    no_type = STREAM.replace(b"text/event-stream", b"text/event-stream; charset=utf-8")
    yield from _of(17, AB, {"a charset": [no_type]})


def _untagged(sample: str) -> bytes:
    """A recorded answer without the tags, which this client alone knows."""
    return body_of(sample).replace(b"<answer>", b"").replace(b"</answer>", b"")


def _said(sample: str) -> Ideal:
    message = json.loads(_untagged(sample))["choices"][0]["message"]
    return Ideal(text=message["content"], reasoning=message["reasoning"].strip())


def _squeezed(*parts: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return b"".join(packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in parts) + packer.flush()


def _p18() -> Iterator[Fault]:
    mega = b"x" * 1_000_000
    stops = Ideal(hung_up=True)
    text = b'{"choices":[{"index":0,"finish_reason":"stop","message":{"content":"'
    too_big: list[Step] = [JSON_HEAD, text, *[mega] * 48, b'"}}]}']
    yield from _of(
        18,
        stops,
        {
            "an event without end": [HEAD, b'data: {"choices":[{"index":0,"delta":{"content":"', *[mega] * 48],
            "lines without end": [HEAD, *[b"data: " + mega + b"\n"] * 48],
            "a stream of 48 MB": [HEAD, *[delta("x" * 1_000_000)] * 48, finish()],
            "a refusal of 48 MB": [b"HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n", *[mega] * 48],
        },
    )
    yield from _of(18, stops, {"a body of 48 MB": too_big}, way="plain")
    yield from _of(18, FAILS, {"a bomb": [plain(_bomb(), "200 OK", "Content-Encoding: gzip")]}, way="plain")


@cache
def _bomb() -> bytes:
    """Packed: 100 kB; whole: 100 MB."""
    return gzip.compress(json.dumps(completion("x" * 100_000_000)).encode(), compresslevel=6)


def _p19() -> Iterator[Fault]:
    recorded = {
        "the context is full": ("e_context", "context", "maximum context length"),
        "no such model": ("e_model", "not_found", "does not exist"),
        "a bad request": ("e_temperature", "bad_request", "non-negative"),
    }
    for name, (sample, kind, words) in recorded.items():
        status = f"{SAMPLES[f'plain.{sample}']['status']} No"
        script = refused(status, body_of(f"plain.{sample}"))
        yield from _of(19, Ideal(kind=kind, words=words, most=1), {name: script})  # type: ignore[arg-type]
    own: dict[str, tuple[str, Kind, int]] = {
        "401 Unauthorized": ("Unauthorized", "key", 1),
        "403 Forbidden": ("not for you", "key", 1),
        "413 Too Large": ("too large", "bad_request", 1),
        "422 Unprocessable": ("wrong field", "bad_request", 1),
        "429 Too Many": ("slow down", "rate_limit", 3),
        "500 Oops": ("no GPU left", "server", 3),
        "503 Busy": ("The server is overloaded", "server", 3),
    }
    for status, (words, kind, most) in own.items():
        script = refused(status, vllm_error(words, "Error", int(status[:3])))
        yield from _of(19, Ideal(kind=kind, words=words, most=most), {status: script})
    died = Ideal(kind="died", words="EngineCore")
    quick = replace(USUAL, total=2)
    yield from _of(19, died, {"a dead engine": [DEAD_500]}, timeouts=quick, way="plain")
    yield from _of(19, died, {"a dead engine": [HEAD, delta("a"), event(DEAD), DONE]})
    ray = Ideal(kind="context", words="maximum context length", most=1)
    yield from _of(19, ray, {"the context is full, by Ray": refused("400 No", body_of("too long", RAY_SAMPLES))})


def _p21() -> Iterator[Fault]:
    def to(place: str, status: int) -> list[Step]:
        return refused(f"{status} Moved", b"", f"Location: {place}")

    stays = replace(FAILS, most=1)
    for status in (301, 302, 303, 307, 308):
        yield from _of(
            21, stays, {f"{status} to another": to("{elsewhere}/chat", status)}, elsewhere=([ANSWER],), way="plain"
        )
    for status in (301, 302, 303):
        yield from _of(21, stays, {f"{status} on the same server": (to("/v2/chat", status), [ANSWER])}, way="plain")
    for status in (307, 308):
        yield from _of(21, AB, {f"{status} on the same server": (to("/v2/chat", status), [ANSWER])}, way="plain")
    yield from _of(21, replace(FAILS, most=4), {"a loop": to("{here}/chat/completions", 307)}, way="plain")
    yield from _of(21, FAILS, {"to nowhere": to("http://[", 307), "to a file": to("file:///etc/passwd", 307)})
