"""A vLLM server on this machine's CPU: started, known to answer, stopped, and nothing left behind."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx2

__all__ = ["MODEL", "MODEL_LENGTH", "OTHER_NAME", "Engine", "EngineFailed", "build_checkpoint", "engine_python"]

MODEL = "autoglm-phone-9b"
OTHER_NAME = "autoglm-phone"
MODEL_LENGTH = 4096

_ROOT = Path(__file__).parents[2]
_HOOK = Path(__file__).parent / "torchvision_hook"

_OPTIONS = (
    *("--served-model-name", MODEL, OTHER_NAME),
    *("--dtype", "float32", "--enforce-eager"),
    *("--max-model-len", str(MODEL_LENGTH), "--max-num-seqs", "8"),
    *("--chat-template-content-format", "string"),
    "--enable-prompt-tokens-details",
    *("--limit-mm-per-prompt", '{"image":10,"video":0}'),  # the video processor's trial run fails on a CPU
    # Without disable_any_whitespace a grammar for JSON lets random weights write spaces for ever.
    *("--structured-outputs-config", '{"disable_any_whitespace":true,"backend":"xgrammar"}'),
)

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "TORCHDYNAMO_DISABLE": "1",  # or the first request with logprobs waits 20 s for a compiler
    # Two servers share the machine with the tests: by default vLLM would tie both to the same core.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


class EngineFailed(Exception):
    """The server ended, or did not become ready; the message ends with the last lines of its log."""


def engine_python() -> Path:
    """The interpreter of the environment that holds vLLM, ``$AUTOGLM_ENGINE_PYTHON`` or the one of ``.engine``."""
    python = Path(os.environ.get("AUTOGLM_ENGINE_PYTHON") or _ROOT / ".engine/bin/python")
    if not python.exists():
        raise EngineFailed(f"{python} does not exist: run scripts/install-engine, or set AUTOGLM_ENGINE_PYTHON")
    return python


def build_checkpoint(out: Path) -> None:
    """Build the tiny checkpoint with the engine's own libraries."""
    # As `tiny.build`, not `server_stub.tiny.build`: the client's dependencies are not installed there.
    command = [str(engine_python()), "-m", "tiny.build", str(out)]
    done = subprocess.run(
        command,
        cwd=_ROOT / "server_stub",
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise EngineFailed(f"the tiny checkpoint could not be built (exit {done.returncode}):\n{done.stdout}")


class Engine:
    """One server process with its own port, log and process group."""

    def __init__(self, model: Path, log: Path, *, options: Sequence[str] = (), api_key: str | None = None) -> None:
        self.log = log
        self.api_key = api_key
        self._port = _free_port()
        self._command = [
            *(str(engine_python()), "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(model), "--host", "127.0.0.1", "--port", str(self._port)),
            *_OPTIONS,
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: str | None = None

    @property
    def root_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v1"

    def http(self) -> httpx2.Client:
        """A plain HTTP client for the server's root; it carries the server's key."""
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return httpx2.Client(base_url=self.root_url, headers=headers, timeout=60, trust_env=False)

    def metric(self, name: str) -> float:
        """A Prometheus metric by its full name, ``vllm:num_requests_running`` say, added up over its labels."""
        with self.http() as http:
            lines = http.get("/metrics").raise_for_status().text.splitlines()
        values = [line.rsplit(" ", 1)[1] for line in lines if line.startswith((f"{name}{{", f"{name} "))]
        if not values:
            raise KeyError(name)
        return sum(map(float, values))

    def start(self) -> None:
        """Start the process and return at once; ``wait`` tells when it answers."""
        # Sockets and rendezvous files go to a folder of a short name: the path of a socket is limited to 107 bytes.
        self._scratch = tempfile.mkdtemp(prefix="engine-")
        environment = _environment() | {"TMPDIR": self._scratch}
        if self.api_key:
            environment["VLLM_API_KEY"] = self.api_key
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_settle,
            )

    def wait(self, seconds: float = 240) -> None:
        """Return when the server has generated a token: ``/health`` alone says yes to an engine that cannot run."""
        deadline = time.monotonic() + seconds
        with self.http() as http:
            while not self._healthy(http):
                self._check_alive()
                if time.monotonic() > deadline:
                    raise EngineFailed(f"not healthy after {seconds:.0f} s:\n{self._log_tail()}")
                time.sleep(0.25)
            first = http.post("/v1/completions", json={"model": MODEL, "prompt": "a", "max_tokens": 1})
        if first.status_code != 200:
            raise EngineFailed(f"healthy, but the first token failed: {first.text}\n{self._log_tail()}")

    def stop(self) -> None:
        """End the whole process group, kindly and then not, and remove its scratch folder."""
        if self._process is not None:
            self._signal(signal.SIGTERM)
            if not self._group_ends_within(15):
                self._signal(signal.SIGKILL)
                self._group_ends_within(15)
            self._process.wait()
            self._process = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _healthy(self, http: httpx2.Client) -> bool:
        with suppress(httpx2.TransportError):
            return http.get("/health").status_code == 200
        return False

    def _check_alive(self) -> None:
        assert self._process is not None, "start() first"
        if (code := self._process.poll()) is not None:
            raise EngineFailed(f"the server ended with exit code {code}:\n{self._log_tail()}")

    def _log_tail(self, lines: int = 40) -> str:
        with self.log.open(errors="replace") as log:
            return "".join(deque(log, lines)) + f"\n(the whole log: {self.log})"

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _group_ends_within(self, seconds: float) -> bool:
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._process.poll()  # a process nobody has waited for still counts as a member of the group
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.05)
        return False


def _environment() -> dict[str, str]:
    return os.environ | _ENVIRONMENT | {"PYTHONPATH": str(_HOOK)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _settle() -> None:
    """In the child: ask Linux for a SIGTERM when pytest dies without running its fixtures' ends; leave it a core."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    # On two cores, a busy engine was seen to keep the tests waiting for nine seconds, until its answer had ended.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
