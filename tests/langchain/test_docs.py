"""Every Python block of docs/langchain.md is run, and says what it says."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.chat_models import base

from server_stub import ScriptedServer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "langchain.md").read_text()
PYTHON = re.findall(r"```python\n(.+?)\n```", TEXT, re.S)


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page speaks of a stock server: tags, and no tool parser."""
    monkeypatch.setattr(base, "_BUILTIN_PROVIDERS", dict(base._BUILTIN_PROVIDERS))
    with ScriptedServer(reasoning="tags", tool_parser=False) as server:
        monkeypatch.setenv("AUTOGLM_BASE_URL", server.base_url)
        yield
    base._get_chat_model_creator.cache_clear()


def run(block: str, folder: Path) -> dict[str, Any]:
    path = folder / "block.py"
    path.write_text(block)
    return runpy.run_path(str(path), run_name="__main__")


SAID = {
    "message = model.invoke": ['do(action="Launch", app="Settings")\nI need the app Settings.'],
    ".stream(": ['I need the app Settings.do(action="Launch", app="Settings")'],
    "count_letters": ["The tool says: 10"],
    "with_structured_output": ["city='Lisbon' passengers=2\nyes\n00:00"],
    "phone_tools": ["{'kind': 'take_over', 'action': 'take_over', 'message': 'Please log in.'}\nfinish("],
    "ActionOutputParser": ["Settings"],
    "with_fallbacks": ['do(action="Launch", app="Settings")'],
    "register()": [""],
}


@pytest.mark.parametrize("mark", SAID)
def test_python_blocks(mark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [block] = [block for block in PYTHON if mark in block]
    run(block, tmp_path)
    printed = capsys.readouterr().out
    for said in SAID[mark]:
        assert said in printed


def test_every_block_is_tested() -> None:
    assert len(PYTHON) == len(SAID)


def test_it_is_short() -> None:
    assert len([line for line in TEXT.splitlines() if not line.startswith("|")]) < 185


def test_what_it_points_to_is_there() -> None:
    for name in re.findall(r"`((?:tests|examples|docs)/[\w./]+\.\w+)`", TEXT):
        assert (ROOT / name).is_file(), name
