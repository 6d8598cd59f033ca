"""P13: an async client works in any event loop, and in several."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import httpx
import httpx2
import pytest

from autoglm_client import AsyncAutoGLM, Cancelled, ConfigurationError, Launch
from server_stub import ScriptedServer

from ..raw_server import HEAD, delta, raw_server
from .test_p11_pool import descriptors, hold_still

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
with suppress(ImportError):  # it is not among the requirements
    LOOPS["uvloop"] = __import__("uvloop").new_event_loop

pytestmark = pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)


async def answers(glm: AsyncAutoGLM, *names: str) -> None:
    replies = await asyncio.gather(*(glm.chat(f"Open {name}") for name in names))
    assert [reply.action for reply in replies] == [Launch(name) for name in names]


def run(new_loop: LoopFactory, awaited: Any) -> Any:
    with asyncio.Runner(loop_factory=new_loop, debug=True) as runner:
        return runner.run(awaited)


@pytest.mark.parametrize("closes", [False, True])
def test_p13_one_run_after_another(server: ScriptedServer, new_loop: LoopFactory, closes: bool) -> None:
    glm = AsyncAutoGLM(server.base_url)

    async def ask(number: int) -> None:
        await answers(glm, f"A{number}", f"B{number}")
        if closes:
            await glm.close()

    for number in range(4):
        run(new_loop, ask(number))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)
def test_p13_a_client_of_ones_own_stays_in_its_loop(
    server: ScriptedServer, new_loop: LoopFactory, library: Any
) -> None:
    own = library.AsyncClient(trust_env=False)
    glm = AsyncAutoGLM(server.base_url, http_client=own)
    run(new_loop, answers(glm, "A"))
    with pytest.raises(ConfigurationError, match="Event loop is closed"):
        run(new_loop, answers(glm, "B"))
    gc.collect()


def test_p13_two_loops_at_once(server: ScriptedServer, new_loop: LoopFactory) -> None:
    before = descriptors()
    glm = AsyncAutoGLM(server.base_url)
    together = threading.Barrier(2, timeout=20)
    failures: list[BaseException] = []

    async def ask(name: str) -> None:
        for number in range(10):
            await asyncio.to_thread(together.wait)
            await answers(glm, *(f"{name}{number}x{part}" for part in range(4)))

    def in_a_thread(name: str) -> None:
        try:
            run(new_loop, ask(name))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=in_a_thread, args=(name,)) for name in "AB"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    hold_still(before)


def test_p13_closed_in_another_loop(server: ScriptedServer, new_loop: LoopFactory) -> None:
    """What another loop opened stays open: its sockets can be closed there alone."""
    before = descriptors()
    glm = AsyncAutoGLM(server.base_url)
    with asyncio.Runner(loop_factory=new_loop) as first:
        first.run(answers(glm, "A"))
        run(new_loop, glm.close())
        first.run(answers(glm, "B"))
        assert len(glm._pool._clients) == 1
    assert glm._pool._clients == {}
    hold_still(before)


def test_p13_closing_ends_the_calls_of_its_own_loop_alone(new_loop: LoopFactory) -> None:
    with raw_server([HEAD, delta("a"), 20.0]) as server:
        glm = AsyncAutoGLM(server.url)

        async def read() -> Any:
            async with glm.stream("x") as stream:
                await anext(stream)
                await asyncio.to_thread(run, new_loop, glm.close())
                assert not stream._call.clock.cancelled
                await glm.close()
                with pytest.raises(Cancelled):
                    await stream.finish()

        run(new_loop, read())


def test_p13_a_loop_that_ends_with_the_client_unclosed(server: ScriptedServer, new_loop: LoopFactory) -> None:
    """Warnings would be errors here."""
    glm = AsyncAutoGLM(server.base_url)
    before = descriptors()
    for _ in range(5):
        loop = new_loop()
        loop.run_until_complete(answers(glm, "A"))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    run(new_loop, answers(glm, "B"))
    del glm
    gc.collect()
    hold_still(before)


def test_p13_an_abandoned_stream_in_a_loop_that_ends(new_loop: LoopFactory) -> None:
    with raw_server([HEAD, delta("a"), 20.0]) as server:
        glm = AsyncAutoGLM(server.url)

        async def events() -> AsyncIterator[Any]:
            async with glm.stream("x") as stream:
                async for event in stream:
                    yield event

        async def leave() -> Any:
            return await anext(events())

        for _ in range(3):
            run(new_loop, leave())
            gc.collect()
        assert server.hung_up.wait(8)
