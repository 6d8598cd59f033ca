"""P18: memory is bounded. Whatever has no end costs less than 40 MB, and ends in one of our errors."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from autoglm_client import BadRequest, DeadlineExceeded, InvalidReply, ServerFailed, StreamInterrupted, Timeouts

from ..conftest import ClientFactory
from ..raw_server import Step, delta, event, finish, kept, next_request, plain, raw_server

MEGABYTE = 1024 * 1024
LIMIT = 40.0
"""Megabytes that any of them may cost."""
ANSWER = b'{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}'


def endless(data: bytes) -> Step:
    """The same again and again, until the client hangs up."""

    def send(connection: socket.socket) -> None:
        while True:
            connection.sendall(data * (1 + 65536 // len(data)))

    return send


def head(*more: str, status: str = "200 OK", kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *more, "", ""]
    return "\r\n".join(lines).encode()


def stream(*more: str) -> bytes:
    return head(*more, kind="text/event-stream")


def bomb(begin: bytes, again: bytes, wrapping: int = 31) -> bytes:
    """200 MB, compressed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wrapping)
    once = again * (MEGABYTE // len(again))
    return packer.compress(begin) + b"".join(packer.compress(once) for _ in range(200)) + packer.flush()


GZIP, CHUNKED = "Content-Encoding: gzip", "Transfer-Encoding: chunked"
REFUSED = "400 Bad Request"
SAID = '{"choices":[{"delta":{"content":"%s"}}]}'
TOKENS = event('{"choices":[{"token_ids":[' + "1," * 1000 + "1]}]}")
TEXT, DEEP = b'{"choices":"', b"[" * 300_000
INVALID, LARGE, REFUSAL = "invalid_reply", "event_too_large", "bad_request"


def many(begin: bytes, part: bytes, end: bytes, *, megabytes: float = 8) -> bytes:
    """JSON of very many parts."""
    return begin + b",".join([part] * int(megabytes * 1e6 / (len(part) + 1))) + end


def packed(body: bytes, status: str = "200 OK") -> Sequence[Step]:
    return [head(GZIP, status=status), gzip.compress(body, 1)]


CALLS = b'{"choices":[{"finish_reason":"stop","message":{"content":"a","tool_calls":['
MANY: dict[str, tuple[str, Sequence[Step], str]] = {
    "many choices": ("chat", packed(many(b'{"choices":[', b"{}", b"]}")), INVALID),
    "many choices that are none": ("chat", packed(many(b'{"choices":[', b"0", b"]}")), INVALID),
    "a few choices that are none": ("chat", packed(many(b'{"choices":[', b"0", b"]}", megabytes=0.06)), INVALID),
    "many choices in an event": ("stream", [stream(), b"data: ", many(b'{"choices":[', b"0", b"]}\n\n")], INVALID),
    "choices with a delta": ("chat", packed(many(b'{"choices":[', b'{"delta":{}}', b"]}", megabytes=1.2)), INVALID),
    "many calls": ("chat", packed(many(CALLS, b"{}", b"]}}]}")), INVALID),
    "many calls of one index": ("chat", packed(many(CALLS, b'{"index":0}', b"]}}]}", megabytes=1.5)), INVALID),
    "many errors": ("chat", packed(many(b'{"error":[', b"[]", b"]}")), INVALID),
    "fewer errors": ("chat", packed(many(b'{"code":400,"error":[', b"[]", b"]}", megabytes=1.1)), REFUSAL),
    "many refusals": ("chat", packed(many(b'{"error":[', b"[]", b"]}"), REFUSED), REFUSAL),
    "many parts nobody knows": ("chat", packed(many(b'{"x":[', b"[]", b"]}")), INVALID),
    "fewer parts nobody knows": ("chat", packed(many(b'{"x":[', b"[]", b"]}", megabytes=1.1)), INVALID),
    "many names nobody knows": (
        "chat",
        packed(b'{"x":{' + b",".join(b'"%d":0' % number for number in range(300_000)) + b"}}"),
        INVALID,
    ),
    "many models": ("models", packed(many(b'{"data":[', b"0", b"]}")), INVALID),
    "many models with a name": ("models", packed(many(b'{"data":[', b'{"id":""}', b"]}", megabytes=1.3)), INVALID),
    "many tokens": ("tokenize", packed(many(b'{"count":1,"tokens":[', b'"a"', b"]}")), INVALID),
    "fewer tokens": ("tokenize", packed(many(b'{"count":1,"tokens":[', b'"a"', b"]}", megabytes=1.5)), INVALID),
    "many lines of an event": ("stream", [stream(), b"data:\n" * 1_300_000 + b"\n", finish()], LARGE),
    "many lines of CRLF": ("stream", [stream(), b"data:\r\n" * 1_000_000 + b"\r\n", finish()], LARGE),
    "endless alternatives": (
        "stream",
        [stream(), endless(event('{"choices":[{"logprobs":{"content":[' + "[]," * 1000 + "[]]}}]}"))],
        INVALID,
    ),
}
CASES: dict[str, tuple[str, Sequence[Step], str]] = {
    **MANY,
    "a bomb in an event": ("stream", [stream(GZIP), bomb(b"data: ", b"a")], LARGE),
    "a bomb of events": ("stream", [stream(GZIP), bomb(b"", delta("some words "))], INVALID),
    "a bomb of blank lines": ("stream", [stream(GZIP), bomb(b"", b"\n")], INVALID),
    "a bomb as plain answer": ("chat", [head(GZIP), bomb(TEXT, b"a")], INVALID),
    "a bomb for a stream": ("stream", [head(GZIP), bomb(TEXT, b"a")], INVALID),
    "a bomb as error": ("chat", [head(GZIP, status=REFUSED), bomb(b'{"error":"', b"a")], REFUSAL),
    "a bomb as models": ("models", [head(GZIP), bomb(b'{"data":"', b"a")], INVALID),
    "a bomb as tokens": ("tokenize", [head(GZIP), bomb(b'{"tokens":"', b"a")], INVALID),
    "a bomb as health": ("health", [head(GZIP), bomb(b"", b"a")], "False"),
    "a deflated bomb": ("chat", [head("Content-Encoding: deflate"), bomb(TEXT, b"a", 15)], INVALID),
    "a bare deflated bomb": ("chat", [head("Content-Encoding: deflate"), bomb(TEXT, b"a", -15)], INVALID),
    "an endless name in gzip": ("chat", [head(GZIP), b"\x1f\x8b\x08\x08" + bytes(6), endless(b"n")], INVALID),
    "an endless line": ("stream", [stream(), b"data: ", endless(b"a")], LARGE),
    "an endless comment": ("stream", [stream(), b":", endless(b"a")], LARGE),
    "an endless event": ("stream", [stream(), endless(b"data: a\n")], LARGE),
    "endless blank lines": ("stream", [stream(), endless(b"\r\n")], INVALID),
    "endless tokens": ("stream", [stream(), endless(delta("ab "))], INVALID),
    "endless thoughts": ("chat", [stream(), endless(delta("<think>hm " * 500))], INVALID),
    "an endless plain answer": ("chat", [head(), TEXT, endless(b"a")], INVALID),
    "an endless error": ("chat", [head(status=REFUSED), endless(b"a")], REFUSAL),
    "an endless list of models": ("models", [head(), b'{"data":[]}', endless(b" ")], INVALID),
    "endless health": ("health", [head(), endless(b"a")], "False"),
    "an endless header": ("chat", [b"HTTP/1.1 200 OK\r\nX: ", endless(b"a")], INVALID),
    "endless headers": ("stream", [b"HTTP/1.1 200 OK\r\n", endless(b"a: b\r\n")], INVALID),
    "an endless status line": ("chat", [b"HTTP/1.1 200 ", endless(b"a")], INVALID),
    "endless 1xx": ("chat", [endless(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")], INVALID),
    "an endless chunk extension": ("stream", [stream(CHUNKED), b"5;", endless(b"a")], INVALID),
    "an endless trailer": ("stream", [stream(CHUNKED), b"0\r\nX: ", endless(b"a")], INVALID),
    "just below the limit": ("chat", [head(), TEXT, b"a" * 31 * MEGABYTE], INVALID),
    "an event just below": ("stream", [stream(), b"data: " + TEXT + b"a" * 15 * MEGABYTE + b"\n\n"], INVALID),
    "halves of characters": ("chat", [head(), TEXT, b"\\ud83d" * (5 * MEGABYTE)], INVALID),
    "halves in an event": ("stream", [stream(), b"data: " + TEXT + b"\\ud83d" * 2 * MEGABYTE + b"\n\n"], INVALID),
    "endless numbers of tokens": ("chat", [stream(), endless(TOKENS)], INVALID),
    "endless pages": ("chat", [stream(), endless(delta("ab c" * 10_000))], INVALID),
    "endless emoji": ("chat", [stream(), endless(event(SAID % ("\U0001f600" * 1000)))], INVALID),
    "a deep event": ("stream", [stream(), event(DEEP.decode())], INVALID),
    "a deep answer": ("chat", [head(), DEEP], INVALID),
    "a deep error": ("chat", [head(status=REFUSED), b'{"error":' + DEEP], REFUSAL),
    "a deep list of models": ("models", [head(), b'{"data":' + DEEP], INVALID),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_p18_what_has_no_end_is_bounded(kind: str) -> None:
    with ExitStack() as servers:
        asked = [
            (name, servers.enter_context(raw_server(script)).url, route) for name, (route, script, _) in CASES.items()
        ]
        done = subprocess.run(
            [sys.executable, "-m", "tests.faults.measured_client"],
            input=json.dumps({"kind": kind, "cases": asked}),
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
    outcomes = {said["name"]: said for said in map(json.loads, done.stdout.splitlines())}
    ends = {name: outcomes[name].get("category") or outcomes[name].get("returned") for name in CASES}
    assert ends == {name: end for name, (_, _, end) in CASES.items()}, outcomes
    assert {name: said for name, said in outcomes.items() if said["megabytes"] > LIMIT} == {}
    assert {name: said for name, said in outcomes.items() if said.get("retryable") or said.get("attempts", 0) > 1} == {}
    assert outcomes["an endless error"]["body"] == outcomes["a bomb as error"]["body"] == 64 * 1024


def asks(glm: Any) -> list[Callable[[], str]]:
    def streamed() -> str:
        with glm.stream("x") as stream:
            text: str = stream.finish().text
        return text

    return [lambda: str(glm.chat("x").text), streamed]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("body", [ANSWER, delta("hel") + delta("lo") + finish()], ids=["plain", "stream"])
def test_p18_a_compressed_answer_is_read(make_client: ClientFactory, encoding: str, body: bytes) -> None:
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    before = stream if b"delta" in body else head
    script: list[Step] = [before(f"Content-Encoding: {encoding}"), packed[:20], 0.02, packed[20:]]
    with raw_server(script) as server:
        assert [ask() for ask in asks(make_client(server.url))] == ["hello", "hello"]
        assert all(b"accept-encoding: identity\r\n" in request.lower() for request in server.requests)


def test_p18_compressed_events_come_as_they_are_written(make_client: ClientFactory) -> None:
    packer = zlib.compressobj(wbits=31)
    first = packer.compress(delta("a")) + packer.flush(zlib.Z_SYNC_FLUSH)
    with raw_server([stream(GZIP), first, 20.0]) as server, make_client(server.url).stream("x") as answer:
        assert next(iter(answer)).text == "a"


@pytest.mark.parametrize("route", ["models", "tokenize", "health"])
def test_p18_other_routes_are_inflated_too(make_client: ClientFactory, route: str) -> None:
    body = gzip.compress(b'{"data":[{"id":"m"}],"count":3}')
    with raw_server([plain(body, "200 OK", GZIP)]) as server:
        glm = make_client(server.url)
        given = getattr(glm, route)(*["x"] * (route == "tokenize"))
        assert {"models": lambda: given[0].id, "tokenize": lambda: given.count, "health": lambda: given}[route]() in {
            "m",
            3,
            True,
        }


def test_p18_a_compressed_error_has_its_words(make_client: ClientFactory) -> None:
    body = gzip.compress(b'{"error":{"message":"the words","code":400}}')
    with raw_server([plain(body, REFUSED, GZIP)]) as server, pytest.raises(BadRequest, match="the words"):
        make_client(server.url).chat("x")


@pytest.mark.parametrize("encoding", ["br", "zstd"])
def test_p18_an_error_nobody_can_inflate_is_still_that_error(make_client: ClientFactory, encoding: str) -> None:
    with raw_server([plain(b"\x8b\x01", "503 Service Unavailable", f"Content-Encoding: {encoding}")]) as server:
        with pytest.raises(ServerFailed) as caught:
            make_client(server.url, max_attempts=1).chat("x")
        assert (caught.value.status, caught.value.body) == (503, "")


def test_p18_a_compressed_stream_that_is_cut(make_client: ClientFactory) -> None:
    packer = zlib.compressobj(wbits=31)
    begun = packer.compress(delta("a") + delta('do(action="Ba')) + packer.flush(zlib.Z_SYNC_FLUSH)
    with raw_server([stream(GZIP), begun]) as server:
        for ask in asks(make_client(server.url)):
            with pytest.raises(StreamInterrupted) as caught:
                ask()
            partial: Any = caught.value.partial
            assert (partial.text, partial.action, caught.value.attempts) == ('ado(action="Ba', None, 1)


def test_p18_a_cut_before_the_first_event_is_tried_again(make_client: ClientFactory) -> None:
    whole = plain(ANSWER)
    for answer in (gzip.compress(ANSWER)[:-20], gzip.compress(ANSWER)[:30]):
        with raw_server([head(GZIP), answer], [whole]) as server:
            reply = make_client(server.url).chat("x")
            assert (reply.text, reply.attempts) == ("hello", 2)


def test_p18_a_complete_answer_may_be_cut_after_its_end(make_client: ClientFactory) -> None:
    packer = zlib.compressobj(wbits=31)
    begun = packer.compress(delta("hello") + finish()) + packer.flush(zlib.Z_SYNC_FLUSH)
    for end in (b"", b"\xff\xff\xff"):
        with raw_server([stream(GZIP), begun, 0.05, end]) as server:
            assert [ask() for ask in asks(make_client(server.url))] == ["hello", "hello"]


def test_p18_hints_without_end_are_refused(make_client: ClientFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """h11 limits one head, but not how many there are."""
    monkeypatch.setattr("autoglm_client.defaults.MAX_HEAD_BYTES", 10_000)
    with raw_server([endless(b"HTTP/1.1 103 Early Hints\r\n\r\n")]) as server:
        with pytest.raises(InvalidReply, match="headers of the server's answer are larger"):
            make_client(server.url).chat("x")
        assert len(server.requests) == 1


def flood(data: bytes) -> Step:
    """The same again and again, for longer than any clock; then the end."""

    def send(connection: socket.socket) -> None:
        until = time.monotonic() + 8.0
        while time.monotonic() < until:
            connection.sendall(data)

    return send


FLOODS: dict[str, list[Step]] = {
    "gzip without content": [stream(GZIP), flood(gzip.compress(b"") * 100)],
    "1xx": [flood(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)],
    "of a list of models": [head(), flood(b" " * 1000)],
    "of an error": [head(status="503 Service Unavailable"), flood(b" " * 1000)],
}


@pytest.mark.parametrize("name", FLOODS)
def test_p18_a_flood_lets_no_clock_wait(make_client: ClientFactory, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for limit in ("MAX_HEAD_BYTES", "MAX_BODY_BYTES", "MAX_ERROR_BYTES"):
        monkeypatch.setattr(f"autoglm_client.defaults.{limit}", 10**12)
    with raw_server(FLOODS[name]) as server:
        glm = make_client(server.url, timeout=Timeouts(total=0.3), max_attempts=1)
        started = time.monotonic()
        with pytest.raises((DeadlineExceeded, ServerFailed)):
            glm.models() if name == "of a list of models" else glm.stream("x").__enter__().finish()
        assert time.monotonic() - started < 6.0


NOT_HTTP = [
    b"nonsense\r\n\r\n",
    b"\x15\x03\x01\x00\x02\x02F",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 099 What\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfive\r\n",
]


@pytest.mark.parametrize("answer", NOT_HTTP, ids=lambda answer: answer.decode("latin-1")[-20:].strip())
def test_p18_what_is_not_http_is_not_asked_again(make_client: ClientFactory, answer: bytes) -> None:
    with raw_server([answer, 0.5]) as server:
        for ask in asks(make_client(server.url)):
            with pytest.raises(InvalidReply, match="is not valid HTTP") as caught:
                ask()
            assert (type(caught.value), caught.value.attempts) == (InvalidReply, 1)
            assert "\n" not in str(caught.value)
        assert make_client(server.url).health() is False


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_p18_who_hangs_up_without_an_answer_is_asked_again(make_client: ClientFactory, answer: bytes) -> None:
    with raw_server([answer], [plain(ANSWER)]) as server:
        assert make_client(server.url).chat("x").attempts == 2


def test_p18_chunks_that_turn_to_nonsense_keep_what_came(make_client: ClientFactory) -> None:
    first = delta("a")
    chunk = f"{len(first):x}\r\n".encode() + first + b"\r\n"
    with raw_server([stream(CHUNKED), chunk, 0.05, b"five\r\n"]) as server, pytest.raises(InvalidReply) as caught:
        make_client(server.url).chat("x")
    partial: Any = caught.value.partial
    assert (type(caught.value), partial.text) == (InvalidReply, "a")


def test_p18_a_message_about_a_long_line_is_short_and_without_the_key(make_client: ClientFactory) -> None:
    key = "sk-" + "k" * 40
    for before in (10, 170):
        line = b"HTTP/1.1 200 OK\r\n" + b"a" * before + key.encode() + b" " * 50_000 + b"\r\n\r\n"
        with raw_server([line]) as server, pytest.raises(InvalidReply) as caught:
            make_client(server.url, api_key=key).chat("x")
        assert len(str(caught.value)) < 400
        assert "kkkkk" not in str(caught.value)


@pytest.mark.parametrize(
    "surplus", [kept(plain(ANSWER.replace(b"hello", b"stolen"))), b"junk\r\n\r\n"], ids=["an answer", "junk"]
)
def test_p18_an_answer_that_nobody_asked_for_is_not_the_next_one(make_client: ClientFactory, surplus: bytes) -> None:
    with raw_server([kept(plain(ANSWER)) + surplus, next_request], [plain(ANSWER)]) as server:
        glm = make_client(server.url)
        assert glm.chat("x").text == glm.chat("x").text == "hello"
        assert len(server.requests) == 2


def test_p18_more_choices_or_tool_calls_than_any_answer_has(make_client: ClientFactory) -> None:
    choices = [{"index": index} for index in range(2000)]
    calls = [{"index": index, "function": {"name": "a", "arguments": ""}} for index in range(2000)]
    for chunk in ({"choices": choices}, {"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}):
        script = [stream(), event(json.dumps(chunk)), finish()]
        with raw_server(script) as server, pytest.raises(InvalidReply, match="more than 1000"):
            make_client(server.url).chat("x")


def test_p18_an_error_inside_a_stream_is_cut_too(make_client: ClientFactory) -> None:
    words = "Message: " + " (Request ID: " * 80_000  # took minutes to read
    for message in ("a" * MEGABYTE, words):
        with raw_server([stream(), event(json.dumps({"error": {"message": message}}))]) as server:
            with pytest.raises(ServerFailed) as caught:
                make_client(server.url, max_attempts=1).chat("x")
            assert len(caught.value.body) == 64 * 1024


def test_p18_cookies_are_not_kept(make_client: ClientFactory) -> None:
    cookies = [f"Set-Cookie: c{number}={'v' * 3000}; Path=/" for number in range(5)]
    moved = plain(b"", "307 Moved", "Location: /v2", *cookies)
    with raw_server([moved], [plain(ANSWER, "200 OK", *cookies)]) as server:
        glm = make_client(server.url)
        pool = glm._pool if hasattr(glm, "_pool") else glm._target._pool
        for _ in range(2):
            assert glm.chat("x").text == "hello"
        assert len(server.requests) == 3
        assert all(b"\r\ncookie:" not in request.lower() for request in server.requests)
        (client,) = [pool._client] if hasattr(pool, "_client") else pool._clients.values()
        assert list(client.cookies.jar) == []
