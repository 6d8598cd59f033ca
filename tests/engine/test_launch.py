"""The launcher as its user types it, with vLLM: from nothing to a tap, and to nothing again."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm_client import AutoGLM, Tap, first_turn, image
from server_stub.screen import Button, draw_screen

from .launching import Launching
from .leftovers import is_free, shared_memory

SIZE = (1080, 2160)


class Commands:
    """Both at once: two are ready within a minute, one alone within 40 seconds."""

    def __init__(self, folder: Path) -> None:
        for name in ("demo", "serve"):
            (folder / name).mkdir()
        self.shared_memory = shared_memory()
        self.demo = Launching(folder / "demo", "autoglm_client", "demo", "--engine", "vllm")
        self.serve = Launching(folder / "serve", "autoglm_client", "serve", "--profile", "tiny", "--port", 0)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    started = Commands(tmp_path_factory.mktemp("launch"))
    yield started
    for command in (started.demo, started.serve):
        command.kill()


def test_the_demo(commands: Commands) -> None:
    assert commands.demo.end() == 0, commands.demo.said
    assert commands.demo.family.living() == []
    assert "real, its model a tiny test model" in commands.demo.said
    tapped = re.search(r"^Pixels    \((\d+), (\d+)\)$", commands.demo.said, re.MULTILINE)
    assert tapped, commands.demo.said
    assert Button("green", 60, 160, 320, 120).holds(*map(int, tapped.groups()))  # as the demo draws it


def test_serve(commands: Commands) -> None:
    base_url = commands.serve.wait_for("ready: ").split()[1]
    button = Button("purple", 500, 1300, 400, 200)
    with AutoGLM(base_url, options={"temperature": 0}) as glm:
        turn = first_turn("Tap the purple button", image(draw_screen(*SIZE, [button])), {"current_app": "Demo"})
        action = glm.chat([turn]).action
    assert isinstance(action, Tap)
    assert button.holds(*action.at(*SIZE))
    launcher_guard_server_core = 4
    assert len(commands.serve.family.living()) >= launcher_guard_server_core

    commands.serve.signal(signal.SIGINT)
    assert (commands.serve.end(), commands.serve.said.splitlines()[-1]) == (0, "stopped")
    assert commands.serve.family.living() == []
    port = re.search(r":(\d+)/", base_url)
    assert port
    assert is_free(int(port[1]))
    commands.demo.end()
    deadline = time.monotonic() + 10  # Python's own tracker removes it, and is the last to end
    while not shared_memory() <= commands.shared_memory and time.monotonic() < deadline:
        time.sleep(0.1)
    assert shared_memory() <= commands.shared_memory
