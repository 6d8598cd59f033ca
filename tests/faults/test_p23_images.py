"""P23: a picture is read here and looked at before it is decoded; no address that is not meant for it is sent."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from autoglm_client import (
    AutoGLM,
    AutoGLMError,
    ConfigurationError,
    MediaError,
    audio,
    image,
    image_size,
    tool,
    user,
    video,
)
from autoglm_client.cli import main
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
        make_client(server.url, allow_remote_images=True).chat([user("What is this?", image(url))])
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


def ways_to_ask(glm: Any) -> dict[str, Callable[..., Any]]:
    """Every way in which messages leave the client."""
    return {
        "chat": glm.chat,
        "stream": lambda messages, **options: glm.stream(messages, **options).finish(),
        "tokenize": glm.tokenize,
        "extra_body": lambda messages, **options: glm.chat("x", extra_body={"messages": messages}, **options),
        "tokenize, in its body": lambda messages, **options: glm.tokenize("x", messages=messages, **options),
        "tokenize a string, in its body": lambda messages, **options: glm.tokenize(
            "x", template=False, messages=messages, **options
        ),
    }


WAYS = sorted(ways_to_ask(AutoGLM("http://127.0.0.1:9/v1", api_key="k")))


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
        for ask in ways_to_ask(glm).values():
            with pytest.raises(AutoGLMError):
                ask(messages, allow_remote_images=True)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "data:text/html;base64,PGI+", "ftp://host/x.png"])
def test_p23_nor_from_a_block_of_langchain(nobody: RawServer, url: str) -> None:
    model = ChatAutoGLM(base_url=nobody.url, api_key="k", allow_remote_images=True)
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
        for part in (image(SMALL), written):
            make_client(server.url).chat([{"role": "user", "content": [part]}])
        assert len(server.requests) == 2


URL = "https://metadata.example/latest.png"


def as_user(*parts: Any) -> Any:
    return [{"role": "user", "content": [{"type": "text", "text": "x"}, *parts]}]


REMOTE: dict[str, Any] = {
    "a picture": [user("x", image(URL))],
    "a sound": [user("x", audio(URL))],
    "a film": [user("x", video(URL))],
    "alone": user("x", image(URL)),
    "in an earlier message": [user(image(URL)), user("x")],
    "over http": as_user({"type": "image_url", "image_url": {"url": "http://metadata.example/latest.png"}}),
    "in upper case": as_user({"type": "image_url", "image_url": {"url": "HTTPS://metadata.example/latest.png"}}),
    "a name and a password": as_user({"type": "image_url", "image_url": {"url": "http://a:b@metadata.example/"}}),
    "an address of this machine": as_user({"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}),
    "not in a mapping": as_user({"type": "image_url", "image_url": URL}),
    "OpenAI's newer part": as_user({"type": "input_image", "image_url": URL}),
    "in a text": as_user({"type": "text", "text": "x", "image_url": URL}),
    "in a part that is another's": as_user({"type": "audio_url", "image_url": {"url": URL}}),
    "the second of two": as_user({"type": "x", "image_url": {"url": data_uri(SMALL)}, "video_url": {"url": URL}}),
    "with a uuid": as_user({"type": "image_url", "image_url": {"url": URL}, "uuid": "1"}),
    "of the system": [{**as_user(image(URL))[0], "role": "system"}, user("x")],
    "of an assistant": [{**as_user(image(URL))[0], "role": "assistant"}, user("x")],
    "of a tool": [user("x"), {**tool("", "1"), "content": [image(URL)]}],
    "beside calls": [{"role": "assistant", "content": [image(URL)], "tool_calls": [{"id": "1"}]}],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REMOTE)
def test_p23_no_url_is_sent_unless_that_is_allowed(
    make_client: ClientFactory, nobody: RawServer, name: str, way: str
) -> None:
    for glm in (make_client(nobody.url), make_client(nobody.url, options={"allow_remote_images": None})):
        ask = ways_to_ask(glm)[way]
        with pytest.raises(ConfigurationError) as caught:
            ask(REMOTE[name])
        index = {"alone": "the message", "of a tool": "messages[1]"}.get(name, "messages[0]")
        host = "127.0.0.1:9" if "this machine" in name else "metadata.example"
        assert re.match(
            rf"{re.escape(index)}: the server would fetch this from '(?i:https?)://{host}', so ", str(caught.value)
        )
        assert "pass image(path)" in str(caught.value)
        assert "allow_remote_images=True" in str(caught.value)
    for glm, options in (
        (make_client(nobody.url, allow_remote_images=True), {"allow_remote_images": False}),
        (make_client(nobody.url, allow_remote_images=False), {}),
        (make_client(nobody.url, allow_remote_images=True, options={"allow_remote_images": False}), {}),
    ):
        with pytest.raises(ConfigurationError, match="the server would fetch"):
            ways_to_ask(glm)[way](REMOTE[name], **options)


COUNT = plain(b'{"count":3,"max_model_len":9,"tokens":[1,2,3]}')


@pytest.mark.parametrize("name", REMOTE)
def test_p23_an_allowed_url_is_sent_as_it_is(make_client: ClientFactory, name: str) -> None:
    messages = REMOTE[name]
    with raw_server(*[[ANSWER]] * 4, *[[COUNT]] * 3) as server:
        make_client(server.url, allow_remote_images=True).chat(messages)
        make_client(server.url, options={"allow_remote_images": True}).chat(messages)
        make_client(server.url).chat(messages, allow_remote_images=True)
        make_client(server.url).chat("x", allow_remote_images=True, extra_body={"messages": messages})
        make_client(server.url).tokenize(messages, allow_remote_images=True)
        make_client(server.url, allow_remote_images=True).tokenize(messages, deadline=monotonic() + 60)
        make_client(server.url).tokenize("x", allow_remote_images=True, messages=messages)
        bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
    as_list = messages if isinstance(messages, list) else [messages]
    assert len(bodies) == 7
    assert all(body["messages"] in (messages, as_list) for body in bodies)  # a body of your own goes as you wrote it
    assert not any("allow_remote_images" in body for body in bodies)


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "a list": ({"type": "image_url", "image_url": [URL]}, "the image_url is a list"),
    "a list within": ({"type": "video_url", "video_url": {"url": [URL]}}, "the video_url is a list"),
    "a mapping within": ({"type": "audio_url", "audio_url": {"url": {"url": URL}}}, "the audio_url is a dict"),
    "bytes": ({"type": "image_url", "image_url": URL.encode()}, "the image_url is a bytes"),
    "without a scheme": ({"type": "image_url", "image_url": {"url": "//host/x"}}, "neither http"),
    "with a space": ({"type": "image_url", "image_url": {"url": f" {URL}"}}, "neither http"),
    "with a tab": ({"type": "image_url", "image_url": f"\t{URL}"}, "neither http"),
    "without slashes": ({"type": "image_url", "image_url": "https:host/x"}, "neither http"),
    "with backslashes": ({"type": "image_url", "image_url": "https:\\\\host/x"}, "neither http"),
    "as a sound's data": ({"type": "input_audio", "input_audio": {"data": URL}}, "the input_audio has no format"),
    "in the place of its format": (
        {"type": "input_audio", "input_audio": {"data": URL, "format": ""}},
        "the input_audio has no format",
    ),
    "as a sound": ({"type": "input_audio", "input_audio": URL}, "the input_audio has no format"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ODD)
def test_p23_what_a_server_might_take_for_a_url_is_not_sent_even_then(
    make_client: ClientFactory, nobody: RawServer, name: str, way: str
) -> None:
    part, why = ODD[name]
    with pytest.raises(ConfigurationError, match=why):
        ways_to_ask(make_client(nobody.url))[way](as_user(part), allow_remote_images=True)


def test_p23_what_names_nothing_is_sent(make_client: ClientFactory) -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    seen = {"type": "image_url", "image_url": None, "uuid": "1"}  # which vLLM has seen before
    words = {"type": "text", "text": URL}
    with raw_server([ANSWER]) as server:
        make_client(server.url).chat([user(URL), *as_user(sound, seen, words)])
        assert URL.encode() in server.requests[0]


@pytest.mark.parametrize("switch", ["no", "yes", 1, 0])
def test_p23_only_true_allows(make_client: ClientFactory, nobody: RawServer, switch: Any) -> None:
    for settings in ({"allow_remote_images": switch}, {"options": {"allow_remote_images": switch}}):
        with pytest.raises(ConfigurationError, match=f"allow_remote_images={switch!r}: give True or False"):
            make_client(nobody.url, **settings)
    for ask in (make_client(nobody.url).chat, make_client(nobody.url).tokenize):
        with pytest.raises(ConfigurationError, match="allow_remote_images"):
            ask("x", allow_remote_images=switch)


BLOCKS: list[dict[str, Any]] = [
    {"type": "image", "url": URL},
    {"type": "image", "source_type": "url", "url": URL},
    {"type": "image", "source": {"type": "url", "url": URL}},
    {"type": "image_url", "image_url": {"url": URL}},
    {"type": "image_url", "image_url": URL},
    {"type": "audio", "url": URL},
    {"type": "audio_url", "audio_url": {"url": URL}},
    {"type": "video", "url": URL},
    {"type": "video_url", "video_url": {"url": URL}},
    {"type": "non_standard", "value": {"type": "image", "url": URL}},
]
TALK: dict[str, Callable[[ChatAutoGLM, list[BaseMessage]], Any]] = {
    "invoke": lambda model, messages: model.invoke(messages),
    "stream": lambda model, messages: list(model.stream(messages)),
    "ainvoke": lambda model, messages: asyncio.run(model.ainvoke(messages)),
    "v3 events": lambda model, messages: model.stream_events(messages, version="v3").output,
    "allowed by the model, not by the call": lambda model, messages: model.model_copy(
        update={"allow_remote_images": True}
    ).invoke(messages, allow_remote_images=False),
    "None is not yes": lambda model, messages: model.invoke(messages, allow_remote_images=None),
}


@pytest.mark.parametrize("talk", TALK)
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_p23_nor_is_one_of_a_block_of_langchain(nobody: RawServer, block: dict[str, Any], talk: str) -> None:
    model = ChatAutoGLM(base_url=nobody.url, api_key="k")
    history = [AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": i}]) for i in "12"]
    results = [ToolMessage("done", tool_call_id=i) for i in "12"]  # one turn for the server, two for LangChain
    with pytest.raises(ConfigurationError, match=r"^messages\[4\]: the server would fetch .*allow_remote_images=True"):
        TALK[talk](model, [*history, *results, HumanMessage(["x", block])])


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_p23_a_block_that_is_allowed_is_sent(block: dict[str, Any]) -> None:
    message = HumanMessage(["x", block])
    models: list[Callable[[str], Any]] = [
        lambda url: ChatAutoGLM(base_url=url, api_key="k", allow_remote_images=True),
        lambda url: ChatAutoGLM(base_url=url, api_key="k", model_kwargs={"allow_remote_images": True}),
        lambda url: ChatAutoGLM(base_url=url, api_key="k").bind(allow_remote_images=True),
        lambda url: ChatAutoGLM(base_url=url, api_key="k").model_copy(update={"allow_remote_images": True}),
    ]
    with raw_server([ANSWER]) as server:
        for make in models:
            make(server.url).invoke([message])
        sent = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
    parts = [body["messages"][0]["content"][1] for body in sent]
    assert parts == [parts[0]] * len(models)
    kind = parts[0]["type"]
    assert parts[0] == {"type": kind, kind: {"url": URL}}


@pytest.mark.parametrize("tools", ["server", "client"])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_p23_what_a_tool_gives_back_makes_nobody_fetch(block: dict[str, Any], tools: Any) -> None:
    """It becomes words: an error would come again with each further call of the thread."""
    asked = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
    answers: list[BaseMessage] = [
        ToolMessage([block], tool_call_id="1"),
        HumanMessage([{"type": "tool_result", "tool_use_id": "1", "content": [block]}]),
    ]
    for answer in answers:
        for allowed in (False, True):
            with raw_server([ANSWER]) as server:
                settings: dict[str, Any] = {"tool_calling": tools, "allow_remote_images": allowed}
                ChatAutoGLM(base_url=server.url, api_key="k", **settings).bind(tools=[TOOL]).invoke([asked, answer])
                (request,) = server.requests
            messages = json.loads(request.partition(b"\r\n\r\n")[2])["messages"]
            assert URL in str(messages)
            contents = [message["content"] for message in messages]
            assert all(isinstance(content, str | None) for content in contents) is not allowed


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_p23_a_chat_model_keeps_what_it_may() -> None:
    closed = ChatAutoGLM(base_url="http://127.0.0.1:9/v1", api_key="k")
    opened = ChatAutoGLM(base_url="http://127.0.0.1:9/v1", api_key="k", allow_remote_images=True)
    again = loads(dumps(opened), allowed_objects=[ChatAutoGLM], valid_namespaces=["autoglm_client"])
    pickled = pickle.loads(pickle.dumps(opened))
    known: list[tuple[Any, bool]] = [(closed, False), (opened, True), (again, True), (pickled, True)]
    for model, allowed in known:
        assert model.allow_remote_images is allowed
        assert model.profile["image_inputs"]
        assert model.profile["image_url_inputs"] is allowed
    by_kwargs = ChatAutoGLM(base_url="http://127.0.0.1:9/v1", api_key="k", model_kwargs={"allow_remote_images": True})
    assert by_kwargs.profile
    assert by_kwargs.profile["image_url_inputs"] is True
    assert closed._get_llm_string() != opened._get_llm_string()


def test_p23_tokens_of_a_block_are_counted_without_a_fetch(nobody: RawServer) -> None:
    message = HumanMessage(["x", {"type": "image", "url": URL}])
    assert ChatAutoGLM(base_url=nobody.url, api_key="k").get_num_tokens_from_messages([message]) > 3
    with raw_server([COUNT]) as server:
        opened = ChatAutoGLM(base_url=server.url, api_key="k", allow_remote_images=True)
        assert opened.get_num_tokens_from_messages([message]) == 3


@pytest.mark.parametrize("url", [URL, "HTTP://127.0.0.1:9/x.png"])
def test_p23_the_command_reads_files_alone(nobody: RawServer, capsys: pytest.CaptureFixture[str], url: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["ask", "Tap OK", "--image", url, "--base-url", nobody.url])
    assert caught.value.code == 2
    assert "is an address; download it, and give the file" in capsys.readouterr().err
