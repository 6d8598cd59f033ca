"""The servers that run on this machine: one small file for each, for whoever asks later. No key is ever in it."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import ServeError

__all__ = ["Record", "default_log", "running", "start_of", "state_folder"]

STOP_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A running server. ``pid`` is of the process that guards it: SIGTERM to it stops everything."""

    pid: int
    started: str
    """When the process started, in the words of the system: tells it from a later one of the same number."""
    url: str
    model: str
    engine: str
    log: str

    def __str__(self) -> str:
        return f"{self.url}  {self.model}  {self.engine}, process {self.pid}, log {self.log}"

    @property
    def is_running(self) -> bool:
        """Whether the very process that was recorded still runs."""
        return bool(self.started) and start_of(self.pid) == self.started

    def write(self) -> None:
        """Keep it for others, readable by its owner alone."""
        state_folder().mkdir(parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")  # a reader never sees half of it
        new.write_text(json.dumps(asdict(self)))
        new.chmod(0o600)
        new.replace(self._path)

    def forget(self) -> None:
        """Remove the file, unless the server still runs."""
        if not self.is_running:
            self._path.unlink(missing_ok=True)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Stop the server and all that belongs to it; on return it is gone."""
        if self.is_running:
            try:
                os.kill(self.pid, signal.SIGTERM)
            except ProcessLookupError:  # it ended just now
                pass
            except PermissionError as error:
                raise ServeError(f"The server at {self.url} is another user's: ask them, or be root.") from error
        deadline = time.monotonic() + seconds
        while self.is_running:
            if time.monotonic() > deadline:
                raise ServeError(f"The server at {self.url} did not stop within {seconds:.0f} s: kill -9 {self.pid}")
            time.sleep(0.05)
        self.forget()

    @property
    def _path(self) -> Path:
        return state_folder() / f"{platform.node()}-{self.pid}.json"


def state_folder() -> Path:
    """Where records and logs are kept."""
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "autoglm"
    except RuntimeError as error:  # a user without a name, as in containers
        raise ServeError(
            "This user has no home folder: set HOME or XDG_STATE_HOME to a folder for the logs."
        ) from error


def default_log(port: int) -> Path:
    """The log of the server on this port; a home folder may be shared by machines."""
    return state_folder() / f"{platform.node()}-{port}.log"


def running() -> list[Record]:
    """The servers that run on this machine; the records of those that ended are dropped."""
    records = []
    for path in sorted(state_folder().glob(f"{platform.node()}-*.json")):
        try:
            records.append(Record(**json.loads(path.read_text())))
        except (ValueError, TypeError):  # of another version
            with suppress(OSError):
                path.unlink(missing_ok=True)
        except OSError:  # not ours to read, or removed just now
            continue
    for record in records:
        with suppress(OSError):  # not ours to remove
            record.forget()
    return [record for record in records if record.is_running]


def start_of(pid: int) -> str | None:
    """When a process started; None if there is none, or nothing of it but its exit status."""
    if sys.platform == "linux":
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if fields[0] in "ZX" else fields[19]
        return None
    asked = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    return asked.stdout.strip() or None
