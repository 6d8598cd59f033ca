"""Compressed bodies, cut anywhere, in every wrapping, broken, and without end."""

from __future__ import annotations

import gzip
import zlib

import pytest

from autoglm_client import InvalidReply, StreamInterrupted
from autoglm_client._inflate import Inflater, inflater_for

TEXT = "你好, world. ".encode() * 20_000


def deflated(data: bytes, wrapping: int) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, wrapping)
    return packer.compress(data) + packer.flush()


COMPRESSED = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "x-gzip": ("x-gzip", gzip.compress(TEXT)),
    "two members": ("gzip", gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:])),
    "padded": ("gzip", gzip.compress(TEXT) + b"\0" * 512),
    "with garbage behind": ("gzip", gzip.compress(TEXT) + b"\0more\x1f\x8b"),
    "deflate with garbage behind": ("deflate", deflated(TEXT, 15) + b"more"),
    "deflate": ("deflate", deflated(TEXT, 15)),
    "bare deflate": ("deflate", deflated(TEXT, -15)),
    "stored": ("deflate", b"\0\xff\xff\0\0" + TEXT[:65535] + deflated(TEXT[65535:], -15)),
}


def inflated(encoding: str, *pieces: bytes) -> bytes:
    inflater = Inflater(encoding)
    whole = b"".join(part for piece in pieces for part in inflater.feed(piece))
    inflater.close()
    return whole


@pytest.mark.parametrize(("encoding", "data"), COMPRESSED.values(), ids=COMPRESSED)
def test_every_wrapping_at_every_cut(encoding: str, data: bytes) -> None:
    assert inflated(encoding, data) == TEXT
    assert inflated(encoding, *(data[at : at + 1] for at in range(len(data)))) == TEXT
    for cut in range(0, len(data), 37):
        assert inflated(encoding, data[:cut], data[cut:]) == TEXT


@pytest.mark.parametrize("name", ["gzip", "deflate", "bare deflate"])
def test_what_is_cut_is_interrupted(name: str) -> None:
    encoding, data = COMPRESSED[name]
    for cut in range(1, len(data), 41):
        with pytest.raises(StreamInterrupted, match="was cut"):
            inflated(encoding, data[:cut])
    assert inflated(encoding) == b""  # what never began was not cut here


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", b"{}"),
        ("gzip", gzip.compress(TEXT)[:-5] + b"12345"),
        ("gzip", gzip.compress(TEXT) + b"\x1f\x8bmore"),
        ("deflate", b"\xff\xff"),
    ],
)
def test_what_is_broken_is_no_reply(encoding: str, data: bytes) -> None:
    with pytest.raises(InvalidReply, match="is broken"):
        inflated(encoding, data)


def test_what_stands_before_an_error_in_the_same_piece_comes() -> None:
    broken = gzip.compress(TEXT)[:-8] + bytes(8)
    for size in (len(broken), 1000):
        inflater, found = Inflater("gzip"), b""
        with pytest.raises(InvalidReply, match="is broken"):
            for start in range(0, len(broken), size):
                for piece in inflater.feed(broken[start : start + size]):
                    found += piece
        assert found == TEXT


def test_a_small_piece_never_becomes_a_large_one() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < 10_000
    sizes = [len(piece) for piece in Inflater("gzip").feed(bomb)]
    assert sum(sizes) == 10_000_000
    assert max(sizes) <= 65536


def test_what_zlib_still_holds_comes_too() -> None:
    for size in range(65536 - 300, 65536 + 600, 7):
        packer = zlib.compressobj(wbits=31)
        data = packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH)
        for cut in range(len(data) - 12, len(data)):  # where the input ends while the output is full
            inflater = Inflater("gzip")
            assert sum(len(piece) for part in (data[:cut], data[cut:]) for piece in inflater.feed(part)) == size


def test_what_holds_nothing_gives_empty_pieces_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_client.defaults.MAX_BODY_BYTES", 1000)
    inflater, empty = Inflater("gzip"), gzip.compress(b"")
    assert list(inflater.feed(empty)) == [b""]
    with pytest.raises(InvalidReply, match="larger than 1000 bytes"):
        for _ in range(100):
            assert set(inflater.feed(empty)) == {b""}


@pytest.mark.parametrize("encoding", [None, "", "identity", "utf-8", "identity, chunked"])
def test_what_is_not_compressed(encoding: str | None) -> None:
    assert inflater_for(encoding) is None


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br", "GZIP, gzip"])
def test_what_nobody_here_can_read(encoding: str) -> None:
    inflater = inflater_for(encoding)
    assert inflater is not None
    with pytest.raises(InvalidReply, match=f"compressed its answer .{encoding.lower()}., though"):
        list(inflater.feed(b"x"))


def test_names_in_any_case_beside_others() -> None:
    inflater = inflater_for("identity, GZip")
    assert inflater is not None
    assert b"".join(inflater.feed(gzip.compress(b"x"))) == b"x"
