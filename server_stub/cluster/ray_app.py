"""Serve replicas with Ray until SIGINT or SIGTERM, and leave nothing behind; run by its path, in Ray's environment.

The environment says what to serve: ``AUTOGLM_RAY`` as JSON, and ``VLLM_API_KEY``, which stands in no command line.
"""

# Ray ends its driver on the spot when its other processes end first, as they do when a whole group is signalled. So the
# driver is a process of its own, in a session of its own, and this one, which Ray knows nothing of, cleans up.

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["main"]

DRIVER = Path(__file__).with_name("ray_driver.py")
LEAVING_SECONDS = 10.0
"""To take the application out of a cluster of others, which must be done in order."""
ENDING_SECONDS = 4.0
MOMENT = 0.1
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Linux keeps it
LOOK_SECONDS = 1.0
LONGEST_FOLDER = 107 - 63
"""Characters: the path of a socket has 107 at most, and Ray puts up to 63 behind its temporary folder."""


def main() -> int:
    """Run the driver until it ends or a signal comes, then end and remove all that is left."""
    settings: dict[str, Any] = json.loads(os.environ["AUTOGLM_RAY"])
    shared: set[int] = set()
    scratch = _scratch_folder()
    _handle_signals(_stop)
    driver = None
    try:
        environment = _environment(settings, scratch)
        driver = subprocess.Popen([sys.executable, DRIVER], env=environment, start_new_session=True)  # noqa: S603
        return _wait(driver, shared)
    except KeyboardInterrupt:
        return 0
    finally:
        _handle_signals(signal.SIG_IGN)
        if driver is not None:
            if settings["existing"]:
                _leave(driver)
            _freeze_all_of(session=driver.pid)
            shared |= set(_shared_memory_of(driver.pid))
            _end_all_of(driver)
        _remove(shared)
        shutil.rmtree(scratch, ignore_errors=True)


def _environment(settings: dict[str, Any], scratch: str) -> dict[str, str]:
    """What Ray and every process that it starts read."""
    own = {"TMPDIR": scratch, "RAY_TMPDIR": scratch, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    if not settings["existing"]:
        # Whoever reaches Ray's ports may run code, unless there is a token; Ray would write its own to ~/.ray.
        own |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        if os.environ.get("VLLM_API_KEY"):
            own["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] = "ray_key.middlewares"
    return {**os.environ, **own}


def _scratch_folder() -> str:
    """A folder for Ray's sessions and for vLLM's sockets, whose name is short enough for both."""
    base = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="ray-", dir=base if len(base) + 13 <= LONGEST_FOLDER else "/tmp")  # noqa: S108
    return str(Path(folder).resolve())


def _wait(driver: subprocess.Popen[bytes], shared: set[int]) -> int:
    """Wait for the driver to end; meanwhile, note the shared memory of replicas, which may end before it."""
    while True:
        with suppress(subprocess.TimeoutExpired):
            return driver.wait(LOOK_SECONDS)
        shared |= set(_shared_memory_of(driver.pid))


def _leave(driver: subprocess.Popen[bytes]) -> None:
    driver.terminate()
    with suppress(subprocess.TimeoutExpired):
        driver.wait(LEAVING_SECONDS)


def _freeze_all_of(session: int) -> None:
    """Stop the session's processes where they are: one that ends in its own time may make shared memory until then."""
    frozen: set[int] = set()
    while new := set(_processes_of(session)) - frozen:
        _signal(new, signal.SIGSTOP)
        frozen |= new
        time.sleep(MOMENT)  # until each has noticed


def _end_all_of(driver: subprocess.Popen[bytes]) -> None:
    """Kill the processes of the driver's session, and wait until they are gone."""
    deadline = time.monotonic() + ENDING_SECONDS
    _signal(_processes_of(driver.pid), signal.SIGKILL)
    driver.wait()
    while any(_processes_of(driver.pid)) and time.monotonic() < deadline:
        time.sleep(MOMENT)


def _signal(processes: Iterable[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _processes_of(session: int) -> Iterator[int]:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            if os.getsid(int(entry.name)) == session:
                yield int(entry.name)


def _shared_memory_of(session: int) -> Iterator[int]:
    """The shared memory that the session's processes have before them: what others made is never ours to remove."""
    for process in _processes_of(session):
        yield from _mapped(Path("/proc") / str(process) / "maps")


def _remove(shared: set[int]) -> None:
    """Remove what nobody uses any more: vLLM's parts leave it behind when they are ended."""
    deadline = time.monotonic() + ENDING_SECONDS
    while (used := shared & _used()) and time.monotonic() < deadline:
        time.sleep(MOMENT)
    for path in (*SHARED_MEMORY.glob("psm_*"), *SHARED_MEMORY.glob("sem.mp-*")):
        with suppress(OSError):
            if path.stat().st_ino in shared - used:
                path.unlink()


def _used() -> set[int]:
    return {number for maps in Path("/proc").glob("[0-9]*/maps") for number in _mapped(maps)}


def _mapped(maps: Path) -> Iterator[int]:
    """Files by their number: a semaphore is mapped under a name that it has lost by the time it is shared."""
    with suppress(OSError):
        for line in maps.read_text().splitlines():
            *_, number, name = f"{line} -".split(maxsplit=5)
            if name.startswith(f"{SHARED_MEMORY}/"):
                yield int(number)


def _handle_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
