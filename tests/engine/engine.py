"""A server of the tiny model, and what the tests ask it besides: its metrics, and plain HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import sched_getaffinity, sched_setaffinity
from pathlib import Path
from typing import Any

import httpx2

from autoglm_client.defaults import MODEL
from server_stub import PROFILES, Server

__all__ = ["MODEL", "MODEL_LENGTH", "OTHER_NAME", "Engine", "serving", "tiny"]

OTHER_NAME = "autoglm-phone"
MODEL_LENGTH = PROFILES["tiny"].options().context

_EXTRA = (
    "--enable-prompt-tokens-details",
    # Without disable_any_whitespace a grammar for JSON lets a model that never saw JSON write spaces for ever.
    *("--structured-outputs-config", '{"disable_any_whitespace":true,"backend":"xgrammar"}'),
)


class Engine(Server):
    """The launcher's server, with an eye on the engine."""

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


def tiny(log: Path, **changes: Any) -> Engine:
    """The tiny model under two names, not yet started."""
    return Engine(profile="tiny", port=0, served_names=(MODEL, OTHER_NAME), extra=_EXTRA, log=log, **changes)


@contextmanager
def serving(*engines: Engine) -> Iterator[None]:
    """Inside, all of them are ready; they load at the same time."""
    try:
        with _on_other_cores():
            for engine in engines:
                engine.start()
        for engine in engines:
            engine.wait()
        yield
    finally:
        for engine in engines:
            engine.stop()


@contextmanager
def _on_other_cores() -> Iterator[None]:
    """What is started inside leaves a core to the tests: on two, a busy engine kept them waiting for nine seconds."""
    cores = sched_getaffinity(0)
    sched_setaffinity(0, sorted(cores)[1:] or cores)
    try:
        yield
    finally:
        sched_setaffinity(0, cores)
