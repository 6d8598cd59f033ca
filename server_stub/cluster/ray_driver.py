"""Ray's driver: starts Ray, or joins the one that is there, and serves replicas until SIGTERM; see ``ray_app.py``."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.llm import LLMConfig, build_openai_app

__all__ = ["main"]

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Serve until a signal comes."""
    settings: dict[str, Any] = json.loads(os.environ.pop("AUTOGLM_RAY"))
    _end_with_parent()
    began = time.monotonic()
    try:
        _say("starting Ray")
        ray.init(**_cluster(settings))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has set its own
        _say(f"Ray runs after {time.monotonic() - began:.0f} s; starting the replicas")
        _serve(settings)
        _say(f"all replicas answer after {time.monotonic() - began:.0f} s")
        signal.pause()
    except KeyboardInterrupt:
        _say("stopping")
    finally:
        if settings["existing"] and ray.is_initialized():
            serve.delete(settings["application"])  # the cluster is not ours
        ray.shutdown()


def _serve(settings: dict[str, Any]) -> None:
    serve.start(proxy_location="EveryNode", http_options={"host": settings["host"], "port": settings["port"]})
    sys.path.append(str(FOLDER))  # the launcher starts Python without the script's folder
    config = LLMConfig(**settings["llm"], server_cls="ray_replica:Replica")
    serve.run(build_openai_app({"llm_configs": [config]}), name=settings["application"])


def _cluster(settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``ray.init``: the cluster at ``RAY_ADDRESS`` or on this machine, or one for us alone."""
    code = {"working_dir": str(FOLDER)}  # ray_replica.py and ray_key.py, on every machine
    if settings["existing"]:
        return {"address": os.environ.get("RAY_ADDRESS", "auto"), "runtime_env": code}
    return {
        "num_cpus": max(settings["cpus"], os.cpu_count() or 1),  # Ray waits for ever for those that are not there
        "include_dashboard": False,
        "object_store_memory": 256 * 1024 * 1024,  # what passes through it are requests and answers
        "runtime_env": code,
        "_temp_dir": os.environ["TMPDIR"],
    }


def _end_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _say(text: str) -> None:
    print(f"autoglm: {text}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
