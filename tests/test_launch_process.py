"""The launcher against an engine of a few lines: how it starts, what can fail, and which options it takes."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from autoglm_client.errors import AutoGLMError
from server_stub.errors import EngineFailed, NotReady, PreflightFailed, ServeError
from server_stub.options import ServeOptions
from server_stub.process import Server, engine_python
from server_stub.supervisor.records import running, start_of

from . import fake_servers
from .fake_servers import MakeServer, assert_nothing_left, engines_on, grandchildren, quiet_read

KEY = 'sk-a-"key"-that-nobody-may-see'

own_state, make_server = fake_servers.own_state, fake_servers.make_server  # fixtures hold where they are named


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


def test_a_running_server_survives_a_second_with(make_server: MakeServer) -> None:
    with make_server() as server:
        with pytest.raises(ServeError, match="runs already"), server:
            pass
        assert server.poll()


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


def test_an_address_belongs_to_the_one_that_still_loads(make_server: MakeServer) -> None:
    first = make_server("hangs").start()
    with pytest.raises(PreflightFailed, match="another server's that still starts"):
        make_server(port=first.options.port).start()
    assert first.poll()


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


def test_a_flood_in_the_log_is_borne(make_server: MakeServer) -> None:
    with make_server("floods") as server:
        sizes = [path.stat().st_size for path in server.log.parent.glob("log*")]
        assert len(sizes) == 3
        assert all(size <= 10_000_000 for size in sizes)
        server.stop()


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


@pytest.mark.parametrize("key", ["sk-secret\n", "sk-secret key", "sk-secret-中"])
def test_a_key_that_no_header_holds_is_refused_without_telling_it(key: str) -> None:
    with pytest.raises(ServeError, match="visible ASCII") as caught:
        Server(profile="tiny", api_key=key)
    assert "secret" not in str(caught.value)


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


@pytest.mark.parametrize("timeout", [-1.0, 0.0, float("inf"), float("nan"), 1e12])
def test_a_timeout_is_a_number_of_seconds(timeout: float) -> None:
    with pytest.raises(ServeError, match="seconds, more than 0"):
        Server(profile="tiny", timeout=timeout)


@pytest.mark.parametrize("word", ["--host", "--port=9000", "--api-key", "--api_key=sk-secret"])
def test_the_engine_is_not_told_behind_the_launcher(word: str) -> None:
    with pytest.raises(ServeError, match="cannot be given to the engine itself") as caught:
        ServeOptions(extra=(word, "x"))
    assert "secret" not in str(caught.value)
