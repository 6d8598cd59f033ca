"""Servers of the fake engine: how tests start them, on real sockets, with real processes, and what they may leave."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server_stub.command import Command
from server_stub.engines import Engine
from server_stub.options import ServeOptions
from server_stub.process import Server
from server_stub.supervisor.records import running

from .engine.leftovers import is_free

FAKE = Path(__file__).with_name("fake_engine.py")

MakeServer = Callable[..., Server]


def fake(*behaviour: str) -> Engine:
    """An engine of this behaviour; ``extra`` options add to it."""

    def command(options: ServeOptions, python: Path) -> Command:
        environment = {"VLLM_API_KEY": options.api_key} if options.api_key else {}
        return Command((str(python), str(FAKE), str(options.port), *behaviour, *options.extra), environment)

    return Engine(title="Fake", module="json", distributions=(), install="", command=command)


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Records and scratch folders of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as short:  # a longer name is not used for sockets
        (tmp_path / "scratch").symlink_to(short)
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield
    monkeypatch.delenv("VLLM_API_KEY", raising=False)


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    made: list[Server] = []

    def make(*behaviour: str, **settings: Any) -> Server:
        ours: dict[str, Any] = {"python": sys.executable, "force": True, "timeout": 30.0, "port": 0}
        made.append(Server(engine=fake(*behaviour), **ours | {"log": tmp_path / "log"} | settings))
        return made[-1]

    yield make
    for server in made:
        server.stop(0)


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def grandchildren(log: Path) -> list[int]:
    return [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("grandchild")]


def engines_on(port: int) -> list[int]:
    """The fake engines that were told to serve on this port."""
    wanted = f"\0{FAKE}\0{port}\0".encode()
    return [int(it.parent.name) for it in Path("/proc").glob("[0-9]*/cmdline") if wanted in quiet_read(it)]


def assert_nothing_left(server: Server, tmp_path: Path) -> None:
    assert is_free(server.options.port)
    assert running() == []
    assert list((tmp_path / "scratch").iterdir()) == []


def quiet_read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
