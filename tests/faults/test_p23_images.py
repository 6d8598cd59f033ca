"""P23: a picture is read here and looked at before it is decoded; no address that is not meant for it is sent."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from autoglm_client import AutoGLMError, MediaError, audio, image, image_size, user, video
from autoglm_client.langchain import ChatAutoGLM

from ..conftest import ClientFactory
from ..raw_server import RawServer, plain, raw_server

ANSWER = plain(b'{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}')


def chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(width: int, height: int) -> bytes:
    """A black picture of one bit per pixel, which packs to next to nothing."""
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x01\x00\x00\x00\x00"
    rows = zlib.compress(bytes(height * (1 + (width + 7) // 8)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


SMALL = png(8, 8)
BOMB = png(13_377, 13_377)


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def nobody() -> Iterator[RawServer]:
    """A server that is asked for nothing."""
    with raw_server([ANSWER]) as server:
        yield server
        assert server.requests == []


def refuses(make_client: ClientFactory, server: RawServer, source: Any) -> str:
    with pytest.raises(MediaError) as caught:
        make_client(server.url).chat([user("What is this?", image(source))])
    return str(caught.value)


@pytest.mark.parametrize("how", ["bytes", "path", "data URI", "Pillow"])
def test_p23_a_bomb_is_not_decoded(make_client: ClientFactory, nobody: RawServer, tmp_path: Path, how: str) -> None:
    from PIL import Image

    assert len(BOMB) < 25_000
    (tmp_path / "bomb.png").write_bytes(BOMB)
    sources: dict[str, Callable[[], Any]] = {
        "bytes": lambda: BOMB,
        "path": lambda: tmp_path / "bomb.png",
        "data URI": lambda: data_uri(BOMB),
        "Pillow": lambda: Image.open(io.BytesIO(BOMB)),
    }
    with pytest.warns(Image.DecompressionBombWarning) if how == "Pillow" else nullcontext():
        source = sources[how]()
    assert "13377 x 13377 pixels" in refuses(make_client, nobody, source)


def test_p23_a_bomb_costs_no_memory(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(BOMB)
    program = """
import resource, sys
from autoglm_client import MediaError, image, image_size
import PIL.Image, PIL.PngImagePlugin

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(3):
    try:
        image(sys.argv[1])
    except MediaError:
        pass
    assert image_size(sys.argv[1]) == (13377, 13377)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = [sys.executable, "-c", program, str(tmp_path / "bomb.png")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) < 8_000, "kB; decoded it is 22 MB at the least, 700 MB in colour"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a" + bytes(50), "GIF"),
        (b"BM" + bytes(50), "BMP"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg onload='x'/>", "SVG"),
        (b"root:x:0:0:root:/root:/bin/bash\n", "text"),
        (b"\x00\x00\x00\x20ftypavif", "AVIF"),
        (SMALL[:-4], "cut off"),
        (b"", "nothing in it"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_p23_other_files_are_not_sent(
    make_client: ClientFactory, nobody: RawServer, tmp_path: Path, data: bytes, reason: str
) -> None:
    (tmp_path / "file.png").write_bytes(data)
    for source in (tmp_path / "file.png", data, data_uri(data)):
        assert reason in refuses(make_client, nobody, source)


def test_p23_more_than_20_mb_is_not_even_read(make_client: ClientFactory, nobody: RawServer, tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.write(SMALL)
        file.truncate(2**40)  # with a hole: nobody could read it
    assert "larger than 20 MB" in refuses(make_client, nobody, tmp_path / "large.png")
    assert "larger than 20 MB" in refuses(make_client, nobody, data_uri(bytes(20_000_010)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files")
def test_p23_regular_files_alone(make_client: ClientFactory, nobody: RawServer, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    sources = [tmp_path / name for name in ("pipe.png", "endless.png", "loop.png")]
    said: list[str] = []

    def try_them() -> None:
        said.extend(refuses(make_client, nobody, source) for source in (*sources, "/dev/zero", tmp_path))

    trying = threading.Thread(target=try_them, daemon=True)
    trying.start()
    trying.join(20)
    assert not trying.is_alive(), "it waits for a pipe, or reads what never ends"
    assert [("pipe or a device" in one, "directory" in one) for one in said] == [
        *[(True, False), (True, False), (False, False), (True, False), (False, True)]
    ]


def test_p23_what_a_link_leads_to_counts(make_client: ClientFactory, tmp_path: Path) -> None:
    (tmp_path / "screen.png").write_bytes(SMALL)
    (tmp_path / "latest.png").symlink_to("screen.png")
    (tmp_path / "secrets.png").symlink_to("/etc/hostname")
    with raw_server([ANSWER]) as server:
        make_client(server.url).chat([user("What is this?", image(tmp_path / "latest.png"))])
        assert base64.b64encode(SMALL) in server.requests[0]
        refuses(make_client, server, tmp_path / "secrets.png")
        assert len(server.requests) == 1


def test_p23_an_address_is_fetched_by_nobody_here(make_client: ClientFactory) -> None:
    with raw_server([plain(SMALL)]) as pictures, raw_server([ANSWER]) as server:
        url = pictures.url + "/screen.png"
        make_client(server.url).chat([user("What is this?", image(url))])
        assert url.encode() in server.requests[0]
        with pytest.raises(MediaError):
            image_size(url)
        assert pictures.requests == []


WRONG = [
    *("file:///etc/passwd", "FILE:///etc/passwd", " file:///etc/passwd", "fi\nle:///etc/passwd", "file:/etc/passwd"),
    *("/etc/passwd", "\\\\server\\share", "ftp://host/x.png", "gopher://host/x", "javascript:alert(1)", ""),
    *("data:text/html;base64,PGI+", "data:,x", "data:application/octet-stream;base64,AAAA"),
]
KINDS = ["image_url", "audio_url", "video_url"]


@pytest.mark.parametrize("url", WRONG)
@pytest.mark.parametrize("kind", KINDS)
def test_p23_no_other_address_is_sent(make_client: ClientFactory, nobody: RawServer, kind: str, url: str) -> None:
    glm = make_client(nobody.url)
    parts: list[dict[str, Any]] = [
        {"type": kind, kind: {"url": url}},
        {"type": kind, kind: url},
        {"type": "text", "text": "x", kind: {"url": url}},
    ]
    for part in parts:
        messages = [{"role": "user", "content": [{"type": "text", "text": "x"}, part]}]
        asks: list[Callable[[Any], Any]] = [
            glm.chat,
            glm.stream,
            glm.tokenize,
            lambda written: glm.chat("x", extra_body={"messages": written}),
        ]
        for ask in asks:
            with pytest.raises(AutoGLMError):
                ask(messages)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "data:text/html;base64,PGI+", "ftp://host/x.png"])
def test_p23_nor_from_a_block_of_langchain(nobody: RawServer, url: str) -> None:
    model = ChatAutoGLM(base_url=nobody.url, api_key="k")
    blocks: list[dict[str, Any]] = [
        *[{"type": kind, kind: {"url": url}} for kind in KINDS],
        {"type": "image_url", "image_url": url},
        *[{"type": kind, "url": url} for kind in ("image", "audio", "video")],
        *[{"type": kind, "source_type": "url", "url": url} for kind in ("image", "audio")],
        {"type": "image", "source": {"type": "url", "url": url}},
        {"type": "image", "base64": "PGI+", "mime_type": "text/html"},
        {"type": "file", "url": url},
    ]
    for block in blocks:
        with pytest.raises(AutoGLMError):
            model.invoke([{"role": "user", "content": [block]}])


@pytest.mark.parametrize("make", [image, audio, video])
@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "http://", "data:text/html;base64,PGI+"])
def test_p23_nor_made_into_a_part(make: Callable[[str], object], url: str) -> None:
    with pytest.raises(MediaError):
        make(url)


def test_p23_what_is_right_is_sent(make_client: ClientFactory) -> None:
    written = {"type": "image_url", "image_url": {"url": data_uri(SMALL)}}
    with raw_server([ANSWER]) as server:
        for part in (image(SMALL), image("HTTPS://example.com/x.png"), written):
            make_client(server.url).chat([{"role": "user", "content": [part]}])
        assert len(server.requests) == 3
