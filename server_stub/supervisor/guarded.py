"""A process that cannot outlive us: the launcher's side of the guard."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from ..errors import ServeError
from .guard import GRACE

__all__ = ["Exit", "Guarded"]

MARGIN = 10.0  # seconds for the guard to reap and to report after it has killed


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: negative codes are signals, None is unknown; ``asked`` tells that it was asked to."""

    code: int | None
    asked: bool


class Guarded:
    """One running process with all that it starts. ``scratch`` is its folder for temporary files; it ends with it."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path, secrets: Sequence[str]) -> None:
        scratch = tempfile.mkdtemp(prefix="glm-", dir=_temporary())
        job = {
            "argv": list(argv),
            # Python must not import from the folder it happens to be started in, and not keep what it prints.
            "environment": {**environment, "TMPDIR": scratch, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"},
            "log": str(log),
            "scratch": scratch,
            "secrets": sorted({form for secret in secrets for form in (secret, json.dumps(secret)[1:-1])}),
        }
        self.exit: Exit | None = None
        self._said = b""
        self._engine_pid: int | None = None
        self._guard = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", str(Path(__file__).with_name("guard.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
        )
        self._scratch = scratch
        self._lifeline = cast("IO[bytes]", self._guard.stdin)
        self._reports = cast("IO[bytes]", self._guard.stdout)
        os.register_at_fork(after_in_child=partial(_disown, weakref.ref(self)))
        self._send(json.dumps(job) + "\n")
        try:
            self._engine_pid = self._begin(argv[0])
        except BaseException:
            self.stop(0)
            raise

    @property
    def pid(self) -> int:
        """Of the guard: SIGTERM to it stops everything."""
        return self._guard.pid

    def poll(self, seconds: float = 0.0) -> Exit | None:
        """How it ended, None while it runs; waits up to so many seconds for the end."""
        deadline = time.monotonic() + seconds
        try:
            while self.exit is None and self._readable(deadline - time.monotonic()):
                if not self._read():
                    self._finish()
        except (OSError, ValueError):  # a signal handler or another thread was faster, and has closed the pipe
            if self.exit is None:
                raise
        return self.exit

    def stop(self, seconds: float = GRACE) -> None:
        """Ask it to end, kill what is left after so many seconds; all is gone on return. May be called again."""
        if self.exit is not None:
            return
        self._send(f"{seconds}\n")
        try:
            ended = self.poll(seconds + MARGIN)
        except KeyboardInterrupt:  # impatient: kill at once, but still leave nothing behind
            self._send("0\n")
            self.poll(MARGIN)
            raise
        if not ended:
            self._guard.kill()
            self._finish()

    def _begin(self, program: str) -> int:
        if self._readable(MARGIN * 3) and self._read():
            first = json.loads(self._said.splitlines()[0])
            if "engine" in first:
                return int(first["engine"])
            raise ServeError(f"Cannot start {program}: {first['error']}")
        raise ServeError(f"Cannot start {program}: the process that guards it did not begin")

    def _read(self) -> bytes:
        data = os.read(self._reports.fileno(), 1 << 16)
        self._said += data
        return data

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._reports], [], [], max(0.0, seconds))[0])

    def _finish(self) -> None:
        """The guard is gone; should it have been killed, the engine must be, too."""
        report = json.loads(self._said.splitlines()[-1]) if self._said else {}
        if "exit" not in report:
            self._kill_orphans()
        shutil.rmtree(self._scratch, ignore_errors=True)
        with suppress(subprocess.TimeoutExpired):  # in a signal handler: the call that it interrupted reaps
            self._guard.wait(1.0)
        self.disown(Exit(report.get("exit"), bool(report.get("asked"))))

    def _kill_orphans(self) -> None:
        """Whatever has our folder for its temporary files came from the engine, whatever session it is in now."""
        if self._engine_pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._engine_pid, signal.SIGKILL)
        mark = os.fsencode(f"TMPDIR={self._scratch}")
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # another user's, or it has just ended
                if any(name.startswith(mark) for name in (process / "environ").read_bytes().split(b"\0")):
                    os.kill(int(process.name), signal.SIGKILL)

    def disown(self, how: Exit) -> None:
        """Have nothing more to do with it."""
        self.exit = how
        self._lifeline.close()
        self._reports.close()

    def _send(self, line: str) -> None:
        with suppress(OSError, ValueError):  # it is gone already, which `poll` tells
            self._lifeline.write(line.encode())


def _temporary() -> str:
    """Where temporary files go; vLLM puts sockets there (``/glm-12345678/`` and a UUID), whose paths have 107 bytes."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) + 50 <= 107 else "/tmp"  # noqa: S108 - in it comes a folder of our own


def _disown(reference: weakref.ref[Guarded]) -> None:
    """In a forked child, which must not hold the lifeline: the guard would wait for its end, too."""
    if (guarded := reference()) is not None:
        guarded.disown(Exit(None, asked=True))
