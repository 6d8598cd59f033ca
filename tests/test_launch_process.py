"""The launcher against an engine of a few lines: on real sockets, with real processes and signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoglm_client.errors import AutoGLMError
from server_stub.command import Command
from server_stub.engines import Engine
from server_stub.errors import EngineFailed, NotReady, PreflightFailed, ServeError
from server_stub.options import ServeOptions
from server_stub.process import Server, engine_python
from server_stub.supervisor.records import Record, running, start_of

ROOT = Path(__file__).parent.parent
FAKE = Path(__file__).with_name("fake_engine.py")
KEY = 'sk-a-"key"-that-nobody-may-see'


def fake(*behaviour: str) -> Engine:
    """An engine of this behaviour; ``extra`` options add to it."""

    def command(options: ServeOptions, python: Path) -> Command:
        environment = {"VLLM_API_KEY": options.api_key} if options.api_key else {}
        return Command((str(python), str(FAKE), str(options.port), *behaviour, *options.extra), environment)

    return Engine(title="Fake", module="json", distributions=(), install="", command=command)


MakeServer = Callable[..., Server]


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def grandchildren(log: Path) -> list[int]:
    return [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("grandchild")]


def assert_nothing_left(server: Server, tmp_path: Path) -> None:
    assert is_free(server.options.port)
    assert running() == []
    assert list((tmp_path / "scratch").iterdir()) == []


def test_it_starts_answers_and_leaves_nothing(make_server: MakeServer, tmp_path: Path) -> None:
    said: list[str] = []
    with make_server("forks-stubborn", "late", report=said.append) as server:
        assert server.options.port != 0
        with server.client() as glm:
            assert glm.chat("Hi").text == "Hello"
            assert glm.model == "autoglm-phone-9b"
        (record,) = running()
        assert (record.url, record.engine, record.log) == (server.base_url, "Fake", str(server.log))
        left = grandchildren(server.log)
        assert len(left) == 2
        assert all(map(start_of, left))
        assert len(list((tmp_path / "scratch").iterdir())) == 1
        server.stop(0.2)
        server.stop()
    assert not any(map(start_of, left))
    assert_nothing_left(server, tmp_path)
    assert said[:4] == [
        "starting the engine's processes",
        "loading weights",
        "loading weights: 0 of 5 shards, 0 s",
        "loading weights: 2 of 5 shards, 12 s",
    ]
    assert said[-2:] == ["memory for 1,048,576 tokens of cache", "serving"]


async def test_there_is_an_async_client(make_server: MakeServer) -> None:
    with make_server() as server:
        async with server.async_client() as glm:
            assert (await glm.chat("Hi")).text == "Hello"


def test_a_server_can_be_started_again(make_server: MakeServer) -> None:
    server = make_server()
    for _ in range(2):
        with server, pytest.raises(ServeError, match="runs already"):
            server.start()


def test_an_engine_that_dies_is_explained(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server("dies")
    with (
        pytest.raises(EngineFailed, match=r"Fake ended with exit code 3 .*The GPU ran out of memory\. Try") as caught,
        server,
    ):
        pass
    assert caught.value.exit_code == 3
    assert caught.value.log_tail.endswith("See root cause above. Failed core proc(s): {}")
    assert caught.value.log_tail in caught.value.__notes__[0]
    assert_nothing_left(server, tmp_path)


def test_an_engine_that_ends_without_a_word(make_server: MakeServer) -> None:
    with (
        pytest.raises(EngineFailed, match=r"exit code 0 before .*The last it said: \(EngineCore") as caught,
        make_server("dies-quietly"),
    ):
        pass
    assert caught.value.exit_code == 0
    assert "GPU KV cache size" in caught.value.log_tail


def test_an_engine_that_hangs_is_stopped(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server("hangs", timeout=1.0)
    with (
        pytest.raises(
            NotReady, match=r"did not answer within 1 s .*the last stage: memory for 1,048,576 tokens"
        ) as caught,
        server,
    ):
        pass
    assert caught.value.exit_code is None
    assert_nothing_left(server, tmp_path)


def test_silence_is_no_standstill(make_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_stub.supervisor.watch.QUIET_SECONDS", 0.3)
    said: list[str] = []
    with pytest.raises(NotReady), make_server("hangs", timeout=1.0, report=said.append):
        pass
    assert "memory for 1,048,576 tokens of cache (1 s since the start)" in said


@pytest.mark.parametrize("behaviour", ["unhealthy", "hangs-at-first"])
def test_healthy_is_not_ready(make_server: MakeServer, behaviour: str) -> None:
    with pytest.raises(NotReady), make_server(behaviour, timeout=1.0):
        pass


def test_an_engine_that_dies_of_the_first_request(make_server: MakeServer) -> None:
    with pytest.raises(EngineFailed, match=r"exit code 1 .*head sizes below 32"), make_server("dies-at-first"):
        pass


def test_an_engine_that_refuses_the_first_request(make_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server_stub.process.DYING_SECONDS", 0.1)
    with (
        pytest.raises(EngineFailed, match=r"is up, but could not generate one token: 500 .*EngineCore"),
        make_server("fails-first"),
    ):
        pass


def test_an_engine_that_is_killed_while_serving(make_server: MakeServer, tmp_path: Path) -> None:
    with make_server("forks") as server:
        assert server.poll()
        (engine,) = engines_on(server.options.port)
        os.kill(engine, signal.SIGKILL)
        with pytest.raises(
            EngineFailed, match=r"killed by signal 9 \(Killed\) while serving\. .*want of memory"
        ) as caught:
            server.wait_for_exit()
    assert caught.value.exit_code == -9
    assert not any(map(start_of, grandchildren(server.log)))
    assert_nothing_left(server, tmp_path)


def test_an_engine_that_crashes_while_serving(make_server: MakeServer) -> None:
    with make_server() as server, server.client(max_attempts=1) as glm:
        with pytest.raises(AutoGLMError):
            glm.chat("die")
        with pytest.raises(EngineFailed, match=r"killed by signal 11 \(Segmentation fault\) while serving"):
            server.wait_for_exit()


def test_an_engine_that_ignores_sigterm_is_killed(make_server: MakeServer, tmp_path: Path) -> None:
    with make_server("ignores-sigterm") as server:
        began = time.monotonic()
        server.stop(0.3)
        assert 0.3 < time.monotonic() - began < 10
    assert_nothing_left(server, tmp_path)


def test_a_port_that_is_taken(make_server: MakeServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PreflightFailed, match=rf"127\.0\.0\.1:{port} cannot be listened on .*port=0"):
            make_server(port=port).start()


def test_the_machine_is_looked_at_first(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(force=False, model=str(tmp_path / "nothing"), device="cpu")
    with pytest.raises(PreflightFailed, match="nothing"):
        server.start()
    assert not server.log.exists()


def test_an_interpreter_that_is_not_there(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(python="/nowhere/python")
    with pytest.raises(ServeError, match=r"Cannot start /nowhere/python: .*No such file"):
        server.start()
    assert_nothing_left(server, tmp_path)


def test_the_log_cannot_be_written(make_server: MakeServer) -> None:
    with pytest.raises(ServeError, match=r"No log can be written.*log="):
        make_server(log=Path("/proc/nowhere/log")).start()


def test_the_key_is_told_to_nobody(make_server: MakeServer, tmp_path: Path) -> None:
    with make_server("tells-key", api_key=KEY) as server:
        (record,) = (tmp_path / "state" / "autoglm").glob("*.json")
        assert KEY not in record.read_text() + repr(server.options) + str(server.command) + repr(server.command)
        assert record.stat().st_mode & 0o777 == server.log.stat().st_mode & 0o777 == 0o600
        assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if KEY.encode() in quiet_read(path)]
        with server.client() as glm:
            assert glm.chat("Hi").text == "Hello"
    log = server.log.read_text()
    assert 'the key is ***, or in JSON: {"key": "***"}\n' in log
    assert "in two pieces: ***\n" in log
    assert "nobody-may-see" not in log


def test_a_key_is_made_for_the_network() -> None:
    assert len(Server(host="0.0.0.0").api_key or "") >= 32
    assert Server(host="0.0.0.0").api_key != Server(host="0.0.0.0").api_key
    assert Server(host="0.0.0.0", api_key=KEY).api_key == KEY
    assert Server().api_key is None


def test_the_key_that_the_engine_would_demand_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    assert Server().api_key == KEY
    assert Server(api_key="other").api_key == "other"
    assert Server(ServeOptions(engine="sglang")).api_key is None  # it would refuse one


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/v1"),
        ("0.0.0.0", "http://127.0.0.1:8000/v1"),
        ("::", "http://[::1]:8000/v1"),
        ("::1", "http://[::1]:8000/v1"),
        ("gpu.example", "http://gpu.example:8000/v1"),
    ],
)
def test_the_address(host: str, url: str) -> None:
    assert Server(host=host).base_url == url


def test_a_profile_or_options() -> None:
    assert Server(profile="tiny", context=2048).options.context == 2048
    assert Server(ServeOptions(context=512), port=1).options == ServeOptions(context=512, port=1)
    with pytest.raises(ServeError, match="not both"):
        Server(ServeOptions(), profile="tiny")
    with pytest.raises(ServeError, match=r"there are .*tiny"):
        Server(profile="enormous")


def test_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOGLM_ENGINE_PYTHON", raising=False)
    assert engine_python() == Path(sys.executable)
    monkeypatch.setenv("AUTOGLM_ENGINE_PYTHON", "/engine/python")
    assert engine_python() == Path("/engine/python")
    assert engine_python("/mine/python") == Path("/mine/python")


def test_a_flood_in_the_log_is_borne(make_server: MakeServer) -> None:
    with make_server("floods") as server:
        sizes = [path.stat().st_size for path in server.log.parent.glob("log*")]
        assert len(sizes) == 3
        assert all(size <= 10_000_000 for size in sizes)
        server.stop()


# What follows needs a launcher that can be killed: a process of its own.

LAUNCHER = """
    import signal, sys
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from tests.test_launch_process import fake
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


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launcher]]:
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


def test_a_killed_launcher_leaves_no_engine(launch: Callable[..., Launcher], tmp_path: Path) -> None:
    launcher = launch("forks-stubborn", then=SERVE)
    eventually(lambda: launcher.has_said("startup complete"))
    launcher.end(signal.SIGKILL)
    eventually(lambda: not launcher.left() and is_free(launcher.port))
    eventually(lambda: running() == [] and not list((tmp_path / "scratch").iterdir()))


def test_ctrl_c_while_loading(launch: Callable[..., Launcher], tmp_path: Path) -> None:
    launcher = launch("forks", "hangs", then=SERVE)
    eventually(lambda: launcher.has_said("KV cache size"))
    code, errors = launcher.end(signal.SIGINT)
    assert (code, errors.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt")
    assert (launcher.left(), is_free(launcher.port), running()) == ([], True, [])
    assert list((tmp_path / "scratch").iterdir()) == []


def test_stop_in_a_signal_handler(launch: Callable[..., Launcher]) -> None:
    stop = "signal.signal(signal.SIGTERM, lambda *_: server.stop()); "
    launcher = launch(then=f"{stop}server.start(); server.wait(); server.wait_for_exit()")
    eventually(lambda: launcher.has_said("startup complete"))
    eventually(lambda: running() != [])
    code, errors = launcher.end(signal.SIGTERM)
    assert code in (0, 1)  # 1 if the signal came before it was ready: then `wait` says so
    assert code == 0 or "The server was stopped" in errors
    assert launcher.left() == []


def test_a_program_that_just_ends(launch: Callable[..., Launcher]) -> None:
    launcher = launch(then="server.start(); server.wait()")
    assert launcher.process.wait(30) == 0
    assert (launcher.left(), is_free(launcher.port)) == ([], True)


def test_a_forked_child_is_no_owner(launch: Callable[..., Launcher]) -> None:
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


def test_a_child_that_lives_on_does_not_keep_the_engine(launch: Callable[..., Launcher]) -> None:
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


def quiet_read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def engines_on(port: int) -> list[int]:
    """The fake engines that were told to serve on this port."""
    wanted = f"\0{FAKE}\0{port}\0".encode()
    return [int(it.parent.name) for it in Path("/proc").glob("[0-9]*/cmdline") if wanted in quiet_read(it)]


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


def test_a_killed_guard_takes_other_sessions_along(make_server: MakeServer) -> None:
    with make_server("forks-stubborn") as server:
        left = grandchildren(server.log)
        os.kill(running()[0].pid, signal.SIGKILL)
        with pytest.raises(EngineFailed, match="nobody knows how"):
            server.wait_for_exit()
    eventually(lambda: not any(map(start_of, left)))


def test_a_running_server_survives_a_second_with(make_server: MakeServer) -> None:
    with make_server() as server:
        with pytest.raises(ServeError, match="runs already"), server:
            pass
        assert server.poll()


def test_an_address_belongs_to_the_one_that_still_loads(make_server: MakeServer) -> None:
    first = make_server("hangs").start()
    with pytest.raises(PreflightFailed, match="another server's that still starts"):
        make_server(port=first.options.port).start()
    assert first.poll()


def test_only_a_file_becomes_the_log(make_server: MakeServer, tmp_path: Path) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    with pytest.raises(ServeError, match="precious is no file"):
        make_server(log=folder).start()
    assert folder.is_dir()


def test_the_log_stays_where_it_is_when_the_program_moves(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    server = make_server("dies", log=Path("relative.log")).start()
    monkeypatch.chdir("/")
    with pytest.raises(EngineFailed, match="ran out of memory"):
        server.wait()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert make_server(log=Path("~/log")).log == tmp_path / "log"


@pytest.mark.parametrize("timeout", [-1.0, 0.0, float("inf"), float("nan"), 1e12])
def test_a_timeout_is_a_number_of_seconds(timeout: float) -> None:
    with pytest.raises(ServeError, match="seconds, more than 0"):
        Server(profile="tiny", timeout=timeout)


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-secret key", "sk-secret-中"])
def test_a_key_that_no_header_holds_is_refused_without_telling_it(key: str) -> None:
    with pytest.raises(ServeError, match="visible ASCII") as caught:
        Server(profile="tiny", api_key=key)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("word", ["--host", "--port=9000", "--api-key", "--api_key=sk-secret"])
def test_the_engine_is_not_told_behind_the_launcher(word: str) -> None:
    with pytest.raises(ServeError, match="cannot be given to the engine itself") as caught:
        ServeOptions(extra=(word, "x"))
    assert "secret" not in str(caught.value)


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


def test_sockets_find_room_however_long_the_temporary_folder(
    make_server: MakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 15)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    with make_server() as server:
        (engine,) = engines_on(server.options.port)
        said = Path(f"/proc/{engine}/environ").read_bytes().split(b"\0")
        (scratch,) = [Path(line.decode().partition("=")[2]) for line in said if line.startswith(b"TMPDIR=")]
        assert len(f"{scratch}/2e50644a-736b-4c6e-8a8b-b6c4e73f61eb") <= 107
    assert not scratch.exists()
