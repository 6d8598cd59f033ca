"""An engine that is started, known to answer, watched, and stopped with all that it started."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .command import SECRETS, Command
from .engines import Engine, engine_for
from .errors import EngineFailed, NotReady, PreflightFailed, ServeError
from .options import ServeOptions
from .preflight import preflight, require
from .profiles import PROFILES
from .supervisor.address import free_port, reachable
from .supervisor.guard import GRACE
from .supervisor.guarded import Guarded
from .supervisor.readiness import Readiness, Refused
from .supervisor.records import Record, default_log, running, start_of
from .supervisor.watch import Stopped, Watch

if TYPE_CHECKING:
    from autoglm_client import AsyncAutoGLM, AutoGLM

__all__ = ["Server", "engine_python"]

LOOK_SECONDS = 0.2
LONGEST_SECONDS = 86400.0
DYING_SECONDS = 10.0
"""For an engine that could not answer to end by itself, and so to say why."""


def engine_python(python: Path | str | None = None) -> Path:
    """The interpreter the engine is installed for: the one given, ``$AUTOGLM_ENGINE_PYTHON``, or this one."""
    found = str(python or os.environ.get("AUTOGLM_ENGINE_PYTHON") or sys.executable)
    return Path(shutil.which(found) or found).expanduser().absolute()  # a bare name is looked for as a shell does


class Server:
    """A model server on this machine: ``with Server(profile="tiny") as server: server.client().chat("...")``.

    The options are those of the profile, or those given, with the changes: ``Server(profile="tiny", port=0)``.
    ``timeout`` are the seconds until it must be ready; ``force`` starts without looking at the machine first;
    ``report`` is given a line of progress at a time. ``start`` and ``wait`` raise a `ServeError` that says what to do.
    """

    def __init__(
        self,
        options: ServeOptions | None = None,
        *,
        profile: str | None = None,
        python: Path | str | None = None,
        log: Path | None = None,
        timeout: float = 900.0,
        force: bool = False,
        report: Callable[[str], None] | None = None,
        engine: Engine | None = None,
        **changes: Any,
    ) -> None:
        self.options = _with_key(_options(options, profile, changes))
        self.python = engine_python(python)
        self._given_engine = engine
        self._given_log = log.expanduser().absolute() if log else None  # whatever folder the program changes to later
        self._timeout = _seconds(timeout)
        self._force = force
        self._report = report or (lambda _: None)
        self._running: Watch | None = None
        self._record: Record | None = None

    @property
    def engine(self) -> Engine:
        """The engine that serves these options."""
        return self._given_engine or engine_for(self.options)

    @property
    def command(self) -> Command:
        """What is started."""
        return self.engine.command(self.options, self.python)

    @property
    def root_url(self) -> str:
        """The address without a path, as this machine reaches it."""
        return f"http://{reachable(self.options.host)}:{self.options.port}"

    @property
    def base_url(self) -> str:
        """The address for clients."""
        return f"{self.root_url}/v1"

    @property
    def api_key(self) -> str | None:
        """The key that the server asks for."""
        return self.options.api_key

    @property
    def log(self) -> Path:
        """The file with all that the engine says; the ones before it end in ``.1`` and ``.2``."""
        return self._given_log or default_log(self.options.port)

    def start(self) -> Self:
        """Look at the machine, then start the engine and return at once; `wait` tells when it answers."""
        self._must_not_run()
        if not self._force:
            require(preflight(self.options, self.python, self.log))
        self.options = self.options.with_(port=free_port(self.options.host, self.options.port))
        self._must_be_alone()
        self._running = Watch(self._run(), self.log, self.engine.title, self._report)
        atexit.register(self.stop)
        self._keep_record(self._running.process.pid)
        return self

    def wait(self) -> None:
        """Return when the engine has generated a token; otherwise it is stopped, and an error says why."""
        watch = self._started()
        try:
            self._wait_for_token(watch, time.monotonic() + self._timeout)
        except BaseException:
            self.stop()
            raise
        watch.is_ready = True

    def poll(self, seconds: float = 0.0) -> bool:
        """Whether it runs, after a look of so many seconds; raises `EngineFailed` if it ended unasked."""
        try:
            self._started().look(seconds)
        except Stopped:
            return False
        except EngineFailed:
            self.stop()
            raise
        return True

    def wait_for_exit(self) -> None:
        """Return when somebody stopped it; raises `EngineFailed` if it ended unasked."""
        while self.poll(1.0):
            pass
        self.stop()

    def stop(self, seconds: float = GRACE) -> None:
        """Ask it to end, kill what is left after so many seconds; may be called again, and from a signal handler."""
        if self._running is None:
            return
        self._running.process.stop(seconds)
        self._running.close()
        if self._record is not None:
            self._record.forget()
        atexit.unregister(self.stop)

    def client(self, **settings: Any) -> AutoGLM:
        """A client of this server; it is the caller's to close."""
        from autoglm_client import AutoGLM

        return AutoGLM(**self._client_settings(settings))

    def async_client(self, **settings: Any) -> AsyncAutoGLM:
        """An async client of this server; it is the caller's to close."""
        from autoglm_client import AsyncAutoGLM

        return AsyncAutoGLM(**self._client_settings(settings))

    def __enter__(self) -> Self:
        self._must_not_run()  # and goes on to run
        try:
            self.start().wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _client_settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        own = {"base_url": self.base_url, "api_key": self.api_key, "model": self.options.request_model}
        return own | settings

    def _must_not_run(self) -> None:
        if self._running is not None and self._running.process.exit is None:
            raise ServeError(f"This server runs already, at {self.base_url}.")

    def _must_be_alone(self) -> None:
        """One that loads has not taken its port yet: it would answer our questions in the place of our engine."""
        for other in running():
            if other.url == self.base_url:
                raise PreflightFailed(f"{other.url} is another server's that still starts or stops: {other}")

    def _run(self) -> Guarded:
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServeError(f"No log can be written: {error}; name another file with log=") from error
        if self.log.exists() and not self.log.is_file():  # it would be renamed to make room for the log
            raise ServeError(f"No log can be written: {self.log} is no file; name another one with log=")
        environment = self.command.full_environment()
        hidden = [environment[name] for name in SECRETS if environment.get(name)]
        return Guarded(self.command.argv, environment, self.log, hidden)

    def _keep_record(self, pid: int) -> None:
        self._record = Record(
            pid=pid,
            started=start_of(pid) or "",
            url=self.base_url,
            model=self.options.request_model,
            engine=self.engine.title,
            log=str(self.log),
        )
        with suppress(OSError):  # a home that cannot be written to: the server works, `--status` does not know it
            self._record.write()

    def _started(self) -> Watch:
        if self._running is None:
            raise ServeError("This server was not started: call start() first, or use it in a with statement.")
        return self._running

    def _wait_for_token(self, watch: Watch, deadline: float) -> None:
        while not self._answers(watch, deadline):
            if time.monotonic() > deadline:
                raise watch.failure(f"did not answer within {self._timeout:.0f} s and was stopped", kind=NotReady)
            watch.look(LOOK_SECONDS)
        watch.look()

    def _answers(self, watch: Watch, deadline: float) -> bool:
        ask = Readiness(self.root_url, self.engine.health, self.options.request_model, self.api_key)
        try:
            return ask.is_healthy() and ask.generate(max(1.0, deadline - time.monotonic()))
        except Refused as refused:
            watch.look(DYING_SECONDS)
            raise watch.failure(f"is up, but could not generate one token: {refused}") from refused


def _options(options: ServeOptions | None, profile: str | None, changes: dict[str, Any]) -> ServeOptions:
    if profile is None:
        return (options or ServeOptions()).with_(**changes)
    if options is not None:
        raise ServeError("Either options or a profile, not both.")
    if profile not in PROFILES:
        raise ServeError(f"profile={profile!r}: there are {', '.join(PROFILES)}")
    return PROFILES[profile].options(**changes)


def _seconds(timeout: float) -> float:
    if not 0 < timeout <= LONGEST_SECONDS:
        raise ServeError(f"timeout={timeout}: seconds, more than 0 and at most {LONGEST_SECONDS:.0f}")
    return timeout


def _with_key(options: ServeOptions) -> ServeOptions:
    """The options; a server that others can reach asks for a key, and vLLM for the one that its environment names."""
    key = options.api_key or (os.environ.get("VLLM_API_KEY") if options.engine == "vllm" else None)
    if not (key or options.is_local):
        key = secrets.token_urlsafe(24)
    return options.with_(api_key=key)
