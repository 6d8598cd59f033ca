"""A command of the launcher in the background: what it says, how it ends, what came from it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from .leftovers import Family

__all__ = ["Launching"]


class Launching:
    """``python -m COMMAND...``; ``folder`` is its home and holds what it says."""

    def __init__(self, folder: Path, *command: object) -> None:
        self._said = folder / "said"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *map(str, command)],
                env=os.environ | {"XDG_STATE_HOME": str(folder)},
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        self.family = Family(self._process.pid)

    @property
    def said(self) -> str:
        """All that it printed so far."""
        return self._said.read_text()

    def wait_for(self, words: str, seconds: float = 180) -> str:
        """The first line with these words, once it is there."""
        deadline = time.monotonic() + seconds
        while not (line := next((line for line in self.said.splitlines() if words in line), "")):
            assert self._process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            self._look()
        return line

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self, seconds: float = 180) -> int:
        """Its exit status, when it has ended by itself."""
        deadline = time.monotonic() + seconds
        while (status := self._process.poll()) is None:
            assert time.monotonic() < deadline, self.said
            self._look()
        return status

    def kill(self) -> None:
        """End it whatever it does; its engine ends with it."""
        self._process.kill()
        self._process.wait()

    def _look(self) -> None:
        self.family.look()
        time.sleep(0.1)
