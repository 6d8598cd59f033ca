"""P14: no descriptor is left behind, no warning at the end, whatever is done with a client."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from typing import Any

import pytest

from autoglm_client import AutoGLM, AutoGLMError, Launch
from server_stub import ScriptedServer

from ..conftest import ClientFactory
from ..raw_server import HEAD, Step, delta, plain, raw_server, reset
from .test_p11_pool import descriptors, hold_still

ENDS: dict[str, list[Step]] = {
    "refused": [plain(b"{}", "500 Internal Server Error")],
    "reset": [reset],
    "cut": [HEAD, delta("a")],
    "no answer": [b""],
}


@pytest.mark.parametrize("script", ENDS.values(), ids=ENDS)
def test_p14_a_thousand_failing_calls(make_client: ClientFactory, script: list[Step]) -> None:
    with raw_server(script) as server, make_client(server.url, max_attempts=1) as glm:
        for number in range(250):
            with pytest.raises(AutoGLMError), glm.stream("x") as stream:
                stream.finish()
            if number == 10:
                before = descriptors()
        hold_still(before + 2)


def test_p14_a_thousand_calls_that_reach_nobody(make_client: ClientFactory) -> None:
    glm = make_client("http://127.0.0.1:9/v1", max_attempts=1)
    before = descriptors()
    for _ in range(1000):
        with pytest.raises(AutoGLMError):
            glm.chat("x")
    hold_still(before + 2)


def test_p14_32_threads_at_once_and_closed_twice() -> None:
    replies: dict[int, Any] = {}
    before = descriptors()
    with ScriptedServer() as server:
        glm = AutoGLM(server.base_url)

        def ask(number: int) -> None:
            for _ in range(4):
                replies[number] = glm.chat(f"Open App{number}").action

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        glm.close()
        glm.close()
        assert replies == {number: Launch(f"App{number}") for number in range(32)}
    hold_still(before)


def test_p14_collected_unclosed() -> None:
    with ScriptedServer() as server:
        before = descriptors()
        glm = AutoGLM(server.base_url)
        assert glm.chat("Open A").action == Launch("A")
        del glm
        gc.collect()
        hold_still(before)


@pytest.mark.parametrize("end", ["", "glm.close(); glm.close()", "del glm"])
def test_p14_no_word_at_the_end(end: str) -> None:
    program = """
import asyncio, sys
from autoglm_client import AsyncAutoGLM, AutoGLM

glm = AutoGLM(sys.argv[1])
glm.chat("Open A")

async def ask():
    await AsyncAutoGLM(sys.argv[1]).chat("Open A")

asyncio.run(ask())
"""
    with ScriptedServer() as server:
        run = [sys.executable, "-c", program + end, server.base_url]
        done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
