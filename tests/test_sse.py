"""The framing of events: any cut of the bytes gives the same events."""

from __future__ import annotations

from time import process_time

import pytest

from autoglm_client._sse import SSEDecoder
from autoglm_client.errors import EventTooLarge, InvalidReply

STREAMS = {
    "lf": (b"data: a\n\ndata: b\n\n", ["a", "b"]),
    "crlf": (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    "cr": (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    "mixed": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", ["a", "b", "c"]),
    "no space after the colon": (b"data:a\n\ndata:  b\n\n", ["a", " b"]),
    "comments and keep-alives": (b": ping\n\n:\n\ndata: a\n: between\n\n\n\n: end\n\n", ["a"]),
    "several lines": (b"data: a\ndata: b\ndata:\ndata: c\n\n", ["a\nb\n\nc"]),
    "other fields": (b"event: x\nid: 1\nretry: 5\ndata: a\nunknown: y\n\nretry: 1\n\nid: 2\n\n", ["a"]),
    "a field without a colon": (b"data\n\nevent\n\ndata: a\n\n", ["", "a"]),
    "utf-8": ("data: 点击“设置”🙂\n\n".encode(), ["点击“设置”🙂"]),
    "not line ends": ("data: a\u2028b\u0085c\x0bd\x0ce\n\n".encode(), ["a\u2028b\u0085c\x0bd\x0ce"]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbfb\n\n", ["a", "\ufeffb"]),
    "an unfinished end": (b"data: a\n\ndata: never\n", ["a"]),
    "an unfinished line": (b"data: a\n\ndata: never", ["a"]),
    "nothing": (b"", []),
    "blank lines first": (b"\n\n\ndata: a\n\n", ["a"]),
}


def decode(*pieces: bytes) -> list[str]:
    decoder = SSEDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS)
def test_every_cut_gives_the_same_events(stream: bytes, events: list[str]) -> None:
    assert decode(stream) == events
    for cut in range(len(stream) + 1):
        assert decode(stream[:cut], stream[cut:]) == events
        for second in range(cut, len(stream) + 1):
            assert decode(stream[:cut], b"", stream[cut:second], stream[second:]) == events


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_pieces_of_any_size(size: int, line_end: bytes) -> None:
    expected = [f"{number} 你好\nline two" for number in range(300)]
    stream = b"".join(
        b"".join(b"data: " + line.encode() + line_end for line in event.split("\n")) + line_end for event in expected
    )
    assert decode(*(stream[start : start + size] for start in range(0, len(stream), size))) == expected


def test_events_before_a_broken_one_still_come() -> None:
    events = iter(SSEDecoder().feed(b"data: good\n\ndata: \xff\xfe\n\n"))
    assert next(events) == "good"
    with pytest.raises(InvalidReply, match="not valid UTF-8"):
        next(events)


@pytest.mark.parametrize(
    "pieces",
    [[b"data: 0123456789\n\n"], [b"data: 01", b"2345678", b"9"], [b"data: 1\n"] * 5, [b": 0123456789012"]],
    ids=["whole", "in pieces", "many lines", "a comment"],
)
def test_an_event_above_the_limit(pieces: list[bytes]) -> None:
    decoder = SSEDecoder(max_event_bytes=12)
    assert list(decoder.feed(b"data: 012345\n\n" * 3)) == ["012345"] * 3
    with pytest.raises(EventTooLarge, match="larger than 12 bytes"):
        for piece in pieces:
            list(decoder.feed(piece))


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_blank_lines_count_for_no_event_at_every_cut(line_end: bytes) -> None:
    event = b"data: 012345" + line_end * 3
    stream = line_end + event + event + b"data: 012345" + line_end
    for cut in range(len(stream) + 1):
        decoder = SSEDecoder(max_event_bytes=12)
        assert [text for piece in (stream[:cut], stream[cut:]) for text in decoder.feed(piece)] == ["012345"] * 2


@pytest.mark.parametrize("line", [b"data:\n", b":\n", b"\r\ndata: a"])
@pytest.mark.parametrize("size", [999, 1_000_000])
def test_an_event_of_too_many_lines(line: bytes, size: int) -> None:
    enough, more = b"data: a" + line * 9_999 + b"\n\n", b"data: a" + line * 10_003 + b"\n\n"
    assert len(decode(*(enough[start : start + size] for start in range(0, len(enough), size)))) == 1
    with pytest.raises(EventTooLarge, match="more than 10000 lines"):
        decode(*(more[start : start + size] for start in range(0, len(more), size)))


def test_a_comment_may_be_any_bytes() -> None:
    assert list(SSEDecoder().feed(b": \xe5\xa5\n\n: \xff\ndata: 1\n\n")) == ["1"]


def test_a_byte_order_mark_after_a_blank_line_is_none() -> None:
    assert list(SSEDecoder().feed(b"\n\xef\xbb\xbfdata: 1\n\ndata: 2\n\n")) == ["2"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\n"])
def test_an_event_of_just_the_limit_at_every_cut(line_end: bytes) -> None:
    before, event = b": 0123456789" + line_end * 3, b"data: 012345" + line_end * 2
    for stream in (event, before + event):
        for cut in range(len(stream) + 1):
            decoder = SSEDecoder(max_event_bytes=12 + (stream is not event))
            assert [text for piece in (stream[:cut], stream[cut:]) for text in decoder.feed(piece)] == ["012345"]


def seconds_for(stream: bytes, size: int) -> float:
    started = process_time()
    decoder = SSEDecoder(max_event_bytes=len(stream))
    assert [len(event) for start in range(0, len(stream), size) for event in decoder.feed(stream[start : start + size])]
    return process_time() - started


@pytest.mark.parametrize("line_bytes", [1, 64, 10_000_000], ids=["tiny lines", "short lines", "one line"])
def test_a_large_event_costs_linear_time(line_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_client.defaults.MAX_EVENT_LINES", 10**6)

    def event(total: int) -> bytes:
        line = b"data: " + b"x" * min(line_bytes, total) + b"\n"
        return line * (total // len(line) or 1) + b"\n"

    total, size = (10_000_000, 1024) if line_bytes > 64 else (1_600_000, 4096)
    small = min(seconds_for(event(total // 4), size) for _ in range(3))
    large = min(seconds_for(event(total), size) for _ in range(2))
    assert large < small * 4 * 2.5  # quadratic time would be 16 times
