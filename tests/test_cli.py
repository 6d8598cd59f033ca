"""The command as a new user meets it: what it prints, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from autoglm_client.cli import main
from server_stub import ScriptedServer
from server_stub.screen import Button, draw_screen

from .raw_server import HEAD, Step, delta, event, finish, plain, raw_server


@pytest.fixture
def screen(tmp_path: Path) -> Path:
    """A screenshot."""
    path = tmp_path / "screen.png"
    path.write_bytes(draw_screen(1080, 2160, [Button("green", 60, 160, 320, 120)]))
    return path


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run("demo", capsys=capsys)
    assert (status, err) == (0, "")
    assert "Thinking  " in out
    assert 'Action    do(action="Tap", element=[93, 93])\nPixels    (100, 201)' in out
    assert "This server is scripted, it has no model." in out
    assert "\033" not in out


def test_asking(server: ScriptedServer, screen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("ask", "Open Settings", "--base-url", server.base_url, capsys=capsys)
    assert status == 0
    assert out.splitlines()[-1] == 'Action    do(action="Launch", app="Settings")'
    body = server.requests[-1].body
    assert body is not None
    assert body["messages"] == [{"role": "user", "content": "Open Settings"}]
    assert (body["temperature"], body["max_tokens"]) == (0.0, 3000)
    run("ask", "点击绿色按钮", "--image", str(screen), "--base-url", server.base_url, capsys=capsys)
    body = server.requests[-1].body
    assert body is not None
    assert body["messages"][0]["content"].startswith("今天的日期是")
    assert [part["type"] for part in body["messages"][1]["content"]] == ["image_url", "text"]


def test_json(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("ask", "打开微信", "--json", "--base-url", server.base_url, capsys=capsys)
    reply = json.loads(out)
    assert status == 0
    assert reply["action"] == {"name": "Launch", "app": "微信"}
    assert reply["usage"]["completion_tokens"] > 0
    assert "微信" in out


def test_a_prompt_of_ones_own_and_a_question_from_a_pipe(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompt.txt").write_text("Be a phone.")
    with Path(__file__).open() as source:
        monkeypatch.setattr("sys.stdin", source)
        run("ask", "-", "--prompt", str(tmp_path / "prompt.txt"), "--base-url", server.base_url, capsys=capsys)
    body = server.requests[-1].body
    assert body is not None
    assert body["messages"][0] == {"role": "system", "content": "Be a phone."}
    assert body["messages"][1]["content"].startswith('"""The command')


def test_other_actions_and_notes(capsys: pytest.CaptureFixture[str], screen: Path) -> None:
    swipe = delta('<answer>do(action="Swipe", start=[0, 0], end=[999, 999])')
    with raw_server([HEAD, swipe, finish()]) as server:
        _, out, _ = run("ask", "x", "--image", str(screen), "--base-url", server.url, capsys=capsys)
    assert "Pixels    (0, 0) to (1079, 2159)" in out
    loop: list[Step] = [delta("I should tap the button that closes the window. ")] * 60
    with raw_server([HEAD, *loop, finish("length")]) as server:
        _, out, _ = run("ask", "x", "--base-url", server.url, capsys=capsys)
    assert "the model repeats itself" in out
    assert "the answer was cut" in out


def test_a_model_does_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with raw_server([HEAD, delta("\x1b]0;owned\x07\x9b2J red"), finish()]) as server:
        _, out, _ = run("ask", "x", "--base-url", server.url, capsys=capsys)
    assert "�]0;owned��2J red" in out
    assert not {"\x1b", "\x07", "\x9b"} & set(out)


def test_a_server_does_not_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    refusal = plain(b'{"error":{"message":"\\u001b]0;owned\\u0007 no"}}', "400 Bad Request")
    with raw_server([refusal]) as server:
        _, _, err = run("ask", "x", "--base-url", server.url, capsys=capsys)
        _, out, _ = run("check", "--base-url", server.url, capsys=capsys)
    assert not {"\x1b", "\x07"} & set(out + err)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (delta('do(action="Tap", element=[x,y])'), "Note      no action: element is not a pair of numbers"),
        (b"", "Note      no action: the answer is empty"),
        (delta("why</think>well"), "Note      that was thinking; the answer follows"),
    ],
)
def test_notes(answer: bytes, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with raw_server([HEAD, answer, finish()]) as server:
        assert words in run("ask", "x", "--base-url", server.url, capsys=capsys)[1]


def test_a_tool_call(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    function = '{"function":{"name":"add","arguments":"{}"}}'
    call = f'{{"choices":[{{"delta":{{"tool_calls":[{function}]}},"finish_reason":"tool_calls"}}]}}'
    with raw_server([HEAD, event(call)]) as tools:
        assert "calls the tool add({})" in run("ask", "x", "--base-url", tools.url, capsys=capsys)[1]


BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def test_a_full_disk() -> None:
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            command("demo"), stdout=full, stderr=subprocess.PIPE, env=BUFFERED, text=True, check=False, timeout=60
        )
    assert run.returncode == 1
    assert run.stderr == "autoglm: [Errno 28] No space left on device\n"


def png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + b"\0\0\0\0IEND\xaeB`\x82"


WRONG: dict[str, tuple[list[str], str]] = {
    "a bad URL": (["--base-url", "localhost:8000"], "is not a server's address"),
    "a dead port": (["--base-url", "http://127.0.0.1:9"], "is the server running"),
    "a wrong model": (["--model", "gpt-4"], "The model `gpt-4` does not exist"),
    "a text file as image": (["--image", __file__], "test_cli.py"),
    "no such image": (["--image", "nowhere.png"], "nowhere.png"),
    "a picture of 100 megapixels": (["--image", "huge.png"], "huge.png"),
    "a prompt that is not there": (["--prompt", "nowhere.txt"], "nowhere.txt"),
    "a timeout of nothing": (["--timeout", "0"], "seconds above 0"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_what_goes_wrong_is_said_in_one_line(
    arguments: list[str],
    words: str,
    server: ScriptedServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOGLM_BASE_URL", server.base_url)
    Path("huge.png").write_bytes(png(10_000, 10_000))
    status, out, err = run("ask", "x", *arguments, capsys=capsys)
    assert (status, out) == (1, "")
    assert err.startswith("autoglm: ")
    assert words in err
    assert err.count("\n") == 1


def test_a_wrong_key_and_a_cut_stream(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_API_KEY", "sk-wrong")
    with ScriptedServer(api_key="sk-right") as server:
        status, _, err = run("ask", "x", "--base-url", server.base_url, capsys=capsys)
    assert (status, err.count("\n")) == (1, 1)
    assert "AUTOGLM_API_KEY" in err
    assert "sk-wrong" not in err
    with raw_server([HEAD, delta("half an ans")]) as cut:
        status, out, err = run("ask", "x", "--base-url", cut.url, capsys=capsys)
    assert (status, err.count("\n")) == (1, 1)
    assert "half an ans" in out
    assert "ended before it was complete" in err


def test_check_of_a_good_server(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("check", "--base-url", server.base_url, capsys=capsys)
    assert status == 0
    for name in ("health", "model", "text", "tags", "image", "stream"):
        assert f"ok    {name}" in out


def test_check_of_servers_with_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("check", "--base-url", "http://127.0.0.1:9", capsys=capsys)
    assert status == 1
    assert "FAIL  health" in out
    assert "autoglm demo" in out
    with ScriptedServer(model="other", aliases=["autoglm"]) as server:
        status, out, _ = run("check", "--base-url", server.base_url, capsys=capsys)
    assert status == 1
    assert "pass --model with one of: other, autoglm" in out
    with ScriptedServer(api_key="k") as server:
        assert "set AUTOGLM_API_KEY" in run("check", "--base-url", server.base_url, capsys=capsys)[1]
    with ScriptedServer(reasoning="stripped") as server:
        status, out, _ = run("check", "--base-url", server.base_url, capsys=capsys)
    assert status == 0
    assert "note  tags" in out
    with ScriptedServer(reasoning="reasoning") as server:
        assert "the server has a reasoning parser" in run("check", "--base-url", server.base_url, capsys=capsys)[1]


def test_check_notices_a_proxy_that_buffers(capsys: pytest.CaptureFixture[str]) -> None:
    models = plain(b'{"data":[{"id":"autoglm-phone-9b"}]}')
    answer = plain(b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}')
    slow: list[Step] = [1.1, HEAD, delta("a"), finish()]
    with raw_server([models], [models], [answer], [answer], slow) as server:
        assert "proxy_buffering off" in run("check", "--base-url", server.url, capsys=capsys)[1]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "autoglm_client", *arguments]


def test_a_reader_that_leaves(server: ScriptedServer) -> None:
    ask = " ".join(command("ask", "loop", "--base-url", server.base_url))
    run = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {ask} | head -c 5"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (run.returncode, run.stderr, len(run.stdout)) == (0, "", 5)


# What runs in the background of a shell inherits that it ignores interrupts.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from autoglm_client.cli import main
sys.exit(main())
"""


def test_an_interrupt() -> None:
    with raw_server([HEAD, delta("a"), 20.0]) as server:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, "ask", "x", "--base-url", server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.read(11) == "Answer    a"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (130, "")
        assert server.hung_up.wait(8)


def test_colors_are_for_terminals(server: ScriptedServer) -> None:
    script = f"import pty, sys; sys.exit(pty.spawn({command('ask', 'Open A', '--base-url', server.base_url)!r}))"
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL
    ).stdout
    assert "\033[2mI\033[0m" in out
