"""A small program between the launcher and the engine: when either ends, nothing of the engine is left behind."""

# Run by its path with the launcher's interpreter, in a session of its own. Standard input is the lifeline: first one
# line of JSON (the job), then nothing while the launcher lives, "SECONDS\n" to stop within that time, and its end when
# the launcher is gone, however it went. Standard output carries two lines of JSON: how it began and how it ended.

from __future__ import annotations

import ctypes
import json
import math
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

__all__ = ["GRACE", "Redactor", "RotatedLog", "main"]

GRACE = 15.0
"""Seconds between the request to end and the kill."""
LEFTOVERS_GRACE = 5.0
"""The same for what is left when the engine itself has ended."""
TRACKERS_GRACE = 1.0
TICK = 0.05
LOG_BYTES = 10_000_000
LOG_FILES = 3


class Redactor:
    """Takes secrets out of a stream of bytes, also those that are cut across two pieces."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = sorted(secrets, key=len, reverse=True)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The bytes without secrets; an end that may be the beginning of one is held back."""
        data = self._held + data
        for secret in self._secrets:
            data = data.replace(secret, b"***")
        kept = max((_overlap(data, secret) for secret in self._secrets), default=0)
        self._held = data[len(data) - kept :]
        return data[: len(data) - kept]

    def close(self) -> bytes:
        """What was held back."""
        held, self._held = self._held, b""
        return held


def _overlap(data: bytes, secret: bytes) -> int:
    """How many bytes at the end of the data are the beginning of the secret."""
    return next((size for size in range(len(secret) - 1, 0, -1) if data.endswith(secret[:size])), 0)


class RotatedLog:
    """A file of limited size; the ones before it are kept as ``.1`` and ``.2``. It is for its owner's eyes."""

    def __init__(self, path: Path, *, limit: int = LOG_BYTES, files: int = LOG_FILES) -> None:
        self._path, self._limit, self._files = path, limit, files
        if path.exists() and path.stat().st_size:
            self._shift()
        self._open()

    def write(self, data: bytes) -> None:
        """Append; a full disk loses lines, it does not stop the engine."""
        with suppress(OSError):
            if self._size and self._size + len(data) > self._limit:
                full = self._file
                self._shift()
                self._open()
                os.close(full)
            self._size += os.write(self._file, data)

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size

    def _shift(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{number}") for number in range(1, self._files))]
        for older, newer in pairwise(reversed(names)):
            if newer.exists():
                newer.replace(older)


class Guard:
    """Runs one job: starts it, writes its log, and ends it with all that it started."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._redactor = Redactor([os.fsencode(secret) for secret in job["secrets"]])
        self._log = RotatedLog(Path(job["log"]))
        self._exit: int | None = None
        self._stop_at = math.inf
        self._asked = False
        self._engine = subprocess.Popen(  # noqa: S603
            job["argv"],
            env=job["environment"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self._output = cast("IO[bytes]", self._engine.stdout).fileno()
        os.set_blocking(self._output, False)
        os.set_blocking(0, False)

    @property
    def pid(self) -> int:
        """Of the engine."""
        return self._engine.pid

    def run(self, wakeup: int) -> dict[str, Any]:
        """Return when nothing of the job is left; ``wakeup`` can be read when a signal came."""
        handlers: dict[int, Callable[[], bool]] = {
            0: self._heed,
            self._output: self._pump,
            wakeup: lambda: self._wake(wakeup),
        }
        with selectors.DefaultSelector() as selector:
            for source in handlers:
                selector.register(source, selectors.EVENT_READ)
            while not self._over():
                for key, _ in selector.select(TICK if self._stopping else None):
                    if not handlers[key.fd]():
                        selector.unregister(key.fd)
                self._enforce()
        self._pump()  # one read takes all that a pipe can hold
        self._log.write(self._redactor.close())
        return {"exit": self._exit, "asked": self._asked}

    @property
    def _stopping(self) -> bool:
        return self._stop_at < math.inf

    def _heed(self) -> bool:
        """Read what the launcher wants, or that it is gone; false when nothing more will come from it."""
        wish = os.read(0, 100)
        if wish or not self._stopping:
            self._ask_to_end(float(wish.split()[-1]) if wish else GRACE)
        return bool(wish)

    def _wake(self, wakeup: int) -> bool:
        """Answer a request to end, and reap: the orphans of the engine's processes are ours."""
        if signal.SIGTERM in os.read(wakeup, 100) and not self._stopping:
            self._ask_to_end(GRACE)
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._engine.pid:
                    self._engine_ended(os.waitstatus_to_exitcode(found[1]))
        return True

    def _pump(self) -> bool:
        """Write to the log what the engine said since; false at the end of it."""
        with suppress(BlockingIOError):
            data = os.read(self._output, 1 << 20)
            self._log.write(self._redactor.feed(data))
            return bool(data)
        return True

    def _ask_to_end(self, seconds: float) -> None:
        """Ask the engine's process group; the rest is the engine's to end, until the deadline."""
        self._stop_at = time.monotonic() + seconds
        if self._exit is None:
            self._asked = True
            _signal(-self._engine.pid, signal.SIGTERM)

    def _engine_ended(self, code: int) -> None:
        self._exit = self._engine.returncode = code
        self._stop_at = min(self._stop_at, time.monotonic() + LEFTOVERS_GRACE)
        for pid in self._members():
            _signal(pid, signal.SIGTERM)

    def _enforce(self) -> None:
        """After the deadline, kill; Python's trackers of shared memory have a second more, to remove it."""
        late = time.monotonic() - self._stop_at
        for pid in self._members() if late >= 0 else ():
            if late > TRACKERS_GRACE or not _tracks_resources(pid):
                _signal(pid, signal.SIGKILL)

    def _over(self) -> bool:
        return self._exit is not None and not self._members()

    def _members(self) -> list[int]:
        """The engine and all that came from it; its process group (a negative number) where there is no /proc."""
        if sys.platform == "linux":
            return _descendants(os.getpid())
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._engine.pid, 0)
            return [-self._engine.pid]
        return []


def _descendants(ancestor: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [ancestor]
    for pid in found:  # grows while it is read
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _tracks_resources(pid: int) -> bool:
    with suppress(OSError):
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _adopt_orphans() -> None:
    """Have Linux hand us the processes whose parents ended, those in other sessions too."""
    pr_set_child_subreaper = 36
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1)


def _end_with_parent() -> None:
    """In the engine: ask Linux for a SIGTERM should even the guard be killed."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _wake_on_signals() -> int:
    """A file that can be read when a child ended or we are asked to end."""
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writing)
    # Handlers that do nothing, for an engine would inherit signals that are ignored.
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return reading


def _tell(report: dict[str, Any]) -> None:
    with suppress(OSError):  # the launcher is gone: nobody is left to be told
        os.write(1, json.dumps(report).encode() + b"\n")


def main() -> None:
    """Run the job that standard input names."""
    with open(0, "rb", buffering=0, closefd=False) as lifeline:
        line = lifeline.readline()  # unbuffered: what may stand behind it, the wish to stop, is for `_heed`
    if not line:  # the launcher ended before it said what to do
        return
    job = json.loads(line)
    wakeup = _wake_on_signals()
    _adopt_orphans()
    try:
        guard = Guard(job)
    except OSError as error:
        _tell({"error": str(error)})
    else:
        _tell({"engine": guard.pid})
        _tell(guard.run(wakeup))
    finally:
        shutil.rmtree(job["scratch"], ignore_errors=True)


if __name__ == "__main__":
    main()
