"""P11: the pool survives cancellation."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from pathlib import Path
from typing import Any

from autoglm_client import AsyncAutoGLM, AutoGLM, AutoGLMError, Cancelled, Launch
from server_stub import ScriptedServer

SECONDS = 1.0


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def hold_still(before: int) -> None:
    """The server's side of a connection closes a moment later."""
    until = time.monotonic() + 8
    while descriptors() > before and time.monotonic() < until:
        time.sleep(0.02)
    assert descriptors() <= before


async def test_p11_tasks_cancelled_under_contention() -> None:
    with ScriptedServer(pace=0.003) as server:
        before = descriptors()
        async with AsyncAutoGLM(server.base_url) as glm:
            over = time.monotonic() + SECONDS

            async def ask(number: int) -> None:
                done: Any
                chance = random.Random(number)
                while time.monotonic() < over:
                    task = asyncio.create_task(glm.chat(f"Open App{number}"))
                    await asyncio.wait([task], timeout=chance.random() * 0.1)
                    task.cancel()
                    done = (await asyncio.gather(task, return_exceptions=True))[0]
                    assert isinstance(done, asyncio.CancelledError) or done.action == Launch(f"App{number}")

            await asyncio.gather(*(ask(number) for number in range(20)))
            replies = await asyncio.wait_for(asyncio.gather(*(glm.chat(f"Open A{n}") for n in range(5))), 20)
            assert [reply.action for reply in replies] == [Launch(f"A{n}") for n in range(5)]
        await asyncio.to_thread(hold_still, before + 1)


def test_p11_streams_cancelled_under_contention() -> None:
    wrong: list[Any] = []
    with ScriptedServer(pace=0.003) as server:
        before = descriptors()
        with AutoGLM(server.base_url) as glm:
            over = time.monotonic() + SECONDS

            def ask(number: int) -> None:
                chance = random.Random(number)
                while time.monotonic() < over:
                    stream = glm.stream(f"Open App{number}")
                    timer = threading.Timer(chance.random() * 0.1, stream.cancel)
                    timer.start()
                    try:
                        with stream:
                            if stream.finish().action != Launch(f"App{number}"):
                                wrong.append(stream.reply)
                    except Cancelled:
                        pass
                    except AutoGLMError as error:
                        wrong.append(error)
                    timer.join()

            threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert wrong == []
            assert [glm.chat(f"Open A{n}").action for n in range(5)] == [Launch(f"A{n}") for n in range(5)]
        hold_still(before)
