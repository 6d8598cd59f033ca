"""The launcher's command line, with an engine that is a script: what it prints, and its exit status."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server_stub.supervisor.address import free_port

ROOT = Path(__file__).parent.parent
FAKE = Path(__file__).with_name("fake_engine.py")

READY = "ready: http"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("AUTOGLM_API_KEY", "VLLM_API_KEY", "AUTOGLM_ENGINE_PYTHON"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def port() -> int:
    return free_port("127.0.0.1", 0)


@pytest.fixture
def python(tmp_path: Path, port: int) -> Path:
    """An interpreter that runs the fake engine, whatever it is told to; $BEHAVIOUR says how."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" {port} $BEHAVIOUR\n')
    path.chmod(0o755)
    return path


def serve(*options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server_stub", *map(str, options)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


class Serving:
    """A launcher in the background; ``wait_for`` reads what it says."""

    def __init__(self, *options: object, **environment: str) -> None:
        command = [sys.executable, "-m", "server_stub", "--profile", "tiny", "--force", *map(str, options)]
        environment = os.environ | environment
        environment.pop("PYTHONUNBUFFERED", None)  # most have it not
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        self._alarm = threading.Timer(40, self.process.kill)  # a test that waits for nothing ends
        self._alarm.start()

    def wait_for(self, text: str) -> str:
        assert self.process.stderr
        for line in self.process.stderr:
            if text in line:
                return line
        raise AssertionError(f"{text!r} was never said")

    def end(self) -> tuple[int, str]:
        assert self.process.stderr
        with self.process.stderr:
            rest = self.process.stderr.read()
        self._alarm.cancel()
        return self.process.wait(30), rest


@pytest.fixture
def serving(python: Path, port: int) -> Iterator[Serving]:
    it = Serving("--port", port, "--python", python)
    yield it
    it.process.kill()
    it.process.wait(30)


def test_a_dry_run_prints_one_command_and_starts_nothing() -> None:
    done = serve("--profile", "2x24gb", "--dry-run", "--context", 8000, "--", "--seed", 7)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert "--tensor-parallel-size 2" in done.stdout
    assert "--max-model-len 8000" in done.stdout
    assert done.stdout.endswith("--seed 7\n")


def test_the_environment_is_shown_without_the_key() -> None:
    done = serve("--profile", "tiny", "--env", AUTOGLM_API_KEY="sk-secret")
    assert done.returncode == 0
    assert "VLLM_CPU_KVCACHE_SPACE=1\n" in done.stdout
    assert "VLLM_API_KEY=***\n" in done.stdout
    assert "sk-secret" not in done.stdout + done.stderr


def test_options_that_are_false_or_zero_are_not_lost() -> None:
    done = serve("--profile", "tiny", "--dry-run", "--port", 0, "--no-prefix-caching")
    assert "--port 0 " in done.stdout
    assert "--no-enable-prefix-caching" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--profile", "tiny", "--context", 0), "context=0: at least 1"),
        (("tiny",), "'tiny' is no option; a profile is named by --profile"),
        (("--profile", "tiny", "--engine", "sglang", "--host", "0.0.0.0", "--dry-run"), "SGLang"),
        (("--profile", "tiny", "--python", "/no/python"), "/no/python"),
    ],
)
def test_what_cannot_be_served_is_said_with_status_1(options: tuple[object, ...], said: str) -> None:
    done = serve(*options)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_check_prints_the_table_and_fails_when_something_is_missing(tmp_path: Path) -> None:
    done = serve("--profile", "tiny", "--check", "--model", tmp_path, "--port", 0)
    assert done.returncode == 1
    assert f"FAIL  weights        {tmp_path}" in done.stdout
    assert "\n                     -> " in done.stdout


def test_a_missing_thing_stops_the_start(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        done = serve("--profile", "tiny", "--port", port)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_when_it_is_ready_and_stops_on_a_signal(serving: Serving, port: int, number: signal.Signals) -> None:
    assert f"http://127.0.0.1:{port}/v1" in serving.wait_for(READY)
    serving.process.send_signal(number)
    status, said = serving.end()
    assert (status, said.splitlines()[-1]) == (0, "stopped")
    socket.create_server(("127.0.0.1", port)).close()


def test_an_interrupt_while_it_loads_is_status_130(python: Path, port: int) -> None:
    serving = Serving("--port", port, "--python", python, BEHAVIOUR="hangs")
    serving.wait_for("loading weights")
    serving.process.send_signal(signal.SIGINT)
    status, said = serving.end()
    assert (status, said.splitlines()[-1]) == (130, "stopped")


def test_an_engine_that_dies_is_explained_with_status_1(python: Path, port: int) -> None:
    serving = Serving("--port", port, "--python", python, BEHAVIOUR="dies")
    status, said = serving.end()
    assert status == 1
    assert "CUDA out of memory" in said
    assert "Traceback" not in said


def test_status_lists_it_and_stop_stops_it(serving: Serving, port: int) -> None:
    serving.wait_for(READY)
    listed = serve("--status")
    assert (listed.returncode, listed.stdout.count("\n")) == (0, 1)
    assert f"http://127.0.0.1:{port}/v1  autoglm-phone-9b  vLLM" in listed.stdout
    assert serve("--stop", "--port", 1).returncode == 1
    stopped = serve("--stop", "--port", port)
    assert (stopped.returncode, stopped.stdout.startswith("stopped http")) == (0, True)
    assert serving.end()[0] == 0
    assert serve("--status").stdout == "no server runs\n"


def test_a_key_is_made_for_an_address_that_others_reach(python: Path, port: int) -> None:
    serving = Serving("--port", port, "--python", python, "--host", "0.0.0.0")
    serving.wait_for(READY)
    key = serving.wait_for("API key").split()[-1]
    serving.process.terminate()
    assert len(key) == 32
    assert key not in serving.end()[1]


def test_a_key_from_the_environment_is_not_shown(python: Path, port: int) -> None:
    serving = Serving("--port", port, "--python", python, AUTOGLM_API_KEY="sk-secret")
    serving.wait_for(READY)
    serving.process.terminate()
    assert "sk-secret" not in serving.end()[1]


def test_nohup_is_heeded(python: Path, port: int) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it to what it starts
    try:
        serving = Serving("--port", port, "--python", python)
    finally:
        signal.signal(signal.SIGHUP, before)
    serving.wait_for(READY)
    serving.process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        serving.process.wait(1)
    serving.process.terminate()
    assert serving.end()[0] == 0


def test_a_reader_who_has_gone_stops_nothing(python: Path, port: int) -> None:
    serving = Serving("--port", port, "--python", python, BEHAVIOUR="late")
    assert serving.process.stderr
    serving.process.stderr.close()
    try:
        deadline = time.monotonic() + 20
        while f"http://127.0.0.1:{port}/v1" not in serve("--status").stdout:
            assert time.monotonic() < deadline
        time.sleep(1)
        assert serving.process.poll() is None
    finally:
        serving.process.terminate()
        assert serving.process.wait(30) == 0
        serving._alarm.cancel()


def test_one_thing_instead_of_starting() -> None:
    assert serve("--status", "--stop").returncode == 2


def test_a_home_of_nobody_is_no_reason_to_fail() -> None:
    done = serve("--profile", "tiny", "--model", "~nobody-of-this-name/x", "--check", "--port", 0)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "FAIL  weights        ~nobody-of-this-name/x is not there" in done.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_borne(closed: str) -> None:
    main = "import sys; from autoglm_client.cli import main; sys.exit(main())"
    command = f'exec "{sys.executable}" -c "{main}" serve --profile tiny --dry-run {closed}'
    done = subprocess.run(["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
