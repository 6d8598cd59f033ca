"""The command ``autoglm`` against the engine, as its user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoglm_client.cli import main

from .clients import screenshot
from .engine import MODEL, MODEL_LENGTH, OTHER_NAME, Engine


@pytest.fixture(params=["plain", "parser"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The one server, then the other, where the environment says they are."""
    engine: Engine = request.getfixturevalue(request.param)
    monkeypatch.setenv("AUTOGLM_BASE_URL", engine.base_url)
    if engine.api_key:
        monkeypatch.setenv("AUTOGLM_API_KEY", engine.api_key)
    return engine


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_check_finds_everything_in_order(server: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run("check", capsys=capsys)
    assert (status, err) == (0, ""), out
    head, *lines = out.splitlines()
    assert head == f"{server.base_url}, model {MODEL}"
    found = {line.split()[1]: line.split()[0] for line in lines if "->" not in line}
    assert found.items() >= {"health": "ok", "model": "ok", "text": "ok", "image": "ok", "stream": "ok"}.items()
    assert found["tags"] == "ok"
    assert f"context of {MODEL_LENGTH} tokens" in out


def test_check_names_the_models_there_are(server: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run("check", "--model", "gpt", capsys=capsys)
    assert status == 1
    assert "gpt is not served" in out
    assert f"pass --model with one of: {MODEL}, {OTHER_NAME}" in out


@pytest.mark.parametrize("command", [["check"], ["ask", "Hi"]])
def test_a_wrong_key_is_told(
    parser: Engine, command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM_API_KEY", "not-the-key")
    status, out, err = run(*command, "--base-url", parser.base_url, capsys=capsys)
    assert status == 1
    assert "the API key is missing or wrong" in out + err
    assert "not-the-key" not in out + err


def test_ask_shows_the_answer_as_it_comes(server: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run("ask", "Open Settings", capsys=capsys)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "Thinking  The user wants Settings. I launch it.",
        'Answer    do(action="Launch", app="Settings")',
        'Action    do(action="Launch", app="Settings")',
    ]


def test_ask_with_a_screenshot(server: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    screen = tmp_path / "screen.png"
    screen.write_bytes(screenshot())
    status, out, err = run("ask", "Tap the red button", "--image", str(screen), "--json", capsys=capsys)
    assert (status, err) == (0, "")
    reply = json.loads(out)
    assert reply["model"] == MODEL
    assert reply["reasoning"] == "The red button is on the screen. I tap it."
    assert reply["text"].startswith('do(action="Tap", element=[')
    assert reply["usage"]["completion_tokens"] > 0
    assert reply["finish_reason"] == "stop"
