"""What the process holds, and whether that has grown."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from .servers import CALL

Sample = dict[str, float]
SMALL_GROWTH = {
    "RSS in MB": (3.0, 0.10),
    "memory blocks": (0.0, 0.05),
    "descriptors": (8.0, 0.0),
    "threads": (4.0, 0.0),
    "tasks": (8.0, 0.0),
}
"""What each may be larger at the end, absolutely and relatively, the greater counts. The blocks are Python's own: they
do not grow when only the allocator's pages become less tidy, as they do under many threads and show in the RSS."""


def sample() -> Sample:
    """What the process holds now."""
    own = Path("/proc/self")
    return {
        "RSS in MB": int((own / "statm").read_text().split()[1]) * resource.getpagesize() / 2**20,
        "memory blocks": sys.getallocatedblocks(),
        "descriptors": len(os.listdir(own / "fd")),  # noqa: PTH208 - names are all that is wanted
        "threads": len(os.listdir(own / "task")),  # noqa: PTH208
        "tasks": len(asyncio.all_tasks()),
    }


def thirds(samples: list[Sample], name: str) -> tuple[float, float]:
    """The medians of the first and last third."""
    values, third = [it[name] for it in samples], max(1, len(samples) // 3)
    return statistics.median(values[:third]), statistics.median(values[-third:])


def growth(samples: list[Sample]) -> Iterator[str]:
    """Say what has grown."""
    for name, (small, share) in SMALL_GROWTH.items():
        first, last = thirds(samples, name)
        if last > first + max(small, share * first):
            yield f"{name} grew from {first:.1f} to {last:.1f}"


def calls_left() -> list[str]:
    """The numbers of the calls of which something is in memory."""
    return [
        it.headers[CALL]
        for it in gc.get_objects()
        if type(it).__name__ == "Call" and type(it).__module__.startswith("autoglm_client") and CALL in it.headers
    ]
