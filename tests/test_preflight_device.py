"""Is the device large enough: GPUs, their driver and who else uses them, or the memory of a CPU."""

from __future__ import annotations

import inspect
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from server_stub.machine import device, gpus
from server_stub.machine.device import check_device
from server_stub.machine.gpus import memory_of_gpus
from server_stub.memory import estimate
from server_stub.options import ServeOptions

from .machines import (
    CPU_BUILD,
    ERRORS,
    GIB,
    ON_CPU,
    ON_GPU,
    FakeNvml,
    Machine,
    environment,
    failed,
    gpu,
    lend_gpus,
    only,
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Give this machine GPUs."""
    return partial(lend_gpus, monkeypatch)


def test_the_fake_has_what_the_library_has() -> None:
    real = pytest.importorskip("pynvml")
    for name in (name for name in vars(FakeNvml) if name.startswith("nvml")):
        theirs, ours = (inspect.signature(getattr(each, name)) for each in (real, FakeNvml()))
        assert [*theirs.parameters] == [*ours.parameters], name
    for name in ERRORS:
        assert issubclass(getattr(real, f"NVMLError_{name}"), real.NVMLError)


def test_enough_gpus(machine: Machine) -> None:
    nvml = machine(gpu(44.5, 44.0))
    states = [(each.name, each.state) for each in check_device(ON_GPU, environment())]
    assert states == [("GPUs", "ok"), ("driver", "ok"), ("GPU 0", "ok")]
    assert nvml.sessions == 0, "the library is left as it was found"
    assert memory_of_gpus() == [44.5]


def test_the_real_library_of_this_machine_is_understood() -> None:
    pytest.importorskip("pynvml")
    names = [each.name for each in check_device(ON_GPU, environment())]
    assert names[0] == "GPUs"


@pytest.mark.parametrize("reason", ["LibraryNotFound", "DriverNotLoaded"])
def test_no_driver(reason: str, machine: Machine) -> None:
    machine(refuses=reason)
    finding = failed(check_device(ON_GPU, environment()))
    assert finding.detail == "this machine has no NVIDIA GPU, or no driver for it"
    assert finding.remedy == "--profile tiny serves a tiny model on the CPU"
    assert memory_of_gpus() == []


@pytest.mark.parametrize(
    ("reason", "said", "remedy"),
    [
        ("LibRmVersionMismatch", "was updated, and the old one is still loaded", "restart this machine"),
        ("Unknown", "the NVIDIA driver does not answer: Unknown", "nvidia-smi tells more; or --profile tiny"),
    ],
)
def test_a_driver_that_does_not_work(reason: str, said: str, remedy: str, machine: Machine) -> None:
    machine(refuses=reason)
    finding = failed(check_device(ON_GPU, environment()))
    assert said in finding.detail
    assert finding.remedy == remedy


def test_the_library_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # how Python marks what cannot be imported
    monkeypatch.setattr(gpus, "DRIVER_FILES", (tmp_path / "version",))
    assert "no NVIDIA GPU" in failed(check_device(ON_GPU, environment())).detail
    (tmp_path / "version").touch()
    finding = only(check_device(ON_GPU, environment()))
    assert (finding.state, finding.remedy) == ("note", "pip install nvidia-ml-py")


def test_memory_that_the_driver_does_not_tell(machine: Machine) -> None:
    machine(gpu(None))
    finding = only(check_device(ON_GPU, environment()))
    assert (finding.state, finding.detail) == ("note", "the NVIDIA driver refuses to tell: Not Supported")


def test_too_few_gpus(machine: Machine) -> None:
    machine(gpu(80, 79))
    finding = failed(check_device(ServeOptions(tensor_parallel=2), environment()))
    assert (finding.detail, finding.remedy) == ("1 (NVIDIA L40S), 2 wanted", "--tensor-parallel 1")


def test_other_nodes_bring_their_own_gpus(machine: Machine) -> None:
    machine(gpu(80, 79))
    options = ServeOptions(tensor_parallel=2, nodes=2)
    assert [each.state for each in check_device(options, environment())] == ["ok"] * 3


@pytest.mark.parametrize(
    ("named", "numbers"),
    [("1", ["1"]), (" 1 ,0", ["1", "0"]), ("0,7,1", ["0"]), ("GPU-b", ["GPU-b"]), ("-1", []), ("", [])],
)
def test_cuda_visible_devices(
    named: str, numbers: list[str], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(gpu(80, 79, uuid="GPU-a"), gpu(80, 79, uuid="GPU-b"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [gpu.number for gpu in gpus.read_gpus().gpus] == numbers
    if not numbers:
        finding = failed(check_device(ON_GPU, environment()))
        assert finding.detail == "none that CUDA_VISIBLE_DEVICES leaves visible, 1 wanted"
        assert finding.remedy.startswith("unset CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("supported", "built", "state", "remedy"),
    [
        (13000, "13.0", "ok", ""),
        (13010, "12.9", "ok", ""),
        (12080, "12.9", "note", "update the driver"),
        (12080, "13.0", "FAIL", "a driver for CUDA 13.0 (nvidia.com/drivers), or a vLLM built for 12.x"),
    ],
)
def test_the_driver_against_the_build(supported: int, built: str, state: str, remedy: str, machine: Machine) -> None:
    machine(gpu(80, 79), cuda=supported)
    (finding,) = (each for each in check_device(ON_GPU, environment(cuda=built)) if each.name == "driver")
    assert finding.state == state
    assert remedy in finding.remedy
    said = (
        f"driver 580.65.06 for CUDA {supported // 1000}.{supported % 1000 // 10}, the engine is built for CUDA {built}"
    )
    assert finding.detail == said


def test_a_gpu_that_others_use(machine: Machine) -> None:
    machine(gpu(44.5, 10, (4242, 30.0), (99, None)))
    finding = failed(check_device(ON_GPU, environment()))
    assert finding.name == "GPU 0"
    assert finding.detail.startswith("NVIDIA L40S: 10.0 of 44.5 GiB free, ")
    assert finding.detail.endswith("needed, taken by pid 4242 (python3, 30.0 GiB), pid 99 (unknown)")
    assert finding.remedy == "kill 4242 99, or --profile tiny"


def test_a_gpu_that_nobody_seems_to_use(machine: Machine) -> None:
    machine(gpu(44.5, 10))
    assert failed(check_device(ON_GPU, environment())).remedy.startswith("nvidia-smi shows who takes it")


def test_another_gpu_is_free(machine: Machine) -> None:
    machine(gpu(44.5, 10, (4242, 30.0)), gpu(44.5, 44))
    assert failed(check_device(ON_GPU, environment())).remedy == "export CUDA_VISIBLE_DEVICES=1"


def test_gpus_that_are_too_small(machine: Machine) -> None:
    machine(gpu(16, 16))
    assert failed(check_device(ON_GPU, environment())).remedy.startswith("a smaller --context, --quantization fp8")
    machine(gpu(22.5, 22.5), gpu(22.5, 22.5))
    big = ServeOptions(context=80_000)
    assert failed(check_device(big, environment())).remedy == "--profile 2x24gb"


def test_less_free_than_the_share(machine: Machine) -> None:
    machine(gpu(80, 60, (4242, 20.0)))
    finding = failed(check_device(ON_GPU, environment()))
    assert "the engine takes 92% of the whole, 73.6 GiB, and not less" in finding.detail
    assert finding.remedy == "--gpu-memory 0.75"
    assert [each.state for each in check_device(ON_GPU.with_(gpu_memory=0.75), environment())] == ["ok"] * 3
    transformers = ON_GPU.with_(engine="transformers")  # takes what it needs
    assert [each.state for each in check_device(transformers, environment())] == ["ok"] * 3


def test_a_share_that_is_too_small(machine: Machine) -> None:
    machine(gpu(80, 79))
    finding = failed(check_device(ON_GPU.with_(gpu_memory=0.1), environment()))
    share = float(finding.remedy.removeprefix("--gpu-memory "))
    states = [each.state for each in check_device(ON_GPU.with_(gpu_memory=share), environment())]
    assert "FAIL" not in states


def test_room_for_one_sequence_but_not_for_all(machine: Machine) -> None:
    machine(gpu(44.5, 44))
    many = ON_GPU.with_(max_sequences=500)
    (finding,) = (each for each in check_device(many, environment()) if each.name == "GPU 0")
    assert finding.state == "note"
    assert finding.remedy == "with fewer --max-sequences than 500 none waits for another"


# The CPU


def test_memory_for_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    options = ON_CPU.with_(model=str(tmp_path))
    monkeypatch.setattr(device, "free_memory", lambda: 100.0)
    assert only(check_device(options, environment(CPU_BUILD))).state == "ok"
    monkeypatch.setattr(device, "free_memory", lambda: 0.5)
    finding = failed(check_device(options, environment(CPU_BUILD)))
    assert finding.detail.startswith("0.5 GiB free, about ")
    assert finding.remedy == "end other programs: top -o %MEM shows the largest"
    monkeypatch.setattr(device, "free_memory", lambda: None)
    assert only(check_device(options, environment(CPU_BUILD))).state == "note"


def test_memory_for_every_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    options = ON_CPU.with_(model=str(tmp_path))
    monkeypatch.setattr(device, "free_memory", lambda: 1.5 * estimate(options).total)
    states = [only(check_device(options.with_(replicas=count), environment())).state for count in (1, 2)]
    assert states == ["ok", "FAIL"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_free_memory_of_this_machine() -> None:
    free = device.free_memory()
    assert free is not None
    assert 0 < free < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
