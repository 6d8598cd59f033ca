"""P1, P2, P3 and P16: streams of a real vLLM, cut at every byte and delivered in every cut, on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import cycle

import pytest

from autoglm_client import AsyncAutoGLM, AutoGLM, AutoGLMError, ConnectionFailed, Reply, StreamInterrupted
from autoglm_client._assembler import Assembler
from autoglm_client.events import Event

from ..raw_server import HEAD, Step, kept, next_request, raw_server, reset
from ..wire_samples import body_of

TAGS, PARSER = "plain.tap_image.stream", "parser.tap_image.stream"
TOOLS, SHORT = "parser.tool_required.stream", "plain.length.stream"
NAMES = [TAGS, PARSER, TOOLS, SHORT]
CHUNKED = HEAD.replace(b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n")
LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n" if data else b""


def closed(data: bytes) -> list[Step]:
    return [HEAD + data]


def broken(data: bytes) -> list[Step]:
    return [HEAD + data, reset]


def unterminated(data: bytes) -> list[Step]:
    return [CHUNKED + chunk(data)]


ENDS = {"closed": closed, "reset": broken, "unterminated": unterminated}


@cache
def whole(name: str) -> tuple[Reply, tuple[Event, ...]]:
    assembler = Assembler()
    assembler.feed(body_of(name))
    assembler.close()
    return assembler.reply(), tuple(assembler.events)


def complete_from(name: str) -> int:
    """Where the event with the ``finish_reason`` ends."""
    body = body_of(name)
    before = max(body.find(f'"finish_reason":"{reason}"'.encode()) for reason in ("stop", "length", "tool_calls"))
    return body.index(b"\n\n", before) + 2


def check(name: str, cut: int, reply: Reply | None, error: AutoGLMError | None) -> None:
    expected, _ = whole(name)
    if cut >= complete_from(name):
        assert reply == expected, cut
        return
    assert reply is None, cut
    partial = error.partial if error else None
    if partial is None:
        assert type(error) in {StreamInterrupted, ConnectionFailed}, (cut, error)
        return
    assert type(error) is StreamInterrupted, (cut, error)
    assert expected.text.startswith(partial.text), cut
    assert expected.reasoning.startswith(partial.reasoning), cut
    assert expected.raw.startswith(partial.raw), cut
    assert (partial.action, partial.finish_reason, partial.complete) == (None, None, False), cut
    for call, full in zip(partial.tool_calls, expected.tool_calls, strict=False):
        assert full.arguments.startswith(call.arguments), cut


def outcome(glm: AutoGLM, *, streamed: bool) -> tuple[Reply | None, AutoGLMError | None]:
    try:
        if not streamed:
            return glm.chat("x"), None
        with glm.stream("x") as stream:
            return stream.finish(), None
    except AutoGLMError as error:
        return None, error


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", NAMES)
def test_p01_p02_p03_a_stream_that_ends_at_any_byte(name: str, end: str) -> None:
    body = body_of(name)
    first = 0 if name == TOOLS else list(ENDS).index(end)  # of the others each byte has one end
    cuts = range(first, len(body) + 1, 1 if name == TOOLS else len(ENDS))
    with raw_server(*(ENDS[end](body[:cut]) for cut in cuts)) as server, AutoGLM(server.url, max_attempts=1) as glm:
        had_partial = 0
        for cut, streamed in zip(cuts, cycle([True, False]), strict=False):
            reply, error = outcome(glm, streamed=streamed)
            check(name, cut, reply, error)
            had_partial += error is not None and error.partial is not None
        assert had_partial > len(cuts) / 10


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", NAMES)
def test_p01_p02_p03_the_same_in_async(name: str, end: str) -> None:
    body = body_of(name)
    cuts = range(list(ENDS).index(end), len(body) + 1, 23)

    async def ask() -> None:
        async with AsyncAutoGLM(server.url, max_attempts=1) as glm:
            for cut in cuts:
                reply, failure = None, None
                try:
                    async with glm.stream("x") as stream:
                        reply = await stream.finish()
                except AutoGLMError as error:
                    failure = error
                check(name, cut, reply, failure)

    with raw_server(*(ENDS[end](body[:cut]) for cut in cuts)) as server:
        asyncio.run(ask())


def read(pieces: Sequence[bytes]) -> tuple[Reply, tuple[Event, ...]]:
    assembler = Assembler()
    for piece in pieces:
        assembler.feed(piece)
    assembler.close()
    return assembler.reply(), tuple(assembler.events)


def in_two(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    return ((body[:cut], body[cut:]) for cut in range(len(body) + 1))


@pytest.mark.parametrize("ends", LINE_ENDS)
@pytest.mark.parametrize("name", NAMES)
def test_p16_two_pieces_cut_at_every_byte(name: str, ends: str) -> None:
    body = body_of(name).replace(b"\n", LINE_ENDS[ends])
    step = 1 if name in {TOOLS, SHORT} or ends == "LF" else 5
    for first, second in list(in_two(body))[::step]:
        assert read([first, second]) == whole(name), len(first)


@pytest.mark.parametrize("name", [TOOLS])
def test_p16_two_chunks_cut_at_every_byte_on_a_socket(name: str) -> None:
    """Chunks of HTTP, so that the pieces are the same ones however the packets fall."""
    script: list[Step] = []
    for first, second in in_two(body_of(name)):
        script += [kept(CHUNKED) + chunk(first) + chunk(second) + b"0\r\n\r\n", next_request]
    with raw_server(script) as server, AutoGLM(server.url) as glm:
        for cut in range(len(body_of(name)) + 1):
            with glm.stream("x") as stream:
                events = tuple(stream)
            assert (stream.reply, events) == whole(name), cut
        assert len(server.requests) == 1  # all of them on one connection


@pytest.mark.parametrize("ends", LINE_ENDS)
@pytest.mark.parametrize("name", NAMES)
def test_p16_byte_by_byte_on_a_socket(name: str, ends: str) -> None:
    body = body_of(name).replace(b"\n", LINE_ENDS[ends])
    answer = CHUNKED + b"".join(chunk(body[at : at + 1]) for at in range(len(body))) + b"0\r\n\r\n"
    with raw_server([answer]) as server, AutoGLM(server.url) as glm, glm.stream("x") as stream:
        events = tuple(stream)
        assert (stream.reply, events) == whole(name)
