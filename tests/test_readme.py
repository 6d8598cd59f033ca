"""Every code block of the README and every example is run."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server_stub import ScriptedServer
from server_stub.screen import Button, draw_screen

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.+?)\n```", README, re.S)
SHELL = re.findall(r"```bash\n(.+?)\n```", README, re.S)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ScriptedServer) -> Path:
    """A folder with a screenshot in it, and a server that the environment names."""
    (tmp_path / "screen.png").write_bytes(draw_screen(1080, 2160, [Button("green", 60, 160, 320, 120)]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOGLM_BASE_URL", server.base_url)
    return tmp_path


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.splitlines()[-1][:40])
def test_python_blocks(block: str, place: Path) -> None:
    (place / "block.py").write_text(block)
    runpy.run_path(str(place / "block.py"), run_name="__main__")


def test_the_first_block_says_what_it_prints(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(PYTHON[0], {})
    assert 'do(action="Tap", element=[93, 93])' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "arguments", "output"),
    [
        ("ask.py", [], 'do(action="Launch", app="Maps")'),
        ("many_at_once.py", [], 'Open Camera: do(action="Launch", app="Camera")'),
        ("phone_step.py", ["screen.png", "Tap the green button"], "adb shell input tap 100 201"),
    ],
)
def test_examples(name: str, arguments: list[str], output: str, place: Path) -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert output in run.stdout


def test_every_example_is_tested() -> None:
    here = {path.name for path in (ROOT / "examples").glob("*.py") if not path.name.startswith("langchain_")}
    assert here == {"ask.py", "many_at_once.py", "phone_step.py"}


def test_the_first_command_on_a_fresh_clone(tmp_path: Path) -> None:
    """What a new user types: it makes its own environment, without what the tests need."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    run = subprocess.run(
        ["bash", "-c", SHELL[0]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert 'do(action="Tap", element=[93, 93])' in run.stdout
