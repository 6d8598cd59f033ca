"""Look at a running engine: whether it still runs, what it says, and why it ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import EngineFailed, ServeError
from .diagnosis import diagnose
from .engine_log import EngineLog
from .guarded import Exit, Guarded
from .progress import Progress

__all__ = ["Stopped", "Watch", "words_for"]

QUIET_SECONDS = 10.0
"""After so long without news, the progress says that it still waits."""


class Stopped(ServeError):
    """The engine ended because somebody asked it to."""


class Watch:
    """One engine from its start to its end; ``report`` gets the progress, a line at a time, until ``is_ready``."""

    def __init__(self, process: Guarded, log: Path, title: str, report: Callable[[str], None]) -> None:
        self.process = process
        self.is_ready = False
        self._title = title
        self._report = report
        self._log = EngineLog(log)
        self._progress = Progress()
        self._started = self._told = time.monotonic()

    def look(self, seconds: float = 0.0) -> None:
        """Look for so many seconds, or until it ends: then raise `EngineFailed`, or `Stopped`."""
        ended = self.process.poll(seconds)
        for line in self._log.rest() if ended else self._log.lines():
            if news := self._progress.feed(line):
                self._tell(news)
        if ended:
            raise Stopped("The server was stopped.") if ended.asked else self.failure(words_for(ended), ended)
        if time.monotonic() - self._told > QUIET_SECONDS:
            self._tell(f"{self._progress.last} ({time.monotonic() - self._started:.0f} s since the start)")

    def failure(self, what: str, ended: Exit | None = None, kind: type[EngineFailed] = EngineFailed) -> EngineFailed:
        """The error for what happened: in one paragraph, with the cause that the log names."""
        stage = "while serving" if self.is_ready else f"before it was ready (the last stage: {self._progress.last})"
        code, tail = ended.code if ended else None, self._log.tail
        message = f"{self._title} {what} {stage}. {self._why(ended)} The log: {self._log.path}"
        error = kind(message, exit_code=code, log_tail=tail)
        error.add_note(f"The last lines of the log:\n{tail}")
        return error

    def _why(self, ended: Exit | None) -> str:
        if ended and ended.code == -signal.SIGKILL:
            return "Who is killed cannot say why; want of memory is the usual reason (`dmesg` tells)."
        if known := diagnose(self._log.kept):
            return str(known)
        words = self._log.last_error if ended else self._log.last_line
        return f"The last it said: {words[:500]}." if words else "It said nothing."

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()

    def _tell(self, news: str) -> None:
        self._told = time.monotonic()
        if not self.is_ready:
            self._report(news)


def words_for(ended: Exit) -> str:
    """How a process ended, for people."""
    if ended.code is None:
        return "ended, nobody knows how, as the process that watches it was killed"
    if ended.code >= 0:
        return f"ended with exit code {ended.code}"
    return f"was killed by signal {-ended.code} ({signal.strsignal(-ended.code)})"
