"""P10: no call waits for the garbage collector: an error, and all it leads to, goes with the last who holds it."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from autoglm_client import AsyncAutoGLM, AutoGLM, AutoGLMError
from autoglm_client.actions import parse_action

from ..raw_server import HEAD, Step, delta, event, finish, plain, raw_server, reset

OURS = ("autoglm_client", "tenacity")
SOON = 0.3  # seconds
UNAVAILABLE = plain(b"{}", "503 Service Unavailable", "Retry-After: 0")
WAIT = plain(b"{}", "503 Service Unavailable", "Retry-After: 20")
CUT: list[Step] = [HEAD, delta("hello"), reset]
WHOLE = plain(b'{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]} ')
FINE: list[Step] = [HEAD, delta("hello"), finish()]

ENDS: dict[str, tuple[list[list[Step]], dict[str, Any]]] = {
    "a reply": ([FINE], {}),
    "a reply, then a reset": ([[*FINE, reset]], {}),
    "a refusal": ([[UNAVAILABLE]], {"max_attempts": 1}),
    "refusals": ([[UNAVAILABLE]], {}),
    "a refusal, then a reply": ([[UNAVAILABLE], FINE], {}),
    "a reset": ([[reset]], {"max_attempts": 1}),
    "a reset, then a reply": ([[reset], FINE], {}),
    "a cut": ([CUT], {}),
    "a cut, then the rest": ([CUT, FINE], {"resume": "always"}),
    "a cut, then a refusal": ([CUT, [UNAVAILABLE]], {"resume": "always"}),
    "a cut, then a cut": ([CUT], {"resume": "always"}),
    "a cut, then silence": ([CUT, [20.0]], {"resume": "always", "timeout": SOON}),
    "an error as the first event": ([[HEAD, event('{"error":{"code":500}}')]], {"max_attempts": 1}),
    "no event": ([[HEAD, event("{")]], {}),
    "an event, then none": ([[HEAD + delta("hello") + event("{")]], {}),
    "an answer in one piece, cut": ([[plain(b"{}" * 9)[:-9]]], {"max_attempts": 1}),
    "a whole answer, cut": ([[WHOLE[:-1]]], {}),
    "not HTTP": ([[b"hello\r\n\r\n"]], {}),
    "a bomb's head": ([[HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), b"hello"]], {}),
    "elsewhere": ([[plain(b"", "307 Temporary Redirect", "Location: http://127.0.0.1:9/")]], {}),
    "silence before the head": ([[20.0]], {"timeout": SOON}),
    "silence before an event": ([[HEAD, 20.0]], {"timeout": SOON}),
    "silence in the answer": ([[HEAD, delta("hello"), 20.0]], {"timeout": SOON}),
    "a pause that is too long": ([[WAIT]], {"timeout": SOON}),
}


def chat(glm: AutoGLM) -> None:
    glm.chat("x")


def stream(glm: AutoGLM) -> None:
    with glm.stream("x") as answer:
        with suppress(AutoGLMError):
            answer.finish()
        assert answer.reply.text


def abandoned(glm: AutoGLM) -> None:
    next(glm.stream("x").__enter__())


def left(glm: AutoGLM) -> None:
    with glm.stream("x") as answer:
        next(answer)


def left_by_an_error(glm: AutoGLM) -> None:
    with suppress(ZeroDivisionError), glm.stream("x") as answer:
        next(answer)
        raise ZeroDivisionError


def cancelled(glm: AutoGLM) -> None:
    answer = glm.stream("x")
    threading.Timer(0.1, answer.cancel).start()
    with answer:
        answer.finish()


def models(glm: AutoGLM) -> None:
    glm.models()


async def chat_async(glm: AsyncAutoGLM) -> None:
    await glm.chat("x")


async def stream_async(glm: AsyncAutoGLM) -> None:
    async with glm.stream("x") as answer:
        with suppress(AutoGLMError):
            await answer.finish()
        assert answer.reply.text


async def left_async(glm: AsyncAutoGLM) -> None:
    async with glm.stream("x") as answer:
        await anext(answer)


async def left_by_an_error_async(glm: AsyncAutoGLM) -> None:
    with suppress(ZeroDivisionError):
        async with glm.stream("x") as answer:
            await anext(answer)
            raise ZeroDivisionError


async def cancelled_async(glm: AsyncAutoGLM) -> None:
    answer = glm.stream("x")
    asyncio.get_running_loop().call_later(0.1, answer.cancel)
    async with answer:
        await answer.finish()


async def task_cancelled(glm: AsyncAutoGLM) -> None:
    task = asyncio.create_task(chat_async(glm))
    asyncio.get_running_loop().call_later(0.1, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


async def models_async(glm: AsyncAutoGLM) -> None:
    await glm.models()


LEAVING = ["a reply", "refusals", "a cut", "an event, then none", "silence before the head", "silence in the answer"]
TRIED = [(end, ask) for ask in (chat, stream, models) for end in ENDS]
TRIED += [(end, ask) for ask in (abandoned, left, left_by_an_error, cancelled) for end in LEAVING]
TRIED_ASYNC = [(end, ask) for ask in (chat_async, stream_async, models_async) for end in ENDS]
TRIED_ASYNC += [
    (end, ask) for ask in (left_async, left_by_an_error_async, cancelled_async, task_cancelled) for end in LEAVING
]


@pytest.fixture
def circles() -> Iterator[Callable[[], Counter[str]]]:
    """Tells what of ours the collector alone would free."""
    gc.collect()
    gc.freeze()  # what was there before need not be looked at
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)

    def found() -> Counter[str]:
        gc.collect()
        names = Counter(
            f"{type(it).__module__}.{type(it).__qualname__}"
            for it in gc.garbage
            if type(it).__module__.startswith(OURS)
        )
        gc.garbage.clear()
        return names

    try:
        yield found
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()


def ended(ask: Callable[[], object]) -> None:
    with suppress(AutoGLMError):
        ask()


Circles = Callable[[], Counter[str]]


@pytest.mark.parametrize(("end", "ask"), TRIED)
def test_p10_no_circle_is_left(circles: Circles, end: str, ask: Callable[[AutoGLM], None]) -> None:
    scripts, options = ENDS[end]
    with raw_server(*scripts) as server, AutoGLM(server.url, **options) as glm:
        ended(lambda: ask(glm))
        assert circles() == {}


@pytest.mark.parametrize(("end", "ask"), TRIED_ASYNC)
def test_p10_no_circle_is_left_async(
    circles: Circles, end: str, ask: Callable[[AsyncAutoGLM], Awaitable[None]]
) -> None:
    scripts, options = ENDS[end]

    async def run(url: str) -> Counter[str]:
        async with AsyncAutoGLM(url, **options) as glm:
            with suppress(AutoGLMError):
                await ask(glm)
            return circles()

    with raw_server(*scripts) as server:
        assert asyncio.run(run(server.url)) == {}


@pytest.mark.parametrize("text", ["hello", "do(action=", 'do(action="Fly")', 'Now do(action="Fly"), please', "{"])
def test_p10_no_circle_of_an_answer_that_is_no_action(circles: Circles, text: str) -> None:
    ended(lambda: parse_action(text))
    with raw_server([HEAD, delta(text), finish()]) as server, AutoGLM(server.url) as glm:
        ended(lambda: glm.chat("x").action)
        assert circles() == {}


def test_p10_no_circle_of_an_answer_of_another_shape(circles: Circles) -> None:
    from pydantic import BaseModel

    class Place(BaseModel):
        x: int

    with raw_server(FINE) as server, AutoGLM(server.url) as glm:
        ended(lambda: glm.parse("x", Place))
        assert circles() == {}


def test_p10_the_circles_are_seen(circles: Circles) -> None:
    error = AutoGLMError("x")
    error.args = (error,)
    del error
    assert circles() == {"autoglm_client.errors.AutoGLMError": 1}
