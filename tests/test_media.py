"""Pictures, sounds and films as parts of a message: what is sent, what is refused, and in which words."""

from __future__ import annotations

import base64
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from autoglm_client import media
from autoglm_client.errors import ConfigurationError, MediaError
from autoglm_client.media import MAX_IMAGE_BYTES, MAX_PIXELS, audio, image, image_size, video

Kind = Literal["PNG", "JPEG", "WEBP"]


def drawn(kind: Kind, mode: str = "RGB", size: tuple[int, int] = (7, 5), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int = 1, body: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def sent(part: media.ImagePart) -> tuple[str, bytes]:
    assert part["type"] == "image_url"
    head, _, body = part["image_url"]["url"].partition(";base64,")
    return head.removeprefix("data:"), base64.b64decode(body, validate=True)


def opened(part: media.ImagePart) -> Image.Image:
    picture = Image.open(io.BytesIO(sent(part)[1]))
    picture.load()
    return picture


WHOLE = {
    "png": ("image/png", drawn("PNG")),
    "jpeg": ("image/jpeg", drawn("JPEG")),
    "jpeg-progressive": ("image/jpeg", drawn("JPEG", progressive=True)),
    "jpeg-restarts": ("image/jpeg", drawn("JPEG", size=(64, 64), restart_marker_blocks=1)),
    "jpeg-cmyk": ("image/jpeg", drawn("JPEG", "CMYK")),
    "webp-lossy": ("image/webp", drawn("WEBP")),
    "webp-lossless": ("image/webp", drawn("WEBP", lossless=True)),
    "webp-extended": ("image/webp", drawn("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")),
}


@pytest.mark.parametrize(("mime", "data"), WHOLE.values(), ids=WHOLE)
def test_a_small_file_is_sent_byte_for_byte(mime: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "named.wrongly"
    path.write_bytes(data)
    uri = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    for source in (data, bytearray(data), memoryview(data), path, str(path), uri, np.bytes_(data)):
        assert image(source) == {"type": "image_url", "image_url": {"url": uri}}
        with Image.open(io.BytesIO(data)) as picture:
            assert image_size(source) == picture.size


@pytest.mark.parametrize("data", [data for _, data in WHOLE.values()], ids=WHOLE)
def test_a_file_cut_anywhere_is_refused(data: bytes) -> None:
    for end in range(len(data)):
        with pytest.raises(MediaError, match=r"^image bytes: (the file is cut off|there is nothing in it)"):
            image(data[:end])


def test_what_follows_the_end_is_no_concern() -> None:
    for _, data in WHOLE.values():
        assert sent(image(data + b"trailer"))[1] == data + b"trailer"


RIFF = b"RIFF\x20\0\0\0WEBP"
BROKEN = {
    "png-header-not-first": png(1, 1).replace(b"IHDR", b"IHDX"),
    "png-no-width": png(0, 9),
    "jpeg-no-frame": b"\xff\xd8\xff\xd9",
    "jpeg-no-frame-but-bytes-in-its-place": b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0H\0H\0\0\xff\xd9",
    "jpeg-short-frame": b"\xff\xd8\xff\xcb\0\0\0\0\xff\xd9",
    "jpeg-two-frames": b"\xff\xd8" + 2 * b"\xff\xc0\0\x0b\x08\0\x01\0\x01\x01\0\0\0" + b"\xff\xd9",
    "webp-unknown-chunk": RIFF + b"ABCD\x0a\0\0\0" + bytes(20),
    "webp-extended-short": RIFF + b"VP8X\x04\0\0\0" + bytes(20),
    "webp-lossless-unsigned": RIFF + b"VP8L\x0a\0\0\0" + bytes(20),
    "webp-lossy-unsigned": RIFF + b"VP8 \x0a\0\0\0" + bytes(20),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_damaged_header_is_refused(data: bytes) -> None:
    for function in (image, image_size):
        with pytest.raises(MediaError, match="image bytes: the file is damaged"):
            function(data)


OTHERS = [
    (b"GIF89a", "GIF"),
    (b"BM6\0", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x20ftypavif", "AVIF"),
    (b"\0\0\0\x18ftypheic", "HEIC"),
    (b"\0\0\0\x18ftypisom", "audio or video"),
    (b"RIFF\0\0\0\0WAVE", "audio or video"),
    (b"%PDF-1.7", "PDF"),
    (b" <!DOCTYPE html>", "HTML"),
    (b"<svg xmlns=", "SVG"),
    (b"<?xml version=", "SVG"),
    ("屏".encode() * 171, "text"),
    (b"\0\0\0", "of an unknown type"),
    (b"\xfe\xfe\xfe!", "of an unknown type"),
    (b"\x80", "of an unknown type"),
]


@pytest.mark.parametrize(("data", "kind"), OTHERS)
def test_other_formats_are_named(data: bytes, kind: str) -> None:
    with pytest.raises(MediaError, match=rf"image bytes: this is {kind}.* only PNG, JPEG and WebP"):
        image(data)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty.png").touch()
    cases: list[tuple[Any, str]] = [
        (tmp_path / "missing.png", "missing.png': no such file"),
        (str(tmp_path), "': this is a directory"),
        (tmp_path / "fifo", "fifo': this is a pipe or a device"),
        ("/dev/zero", "'/dev/zero': this is a pipe or a device"),
        (tmp_path / "empty.png", "empty.png': there is nothing in it"),
        ("nul\0.png", r"'nul\\x00.png': it cannot be read \(embedded null byte\)"),
        ("a" * 5000, "aaa…': it cannot be read"),
        (base64.b64encode(drawn("PNG")).decode(), "looks like base64: pass base64.b64decode"),
        (base64.b64encode(drawn("JPEG")).decode() + 1000 * "A", "looks like base64"),
        (5, "image: a int cannot be sent; pass a path"),
        (None, "image: a NoneType cannot be sent"),
    ]
    for source, reason in cases:
        for function in (image, image_size):
            with pytest.raises(MediaError, match=reason):
                function(source)


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "open", refuse)  # the tests may run as root, who may read everything
    with pytest.raises(MediaError, match=r"screen.png': no permission to read it"):
        image("screen.png")


@pytest.mark.parametrize("url", ["https://example.org/a.png", "HTTP://example.org", "http://[::1]:8000/a.png"])
def test_a_url_is_passed_on(url: str) -> None:
    assert image(url) == {"type": "image_url", "image_url": {"url": url}}
    assert audio(url) == {"type": "audio_url", "audio_url": {"url": url}}
    assert video(url) == {"type": "video_url", "video_url": {"url": url}}
    with pytest.raises(MediaError, match="not known without fetching"):
        image_size(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/hostname", "would read the server's disk"),
        ("FILE://host/x", "would read the server's disk"),
        ("file:screen.png", "would read the server's disk"),
        ("ftp://example.org/a.png", "only http and https"),
        ("content://media/1", "only http and https"),
        ("https:///a.png", "names no host"),
        ("https://[::1/a.png", "names no host"),
    ],
)
def test_other_urls_are_refused(url: str, reason: str) -> None:
    for function in (image, image_size, audio, video):
        with pytest.raises(MediaError, match=reason):
            function(url)


def test_data_uris() -> None:
    body = base64.b64encode(drawn("JPEG")).decode()
    expected = image(drawn("JPEG"))
    assert image(f"data:image/jpeg;base64,{body}") == expected
    assert image(f"DATA:image/JPG;name=a.jpg;base64,{body}") == expected
    for uri, reason in (
        (f"data:image/png;base64,{body}", "declares image/png, but holds image/jpeg"),
        (f"data:text/plain;base64,{body}", "declares 'text/plain', not image/"),
        (f"data:;base64,{body}", "declares 'no type', not image/"),
        (f"data:image/jpeg,{body}", "must read data:image/...;base64"),
        ("data:image/jpeg;base64", "must read data:image/...;base64"),
        (f"data:image/jpeg;base64,{body}!", "is not base64"),
        (f"data:image/jpeg;base64,{body}é", "is not base64"),
        ("data:image/jpeg;base64,", "there is nothing in it"),
        ("data:image/jpeg;base64," + "A" * (MAX_IMAGE_BYTES * 4 // 3 + 12), "larger than 20 MB"),
    ):
        with pytest.raises(MediaError, match=f"^image data URI: .*{reason}"):
            image(uri)


def test_files_too_large_are_not_decoded(tmp_path: Path) -> None:
    big = tmp_path / "big.png"
    with big.open("wb") as file:
        file.truncate(MAX_IMAGE_BYTES + 1)
    for source in (big, bytes(MAX_IMAGE_BYTES + 1)):
        with pytest.raises(MediaError, match="larger than 20 MB"):
            image(source)


BOMBS = {
    "header alone": png(10_000, 10_000),
    "a real one": png(13_377, 13_377, body=zlib.compress(bytes(13_377 * (1 + 13_377 // 8 + 1)))),
    "just too large": png(5_001, 5_000),
    "webp": RIFF + b"VP8X\x0a\0\0\0" + bytes(4) + b"\xff\xff\xff\xff\xff\xff" + bytes(10),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_bombs_are_not_decoded(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    path = tmp_path / "bomb.png"
    path.write_bytes(data)
    with pytest.raises(
        MediaError, match=r"bomb.png': \d+ x \d+ pixels are more than 25,000,000, so it was not decoded"
    ):
        image(path)


def test_a_bomb_opened_by_pillow_is_not_decoded() -> None:
    with (
        Image.open(io.BytesIO(png(6_000, 5_000))) as picture,
        pytest.raises(MediaError, match=r"^Pillow image: 6000 x"),
    ):
        image(picture)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_large_file_is_scaled_down_in_its_format(kind: Kind) -> None:
    data = drawn(kind, size=(1440, 3200))
    part = image(data)
    assert sent(part)[0] == f"image/{kind.lower()}"
    picture = opened(part)
    assert picture.format == kind
    assert picture.size == (1081, 2403)
    assert 0.99 * MAX_PIXELS < picture.width * picture.height <= MAX_PIXELS
    assert image_size(data) == (1440, 3200)


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((100, 100), 10_000, (100, 100)),
        ((100, 100), 9_999, (99, 99)),
        ((101, 100), 10_000, (100, 99)),
        ((1, 300), 50, (1, 50)),
        ((300, 1), 50, (50, 1)),
        ((300, 200), 1, (1, 1)),
    ],
)
def test_sizes_that_scaling_gives(size: tuple[int, int], limit: int, expected: tuple[int, int]) -> None:
    assert opened(image(drawn("PNG", size=size), max_pixels=limit)).size == expected


def test_max_pixels_and_detail() -> None:
    assert image(drawn("PNG"), detail="low")["image_url"]["detail"] == "low"
    with pytest.raises(ConfigurationError, match="max_pixels=0"):
        image(drawn("PNG"), max_pixels=0)


@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        ("PNG", "1", "RGB"),
        ("PNG", "L", "L"),
        ("PNG", "LA", "RGBA"),
        ("PNG", "P", "RGB"),
        ("PNG", "RGBA", "RGBA"),
        ("PNG", "I;16", "L"),
        ("JPEG", "L", "L"),
        ("JPEG", "CMYK", "RGB"),
    ],
)
def test_unusual_pixels_are_scaled_to_plain_ones(kind: Kind, mode: str, expected: str) -> None:
    picture = opened(image(drawn(kind, mode, size=(200, 200)), max_pixels=10_000))
    assert (picture.mode, picture.size) == (expected, (100, 100))


def test_transparent_colours_stay_transparent() -> None:
    buffer = io.BytesIO()
    Image.new("P", (20, 20)).save(buffer, "PNG", transparency=0)
    assert opened(image(buffer.getvalue(), max_pixels=100)).getpixel((5, 5)) == (0, 0, 0, 0)


def test_sixteen_bits_keep_their_shades() -> None:
    gray = Image.fromarray(np.full((20, 20), 0x8000, dtype=np.uint16))
    assert opened(image(gray)).getpixel((5, 5)) == 128


def test_scaling_keeps_the_rotation_and_drops_the_colour_profile() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = drawn("JPEG", size=(40, 20), exif=exif, icc_profile=b"profile")
    picture = opened(image(data, max_pixels=200))
    assert picture.size == (20, 10)
    assert picture.getexif()[0x0112] == 6
    assert "icc_profile" not in picture.info


def test_pillow_images() -> None:
    picture = Image.new("RGBA", (9, 4), (250, 0, 0, 255))
    before = picture.copy()
    part = image(picture)
    assert sent(part)[0] == "image/png"
    assert opened(part).tobytes() == before.tobytes() == picture.tobytes()
    assert image_size(picture) == (9, 4)
    assert opened(image(Image.new("HSV", (9, 4)))).mode == "RGB"
    with pytest.raises(MediaError, match=r"^Pillow image: 0 x 4 is no picture"):
        image(Image.new("RGB", (0, 4)))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_pillow_images_keep_their_format(kind: Kind) -> None:
    with Image.open(io.BytesIO(drawn(kind))) as picture:
        assert sent(image(picture))[0] == f"image/{kind.lower()}"
        picture.putalpha(7)
        picture.format = kind
        assert opened(image(picture)).mode == "RGBA"


@pytest.mark.parametrize(("shape", "mode"), [((4, 9), "L"), ((4, 9, 3), "RGB"), ((4, 9, 4), "RGBA")])
def test_arrays(shape: tuple[int, ...], mode: str) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    picture = opened(image(pixels))
    assert (picture.mode, picture.size) == (mode, (9, 4))
    assert (np.asarray(picture) == pixels).all()
    assert (np.asarray(opened(image(pixels[::-1]))) == pixels[::-1]).all()
    assert image_size(pixels) == (9, 4)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 9, 3)),
        np.zeros((4, 9, 2), dtype=np.uint8),
        np.zeros((4,), dtype=np.uint8),
        np.zeros((4, 9), dtype=bool),
        np.uint8(3),
    ],
)
def test_arrays_that_are_no_pictures(pixels: Any) -> None:
    for function in (image, image_size):
        with pytest.raises(MediaError, match=r"^image array: .* it must be height x width"):
            function(pixels)


def test_damage_that_only_decoding_shows() -> None:
    with pytest.raises(MediaError, match=r"image bytes: Pillow cannot read it \(.*save it again"):
        image(png(20, 20, body=b"no zlib stream"), max_pixels=100)
    first, second = png(20, 20), png(30, 30)
    two_headers = first[:33] + second[8:]  # Pillow believes the last one, we the first
    with pytest.raises(MediaError, match="header says"):
        image(two_headers, max_pixels=100)


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    sent(image(small := WHOLE["png"][1]))
    for source in (small, np.zeros((4, 9), dtype=np.uint8)):
        with pytest.raises(MediaError, match=r'Pillow: pip install "autoglm-client\[images\]"'):
            image(source, max_pixels=10)


def test_small_pictures_import_neither_pillow_nor_numpy(tmp_path: Path) -> None:
    path = tmp_path / "screen.png"
    path.write_bytes(drawn("PNG"))
    code = (
        "import sys; from autoglm_client.media import image, image_size; image(sys.argv[1]); image_size(sys.argv[1]); "
        "sys.exit(bool({'PIL', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True, cwd=Path(__file__).parent.parent, timeout=60)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"RIFF\x24\0\0\0WAVEfmt ", "wav"),
        (b"ID3\x04", "mp3"),
        (b"\xff\xfb\x90\x64", "mp3"),
        (b"\xff\xf3\x40\xc4", "mp3"),
        (b"fLaC\0", "flac"),
        (b"OggS\0", "ogg"),
    ],
)
def test_sounds(start: bytes, kind: str) -> None:
    data = base64.b64encode(start).decode()
    for source in (start, f"data:audio/x;base64,{data}"):
        assert audio(source) == {"type": "input_audio", "input_audio": {"data": data, "format": kind}}


@pytest.mark.parametrize(
    ("start", "mime"),
    [
        (b"\0\0\0\x18ftypmp42", "video/mp4"),
        (b"\0\0\0\x18ftypqt  ", "video/quicktime"),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x84webm", "video/webm"),
        (b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01B\x82\x88matroska", "video/x-matroska"),
        (b"RIFF\x24\0\0\0AVI LIST", "video/x-msvideo"),
    ],
)
def test_films(start: bytes, mime: str) -> None:
    uri = f"data:{mime};base64,{base64.b64encode(start).decode()}"
    assert video(start) == video(uri) == {"type": "video_url", "video_url": {"url": uri}}


@pytest.mark.parametrize("data", [b"\xff\xf1\x50", b"\xff\xd8\xff", b"\0\0\0\x18ftypheic", b"text", WHOLE["png"][1]])
def test_clips_of_other_types_are_refused(data: bytes) -> None:
    with pytest.raises(MediaError, match=r"^audio bytes: this is not WAV, MP3, FLAC or Ogg"):
        audio(data)
    with pytest.raises(MediaError, match=r"^video bytes: this is not MP4"):
        video(data)
