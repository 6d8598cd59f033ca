"""What is left when a launcher, its guard or its server ends, however it ends: no process, no file, no false record."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server_stub.errors import EngineFailed, ServeError
from server_stub.supervisor.records import Record, running, start_of

from . import fake_servers
from .engine.leftovers import is_free
from .fake_servers import MakeServer, assert_nothing_left, engines_on, eventually, grandchildren

ROOT = Path(__file__).parent.parent

own_state, make_server = fake_servers.own_state, fake_servers.make_server  # fixtures hold where they are named

LAUNCHER = """
    import signal, sys
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from tests.fake_servers import fake
    from server_stub.process import Server
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    server = Server(engine=fake(*{behaviour!r}), python=sys.executable, force=True, port={port}, log=Path({log!r}))
    {then}
"""


class Launcher:
    """A Python program that starts a server, and what it left."""

    def __init__(self, tmp_path: Path, *behaviour: str, then: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.log = tmp_path / "log"
        code = textwrap.dedent(LAUNCHER).format(
            root=str(ROOT), behaviour=behaviour, port=self.port, log=str(self.log), then=then
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def has_said(self, words: str) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        return self.log.exists() and words in self.log.read_text()

    def end(self, number: int) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors

    def left(self) -> list[int]:
        return [*filter(start_of, grandchildren(self.log)), *engines_on(self.port)]


Launch = Callable[..., Launcher]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    made: list[Launcher] = []

    def make(*behaviour: str, then: str) -> Launcher:
        made.append(Launcher(tmp_path, *behaviour, then=then))
        return made[-1]

    yield make
    for launcher in made:
        launcher.process.kill()
        launcher.process.communicate()
        eventually(lambda it=launcher: not it.left())  # type: ignore[misc]


SERVE = "with server: server.wait_for_exit()"


def test_a_killed_launcher_leaves_no_engine(launch: Launch, tmp_path: Path) -> None:
    launcher = launch("forks-stubborn", then=SERVE)
    eventually(lambda: launcher.has_said("startup complete"))
    launcher.end(signal.SIGKILL)
    eventually(lambda: not launcher.left() and is_free(launcher.port))
    eventually(lambda: running() == [] and not list((tmp_path / "scratch").iterdir()))


def test_ctrl_c_while_loading(launch: Launch, tmp_path: Path) -> None:
    launcher = launch("forks", "hangs", then=SERVE)
    eventually(lambda: launcher.has_said("KV cache size"))
    code, errors = launcher.end(signal.SIGINT)
    assert (code, errors.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt")
    assert (launcher.left(), is_free(launcher.port), running()) == ([], True, [])
    assert list((tmp_path / "scratch").iterdir()) == []


def test_stop_in_a_signal_handler(launch: Launch) -> None:
    stop = "signal.signal(signal.SIGTERM, lambda *_: server.stop()); "
    launcher = launch(then=f"{stop}server.start(); server.wait(); server.wait_for_exit()")
    eventually(lambda: launcher.has_said("startup complete"))
    eventually(lambda: running() != [])
    code, errors = launcher.end(signal.SIGTERM)
    assert code in (0, 1)  # 1 if the signal came before it was ready: then `wait` says so
    assert code == 0 or "The server was stopped" in errors
    assert launcher.left() == []


def test_a_program_that_just_ends(launch: Launch) -> None:
    launcher = launch(then="server.start(); server.wait()")
    assert launcher.process.wait(30) == 0
    assert (launcher.left(), is_free(launcher.port)) == ([], True)


def test_a_forked_child_is_no_owner(launch: Launch) -> None:
    fork = "server.start(); server.wait(); import os, time; pid = os.fork(); "
    launcher = launch(
        then=f"{fork}pid or sys.exit(); os.waitpid(pid, 0); server.poll() or sys.exit(7); time.sleep(600)"
    )
    eventually(lambda: launcher.has_said("startup complete"))
    eventually(running)
    (record,) = running()
    # The child has ended, and its end has stopped nothing: the launcher still serves.
    assert record.is_running
    launcher.end(signal.SIGKILL)
    eventually(lambda: not launcher.left())


def test_a_child_that_lives_on_does_not_keep_the_engine(launch: Launch) -> None:
    fork = "server.start(); server.wait(); import os, time; os.fork() or os.close(2) or os.close(1); time.sleep(8)"
    launcher = launch(then=fork)
    eventually(lambda: launcher.has_said("startup complete"))
    launcher.end(signal.SIGKILL)
    eventually(lambda: not launcher.left(), 5.0)


def test_a_killed_guard_takes_the_engine_along(make_server: MakeServer, tmp_path: Path) -> None:
    with make_server() as server:
        (record,) = running()
        os.kill(record.pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match="nobody knows how"):
            server.wait_for_exit()
    eventually(lambda: is_free(server.options.port))
    assert_nothing_left(server, tmp_path)


def test_a_killed_guard_takes_other_sessions_along(make_server: MakeServer) -> None:
    with make_server("forks-stubborn") as server:
        left = grandchildren(server.log)
        os.kill(running()[0].pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match="nobody knows how"):
            server.wait_for_exit()
    eventually(lambda: not any(map(start_of, left)))


def test_a_stop_right_after_the_start_is_heard(make_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("server_stub.supervisor.guarded.Guarded._begin", interrupt)
    server = make_server("ignores-sigterm", "hangs")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert time.monotonic() - began < 8  # not the 10 s after which the guard itself is killed
    assert engines_on(server.options.port) == []


def test_a_record_stops_its_server(make_server: MakeServer, tmp_path: Path) -> None:
    with make_server() as server:
        (record,) = running()
        record.stop()
        assert is_free(server.options.port)
        assert not server.poll()
        server.wait_for_exit()
    assert_nothing_left(server, tmp_path)


def test_a_reused_number_is_not_signalled() -> None:
    record = Record(pid=os.getpid(), started="long ago", url="", model="", engine="", log="")
    record.write()
    record.stop()  # would end these tests
    record.write()
    assert running() == []


def test_a_record_of_another_version_is_dropped() -> None:
    Record(pid=os.getpid(), started=start_of(os.getpid()) or "", url="", model="", engine="", log="").write()
    (mine,) = running()
    mine._path.write_text("{}")
    assert running() == []
    assert not mine._path.exists()


@pytest.mark.parametrize(
    "written", ['{"pid": -7, "started": null, "url": "", "model": "", "engine": "", "log": ""}', None]
)
def test_a_record_that_makes_no_sense_is_nobody(written: str | None) -> None:
    Record(pid=1, started="long ago", url="", model="", engine="", log="").write()
    path = Record(pid=1, started="", url="", model="", engine="", log="")._path
    path.unlink()
    if written is None:
        path.mkdir()  # cannot be read, nor removed as a file
    else:
        path.write_text(written)
    assert running() == []


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr("pathlib.Path.home", nobody)
    with pytest.raises(ServeError, match="set HOME or XDG_STATE_HOME"):
        running()
