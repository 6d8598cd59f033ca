"""A program that behaves as an engine does, at the start and at the end: ``fake_engine.py PORT BEHAVIOUR...``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOADING = """\
(APIServer pid=1) INFO 11-21 05:43:14 [model.py:733] Resolved architecture: Glm4vForConditionalGeneration
(Worker pid=3) INFO 11-21 05:43:35 [cpu_model_runner.py:68] Starting to load model /weights...
Loading safetensors checkpoint shards:   0% Completed | 0/5 [00:00<?, ?it/s]\r\
Loading safetensors checkpoint shards:  40% Completed | 2/5 [00:12<00:18,  6.10s/it]\r\
Loading safetensors checkpoint shards: 100% Completed | 5/5 [00:30<00:00,  6.10s/it]

(Worker pid=3) INFO 11-21 05:43:35 [default_loader.py:501] Loading weights took 30.50 seconds
(EngineCore pid=2) INFO 11-21 05:43:36 [kv_cache_utils.py:2327] GPU KV cache size: 1,048,576 tokens, Maximum
"""
OUT_OF_MEMORY = """\
(EngineCore pid=2) ERROR torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 24.00 MiB.
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""

GRANDCHILD = """
import os, signal, sys, time
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(600)
"""

Behaviour = set[str]


def main() -> None:
    port, behaviour = int(sys.argv[1]), set(sys.argv[2:])
    _prepare(behaviour)
    say(LOADING)
    _at_start(behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(behaviour))
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "ignores-sigterm" in behaviour else lambda *_: os._exit(0))
    say("INFO:     Application startup complete.")
    server.serve_forever()


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def _prepare(behaviour: Behaviour) -> None:
    if "ignores-sigterm" in behaviour:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "forks" in behaviour or "forks-stubborn" in behaviour:
        for own_session in (False, True):
            _grandchild(own_session=own_session, stubborn="forks-stubborn" in behaviour)
    if "tells-key" in behaviour:
        key = os.environ["VLLM_API_KEY"]
        say(f"the key is {key}, or in JSON: {json.dumps({'key': key})}")
        half = len(key) // 2
        os.write(1, f"in two pieces: {key[:half]}".encode())
        time.sleep(0.2)  # so that the reader gets the first piece alone
        os.write(1, f"{key[half:]}\n".encode())


def _grandchild(*, own_session: bool, stubborn: bool) -> None:
    """A process that ignores SIGTERM, if it is stubborn; it writes its number when it does."""
    child = subprocess.Popen(
        [sys.executable, "-c", GRANDCHILD, *["stubborn"] * stubborn],
        stdout=subprocess.PIPE,
        start_new_session=own_session,
    )
    assert child.stdout is not None
    say(f"grandchild {int(child.stdout.readline())}")


def _at_start(behaviour: Behaviour) -> None:
    if "hangs" in behaviour:
        time.sleep(600)
    if "dies" in behaviour:
        say(OUT_OF_MEMORY)
        sys.exit(3)
    if "dies-quietly" in behaviour:
        sys.exit(0)
    if "floods" in behaviour:
        for number in range(250):
            say(f"flood {number} " + "x" * 100_000)
        threading.Thread(target=_flood, daemon=True).start()


def _flood() -> None:
    while True:
        say("y" * 10_000)
        time.sleep(0.001)


def _handler(behaviour: Behaviour) -> type[BaseHTTPRequestHandler]:
    started = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            late = "late" in behaviour and time.monotonic() - started < 0.5
            self.answer(503 if late or "unhealthy" in behaviour else 200, {})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if request["messages"][-1]["content"] == "die":
                os.kill(os.getpid(), signal.SIGSEGV)
                time.sleep(600)  # a thread may run on for a moment
            for name, action in actions.items():
                if name in behaviour:
                    action(self)
                    return
            key = os.environ.get("VLLM_API_KEY")
            if key and self.headers["Authorization"] != f"Bearer {key}":
                self.answer(401, {"error": {"message": "Unauthorized"}})
                return
            message = {"role": "assistant", "content": "Hello"}
            self.answer(200, {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "model": "m"})

        def answer(self, status: int, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    def die(_: Handler) -> None:
        say("RuntimeError: Unsupported CPU attention configuration: head_size=16")
        os._exit(1)

    actions: dict[str, Callable[[Handler], object]] = {
        "dies-at-first": die,
        "fails-first": lambda handler: handler.answer(500, {"error": {"message": "EngineCore encountered an issue"}}),
        "hangs-at-first": lambda _: time.sleep(600),
    }
    return Handler


if __name__ == "__main__":
    main()
