"""Room on the disk for logs and in shared memory, and what engines that crashed have left there."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..findings import Finding
from ..options import ServeOptions
from .installed import Installed

__all__ = ["check_disk", "check_shared_memory", "free_gib", "leftovers", "nearest"]

SHARED = Path("/dev/shm")  # noqa: S108 - where Linux keeps it
NAMES = ("psm_*", "vllm*", "sem.*", "nccl-*")
"""By Python's shared_memory, vLLM, semaphores, NCCL."""
GIB = 1 << 30
QUEUE_MIB = 240
"""vLLM 0.32 passes requests to the workers of several GPUs through shared memory: 10 blocks of 24 MiB."""


def check_disk(log: Path) -> Iterator[Finding]:
    """The folder for the log can be written to."""
    folder = nearest(log.parent)
    free = free_gib(folder)
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        yield Finding("logs", "FAIL", f"{folder} cannot be written into", "--log FILE in a folder of your own")
    elif free < 1:
        yield Finding("logs", "note", f"{free:.2f} GiB free in {folder}", "an engine that fails in a loop writes a lot")
    else:
        yield Finding("logs", "ok", f"{free:.0f} GiB free in {folder}")


def check_shared_memory(options: ServeOptions, _inside: Installed) -> Iterator[Finding]:
    """There is shared memory for the engine's processes, and nothing lies there that nobody uses."""
    if not SHARED.is_dir():
        return
    usage = shutil.disk_usage(SHARED)
    detail = f"{usage.free / GIB:.2f} of {usage.total / GIB:.2f} GiB free in {SHARED}"
    if options.gpus > 1 and usage.free < QUEUE_MIB << 20:
        remedy = "remove what is left over there; in a container: docker run --ipc=host or --shm-size 8g"
        yield Finding("shared memory", "FAIL", f"{detail}: several GPUs need {QUEUE_MIB} MiB", remedy)
    else:
        yield Finding("shared memory", "ok", detail)
    if left := leftovers():
        size = sum(file.stat().st_size for file in left) / GIB
        detail = f"{len(left)} files that no process here uses, {size:.2f} GiB in {SHARED}"
        yield Finding("shared memory", "note", detail, shlex.join(["rm", *map(str, left)]))


def leftovers() -> list[Path]:
    """The files of this user that an engine may have left, and that no living process has mapped or open."""
    mine = {
        file: file.stat().st_ino
        for name in NAMES
        for file in SHARED.glob(name)
        if file.is_file() and file.stat().st_uid == os.getuid()
    }
    used = set(_used()) if mine else set()
    return sorted(file for file, number in mine.items() if number not in used)


def nearest(path: Path) -> Path:
    """The path itself, or the first above it that is there already."""
    return next(there for there in (path, *path.absolute().parents) if os.access(there, os.F_OK))


def free_gib(folder: Path) -> float:
    """What this user can still write there."""
    return shutil.disk_usage(folder).free / GIB


def _used() -> Iterator[int]:
    """Files in shared memory that processes of this user have mapped or open.

    By their number: a semaphore is mapped under a name that it has lost by the time it is shared.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # another user's, or it has just ended
            for line in (process / "maps").read_text(errors="replace").splitlines():
                *_, number, name = f"{line} -".split(maxsplit=5)
                if name.startswith(f"{SHARED}/"):
                    yield int(number)
        with suppress(OSError):
            yield from (entry.stat().st_ino for entry in (process / "fd").iterdir() if _is_shared(entry))


def _is_shared(entry: Path) -> bool:
    return str(entry.readlink()).startswith(f"{SHARED}/")
