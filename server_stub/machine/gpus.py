"""The GPUs of this machine, as NVIDIA's management library tells them: memory, who takes it, driver."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["DRIVER_FILES", "Gpu", "GpusUnknown", "Machine", "Process", "memory_of_gpus", "read_gpus"]

GIB = 1 << 30
DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/dev/dxg"))
"""One of them is there when NVIDIA's driver is loaded: Linux's own, and the one Windows lends to Linux (WSL)."""


class GpusUnknown(Exception):
    """The GPUs cannot be read; the arguments are why and what to do. ``is_certain``: there are none to use."""

    def __init__(self, reason: str, remedy: str, *, is_certain: bool) -> None:
        super().__init__(reason)
        self.remedy = remedy
        self.is_certain = is_certain


@dataclass(frozen=True)
class Process:
    """A process that holds memory of a GPU; ``gib`` is None where the driver does not tell."""

    pid: int
    name: str
    gib: float | None

    def __str__(self) -> str:
        size = "" if self.gib is None else f", {self.gib:.1f} GiB"
        return f"pid {self.pid} ({self.name}{size})"


@dataclass(frozen=True)
class Gpu:
    """One GPU; its ``name`` is the maker's, its number the one of CUDA_VISIBLE_DEVICES."""

    number: str
    name: str
    total_gib: float
    free_gib: float
    processes: tuple[Process, ...]


@dataclass(frozen=True)
class Machine:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves visible, and the driver with the newest CUDA it can run."""

    gpus: tuple[Gpu, ...]
    driver: str
    cuda: tuple[int, int]


def memory_of_gpus() -> list[float]:
    """The memory of each visible GPU in GiB; nothing where there are none or they cannot be read."""
    try:
        return [gpu.total_gib for gpu in read_gpus().gpus]
    except GpusUnknown:
        return []


def read_gpus() -> Machine:
    """Read the GPUs; raises GpusUnknown where there is no library, no driver, or the driver refuses."""
    nvml = _library()
    with _session(nvml):
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()  # 12040 for 12.4
        return Machine(
            gpus=tuple(_gpu(nvml, number, handle) for number, handle in _visible(nvml)),
            driver=nvml.nvmlSystemGetDriverVersion(),
            cuda=(cuda // 1000, cuda % 1000 // 10),
        )


def _library() -> Any:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        if any(file.exists() for file in DRIVER_FILES):
            reason = "there is an NVIDIA driver, but the library to ask it is not installed"
            raise GpusUnknown(reason, "pip install nvidia-ml-py", is_certain=False) from None
        raise _no_driver() from None


def _no_driver() -> GpusUnknown:
    remedy = "--profile tiny serves a tiny model on the CPU"
    return GpusUnknown("this machine has no NVIDIA GPU, or no driver for it", remedy, is_certain=True)


@contextmanager
def _session(nvml: Any) -> Iterator[None]:
    try:
        nvml.nvmlInit()
    except (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded):
        raise _no_driver() from None
    except nvml.NVMLError_LibRmVersionMismatch:
        reason = "the NVIDIA driver was updated, and the old one is still loaded"
        raise GpusUnknown(reason, "restart this machine", is_certain=True) from None
    except nvml.NVMLError as error:
        reason = f"the NVIDIA driver does not answer: {error}"
        raise GpusUnknown(reason, "nvidia-smi tells more; or --profile tiny", is_certain=True) from error
    try:
        yield
    except nvml.NVMLError as error:
        raise GpusUnknown(f"the NVIDIA driver refuses to tell: {error}", "nvidia-smi", is_certain=False) from error
    finally:
        nvml.nvmlShutdown()


def _visible(nvml: Any) -> Iterator[tuple[str, Any]]:
    """The GPUs as CUDA counts them: the first entry that names none ends the list."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    numbers = map(str, range(nvml.nvmlDeviceGetCount())) if named is None else map(str.strip, named.split(","))
    for number in numbers:
        try:
            if number.isdecimal():
                yield number, nvml.nvmlDeviceGetHandleByIndex(int(number))
            else:
                yield number, nvml.nvmlDeviceGetHandleByUUID(number)
        except (nvml.NVMLError_InvalidArgument, nvml.NVMLError_NotFound):
            return


def _gpu(nvml: Any, number: str, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)  # bytes
    return Gpu(
        number=number,
        name=nvml.nvmlDeviceGetName(handle),
        total_gib=memory.total / GIB,
        free_gib=memory.free / GIB,
        processes=tuple(_processes(nvml, handle)),
    )


def _processes(nvml: Any, handle: Any) -> Iterator[Process]:
    """Who computes and who draws on this GPU; one that does both is listed twice by the driver."""
    found = {}
    for listed in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        try:
            found.update({process.pid: process.usedGpuMemory for process in listed(handle)})
        except nvml.NVMLError_NotSupported:
            continue
    for pid, used in found.items():
        yield Process(pid, _name(nvml, pid), None if used is None else used / GIB)


def _name(nvml: Any, pid: int) -> str:
    """The program; a process outside of our container has no name here."""
    try:
        return Path(nvml.nvmlSystemGetProcessName(pid)).name
    except nvml.NVMLError:
        return "unknown"
