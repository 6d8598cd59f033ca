"""What a server that ended may have left on this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from server_stub.supervisor.records import start_of

__all__ = ["Family", "is_free", "shared_memory", "ticks"]


class Family:
    """A process and all that came from it, as far as ``look`` was called while they lived.

    Their environment would not tell them: vLLM's processes write their titles over it.
    """

    def __init__(self, ancestor: int) -> None:
        self._seen = {ancestor: start_of(ancestor)}

    def look(self) -> None:
        """Remember those that have come since; call it often."""
        parents = dict(filter(None, map(_and_parent, Path("/proc").glob("[0-9]*"))))
        found = [pid for pid in self._seen if self._is_alive(pid)]
        for pid in found:  # grows while it is read
            found += [child for child, parent in parents.items() if parent == pid and child not in found]
        self._seen |= {pid: start_of(pid) for pid in found}

    def living(self) -> list[int]:
        """Those that have not ended."""
        self.look()
        return [pid for pid in self._seen if self._is_alive(pid)]

    def find(self, title: str) -> int:
        """The one with these words in its command line."""
        titles = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in self.living()}
        (pid,) = [pid for pid, found in titles.items() if title.encode() in found]
        return pid

    def _is_alive(self, pid: int) -> bool:
        return self._seen[pid] is not None and start_of(pid) == self._seen[pid]


def shared_memory() -> set[str]:
    """The names of what lies in shared memory and no process uses: other engines may come and go meanwhile.

    A file counts by its number: a semaphore is mapped under a name that it has lost by the time it is shared.
    """
    there = {entry.name: entry.inode() for entry in os.scandir("/dev/shm")}
    used = {number for maps in Path("/proc").glob("[0-9]*/maps") for number in _shared(maps)}
    return {name for name, number in there.items() if number not in used}


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    with suppress(OSError):
        socket.create_server(("127.0.0.1", port)).close()
        return True
    return False


def ticks(pid: int) -> int:
    """Of processor time that a process has used, its own and the kernel's for it."""
    return sum(map(int, _stat(Path(f"/proc/{pid}"))[11:13]))


def _shared(maps: Path) -> Iterator[int]:
    with suppress(OSError):  # it has just ended
        yield from (int(line.split()[4]) for line in maps.read_text().splitlines() if "/dev/shm/" in line)


def _and_parent(process: Path) -> tuple[int, int] | None:
    with suppress(OSError):  # it has just ended
        return int(process.name), int(_stat(process)[1])
    return None


def _stat(process: Path) -> list[str]:
    """What Linux says of a process, from its state on; before it stands its name, in brackets."""
    return (process / "stat").read_text().rpartition(")")[2].split()
