"""Can the device take the model: enough GPUs with enough memory and a fitting driver, or a CPU with enough memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import floor
from pathlib import Path

from ..findings import Finding
from ..memory import DEFAULT_SHARE, estimate
from ..options import ServeOptions
from ..profiles import profile_for
from .gpus import Gpu, GpusUnknown, Machine, read_gpus
from .installed import Installed

__all__ = ["check_device", "free_memory"]

GIB_PER_KIB = 1 / (1 << 20)


def check_device(options: ServeOptions, inside: Installed) -> Iterator[Finding]:
    """The GPUs, or the memory of the machine where the CPU computes."""
    if options.device == "cpu":
        yield from _check_memory(options)
        return
    try:
        machine = read_gpus()
    except GpusUnknown as problem:
        yield Finding("GPUs", "FAIL" if problem.is_certain else "note", str(problem), problem.remedy)
        return
    yield _check_count(options, machine.gpus)
    if machine.gpus:
        yield _check_driver(machine, inside)
    for gpu in machine.gpus[: _wanted(options)]:
        yield _check_gpu(options, gpu, machine.gpus)


def free_memory() -> float | None:
    """GiB that programs can still take without swapping, as Linux reckons it; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * GIB_PER_KIB for line in lines if line.startswith("MemAvailable:")), None)


def _check_memory(options: ServeOptions) -> Iterator[Finding]:
    if options.folder and not (options.folder / "config.json").is_file():
        return  # how large the model is cannot be told, and the check of the weights says why
    needed, free = estimate(options).total * options.replicas, free_memory()
    if free is None:
        yield Finding("memory", "note", f"about {needed:.1f} GiB are needed; this system does not tell what is free")
    elif free < needed:
        remedy = "end other programs: top -o %MEM shows the largest"
        yield Finding("memory", "FAIL", f"{free:.1f} GiB free, about {needed:.1f} needed", remedy)
    else:
        yield Finding("memory", "ok", f"{free:.1f} GiB free, about {needed:.1f} needed")


def _wanted(options: ServeOptions) -> int:
    """GPUs of this machine; other machines of a cluster bring their own."""
    return -(-options.gpus // options.nodes)


def _check_count(options: ServeOptions, gpus: Sequence[Gpu]) -> Finding:
    names = ", ".join(dict.fromkeys(gpu.name for gpu in gpus))
    detail = f"{len(gpus)} ({names})" if gpus else "none that CUDA_VISIBLE_DEVICES leaves visible"
    if len(gpus) >= _wanted(options):
        return Finding("GPUs", "ok", detail)
    remedy = f"--tensor-parallel {len(gpus)}" if gpus else "unset CUDA_VISIBLE_DEVICES; or --profile tiny, on the CPU"
    return Finding("GPUs", "FAIL", f"{detail}, {_wanted(options)} wanted", remedy)


def _check_driver(machine: Machine, inside: Installed) -> Finding:
    """A driver runs what was built for its own major version of CUDA or an older one (NVIDIA: CUDA compatibility)."""
    has = f"driver {machine.driver} for CUDA {machine.cuda[0]}.{machine.cuda[1]}"
    if inside.cuda is None:
        return Finding("driver", "ok", has)
    built = _pair(inside.cuda)
    detail = f"{has}, the engine is built for CUDA {inside.cuda}"
    if machine.cuda[0] < built[0]:
        remedy = (
            f"install a driver for CUDA {inside.cuda} (nvidia.com/drivers), or a vLLM built for {machine.cuda[0]}.x"
        )
        return Finding("driver", "FAIL", detail, remedy)
    if machine.cuda < built:
        remedy = "should the engine say 'unsupported toolchain' (kernels to compile): update the driver"
        return Finding("driver", "note", detail, remedy)
    return Finding("driver", "ok", detail)


def _check_gpu(options: ServeOptions, gpu: Gpu, gpus: Sequence[Gpu]) -> Finding:
    memory, name = estimate(options), f"GPU {gpu.number}"
    taken = ", taken by " + ", ".join(map(str, gpu.processes)) if gpu.processes else ""
    detail = f"{gpu.name}: {gpu.free_gib:.1f} of {gpu.total_gib:.1f} GiB free, {memory.least:.1f} needed{taken}"
    if gpu.total_gib < memory.least:
        return Finding(name, "FAIL", detail, _smaller(options, gpus))
    if gpu.free_gib < memory.least:
        return Finding(name, "FAIL", detail, _elsewhere(options, memory.least, gpus) or _free(gpu))
    share = options.gpu_memory or (DEFAULT_SHARE if options.engine == "vllm" else None)
    if share is not None and not memory.least <= share * gpu.total_gib <= gpu.free_gib:
        detail = f"{detail}; the engine takes {share:.0%} of the whole, {share * gpu.total_gib:.1f} GiB, and not less"
        return Finding(name, "FAIL", detail, f"--gpu-memory {floor(100 * gpu.free_gib / gpu.total_gib) / 100}")
    if min(gpu.free_gib, (share or 1) * gpu.total_gib) < memory.total:
        remedy = f"with fewer --max-sequences than {options.max_sequences} none waits for another"
        return Finding(name, "note", f"{detail}; {memory.total:.1f} for all sequences at once", remedy)
    return Finding(name, "ok", detail)


def _smaller(options: ServeOptions, gpus: Sequence[Gpu]) -> str:
    """What these GPUs are large enough for."""
    fitting = profile_for([gpu.total_gib for gpu in gpus])
    if fitting and estimate(fitting.options()).least < estimate(options).least:
        return f"--profile {fitting.name}"
    return "a smaller --context, --quantization fp8, or --profile tiny, on the CPU"


def _elsewhere(options: ServeOptions, needed: float, gpus: Sequence[Gpu]) -> str | None:
    """Other GPUs of this machine that have the room."""
    roomy = [gpu.number for gpu in gpus if gpu.free_gib >= needed][: _wanted(options)]
    return f"export CUDA_VISIBLE_DEVICES={','.join(roomy)}" if len(roomy) == _wanted(options) else None


def _free(gpu: Gpu) -> str:
    """End whoever takes the memory; somebody the driver does not name is found with its own tool."""
    pids = " ".join(str(process.pid) for process in gpu.processes)
    return f"kill {pids}, or --profile tiny" if pids else "nvidia-smi shows who takes it; or --profile tiny"


def _pair(version: str) -> tuple[int, int]:
    major, _, rest = version.partition(".")
    return int(major), int(rest.partition(".")[0] or 0)
