"""Runs in a process of its own: asks servers that go too far, and says how it ended and what memory it took.

It is given, as JSON on stdin, a kind of client and a list of names, addresses and routes. Each question is asked by a
process that is forked for it, so that none finds the memory which another left. It writes one line of JSON for each.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autoglm_client import AsyncAutoGLM, AutoGLM, AutoGLMError
from tests.raw_server import HEAD, delta, finish, plain, raw_server


def kilobytes(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def ask(url: str, route: str) -> object:
    with AutoGLM(url) as glm:
        if route == "stream":
            with glm.stream("x") as stream:
                return stream.finish()
        return asking(glm, route)


async def ask_async(url: str, route: str) -> object:
    async with AsyncAutoGLM(url) as glm:
        if route == "stream":
            async with glm.stream("x") as stream:
                return await stream.finish()
        return await asking(glm, route)


def asking(glm: Any, route: str) -> Any:
    routes: dict[str, Callable[[], Any]] = {
        "chat": lambda: glm.chat("x"),
        "models": glm.models,
        "tokenize": lambda: glm.tokenize("x"),
        "health": glm.health,
    }
    return routes[route]()


def outcome(kind: str, url: str, route: str) -> dict[str, Any]:
    before, started = kilobytes("VmRSS"), time.monotonic()
    answer: dict[str, Any] = {}
    try:
        answer["returned"] = repr(ask(url, route) if kind == "sync" else asyncio.run(ask_async(url, route)))[:100]
    except AutoGLMError as error:
        answer |= {
            "category": error.category,
            "retryable": error.retryable,
            "attempts": error.attempts,
            "words": str(error)[:300],
            "body": len(getattr(error, "body", "")),
        }
    except BaseException as error:
        answer["escaped"] = repr(error)[:300]
    return {**answer, "megabytes": (kilobytes("VmHWM") - before) / 1024, "seconds": time.monotonic() - started}


def main() -> None:
    order = json.load(sys.stdin)
    calm: list[Any] = [[HEAD, delta("a"), finish()], [plain(b'{"data":[]}')], [plain(b'{"error":"x"}', "400 Bad")]]
    for script in calm:  # what is loaded by the first call is not what an answer costs
        with raw_server(script) as server:
            for route in ("chat", "stream", "models", "tokenize", "health"):
                outcome(order["kind"], server.url, route)
    for name, url, route in order["cases"]:
        sys.stdout.flush()
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        print(json.dumps({"name": name, **outcome(order["kind"], url, route)}), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
