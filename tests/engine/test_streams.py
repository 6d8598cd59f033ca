"""Streams of a real engine under load, left early, and after a pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypedDict

import openai
import pytest

from autoglm_client import (
    AsyncAutoGLM,
    AutoGLM,
    AutoGLMError,
    Cancelled,
    DeadlineExceeded,
    Reply,
    StreamInterrupted,
    Timeouts,
)

from .clients import async_client
from .engine import MODEL, Engine


class Long(TypedDict):
    max_tokens: int
    ignore_eos: bool


LONG: Long = {"max_tokens": 4000, "ignore_eos": True}
FIXED: Long = {"max_tokens": 64, "ignore_eos": True}
QUESTIONS = [f"Open {app}" for app in ("Settings", "Chrome", "Gmail", "Maps", "Camera", "Clock", "Music", "Files")]


def has(engine: Engine, running: int, within: float = 1.0) -> bool:
    """Whether the number of running requests gets there in time; left alone, a ``LONG`` one runs for nine seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if engine.metric("vllm:num_requests_running") == running:
            return True
        time.sleep(0.02)
    return False


def leave(glm: AutoGLM, engine: Engine) -> None:
    with glm.stream("Go on", **LONG) as stream:
        next(stream)
        assert has(engine, running=1, within=5)


def fail_inside(glm: AutoGLM, engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), glm.stream("Go on", **LONG):
        assert has(engine, running=1, within=5)
        raise ZeroDivisionError


def run_out_of_time(glm: AutoGLM, engine: Engine) -> None:
    with pytest.raises(DeadlineExceeded) as raised, glm.stream("Go on", timeout=Timeouts(total=2), **LONG) as stream:
        stream.finish()
    assert raised.value.partial is not None
    assert not raised.value.partial.complete


def run_out_of_time_waiting(glm: AutoGLM, engine: Engine) -> None:
    with pytest.raises(DeadlineExceeded):
        glm.chat("Go on", timeout=1, **LONG)


def close_once_it_runs(engine: Engine, close: Callable[[], object]) -> None:
    assert has(engine, running=1, within=5)
    close()


def close_from_another_thread(glm: AutoGLM, engine: Engine) -> None:
    with glm.stream("Go on", **LONG) as stream:
        with ThreadPoolExecutor(1) as other:
            closing = other.submit(close_once_it_runs, engine, stream.close)
            with suppress(AutoGLMError):  # or it ends without: it depends on where the closing met the reading
                for _ in stream:
                    pass
            closing.result()
        assert has(engine, running=0)
        with pytest.raises(StreamInterrupted):
            stream.reply  # noqa: B018
        assert stream.partial.raw
        assert not stream.partial.complete


def cancel_from_another_thread(glm: AutoGLM, engine: Engine) -> None:
    with ThreadPoolExecutor(1) as other, glm.stream("Go on", **LONG) as stream:
        cancelling = other.submit(close_once_it_runs, engine, stream.cancel)
        with pytest.raises(Cancelled) as caught:
            stream.finish()
        cancelling.result()
        assert has(engine, running=0)
    assert caught.value.partial is not None
    assert caught.value.partial.raw


def break_off(glm: AutoGLM, engine: Engine) -> None:
    with glm.stream("Go on", **LONG) as stream:
        for _ in stream:
            break


def close_the_client_from_another_thread(glm: AutoGLM, engine: Engine) -> None:
    with ThreadPoolExecutor(1) as other:
        closing = other.submit(close_once_it_runs, engine, glm.close)
        with pytest.raises(Cancelled):
            glm.chat("Go on", **LONG)
        closing.result()


ENDS = [
    leave,
    fail_inside,
    run_out_of_time,
    run_out_of_time_waiting,
    break_off,
    cancel_from_another_thread,
    close_from_another_thread,
    close_the_client_from_another_thread,
]


@pytest.mark.parametrize("end", ENDS)
def test_an_abandoned_answer_ends_on_the_engine(
    glm: AutoGLM, plain: Engine, end: Callable[[AutoGLM, Engine], None]
) -> None:
    end(glm, plain)
    assert has(plain, running=0)
    assert glm.chat("Hi").complete


async def watch(glm: AsyncAutoGLM) -> None:
    async with glm.stream("Go on", **LONG) as stream:
        await stream.finish()


async def wait(glm: AsyncAutoGLM) -> None:
    await glm.chat("Go on", **LONG)


@pytest.mark.parametrize("ask", [watch, wait])
async def test_a_cancelled_task_ends_on_the_engine(
    plain: Engine, ask: Callable[[AsyncAutoGLM], Coroutine[None, None, None]]
) -> None:
    async with async_client(plain) as glm:
        task = asyncio.create_task(ask(glm))
        assert await asyncio.to_thread(has, plain, running=1, within=5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(has, plain, running=0)
        assert (await glm.chat("Hi")).complete


async def test_a_stream_that_another_thread_cancels_ends_on_the_engine(plain: Engine) -> None:
    async with async_client(plain) as glm, glm.stream("Go on", **LONG) as stream:
        reader = asyncio.create_task(stream.finish())
        assert await asyncio.to_thread(has, plain, running=1, within=5)
        await asyncio.to_thread(stream.cancel)
        with pytest.raises(Cancelled):
            await reader
        assert await asyncio.to_thread(has, plain, running=0)


async def test_a_stream_that_another_task_closes_ends_on_the_engine(plain: Engine) -> None:
    async with async_client(plain) as glm, glm.stream("Go on", **LONG) as stream:
        reader = asyncio.create_task(stream.finish())
        assert await asyncio.to_thread(has, plain, running=1, within=5)
        await stream.close()
        with pytest.raises(AutoGLMError):
            await reader
        assert await asyncio.to_thread(has, plain, running=0)
        assert not stream.partial.complete


async def test_eight_streams_run_at_the_same_time_and_do_not_mix(plain: Engine) -> None:
    async with async_client(plain) as glm:
        alone = [await glm.chat(question, **FIXED) for question in QUESTIONS]
        assert len({reply.text for reply in alone}) == len(QUESTIONS)
        await glm.close()
        all_have_begun = asyncio.Barrier(len(QUESTIONS))

        async def ask(question: str) -> Reply:
            async with glm.stream(question, **FIXED) as stream:
                await anext(stream)
                await all_have_begun.wait()
                return await stream.finish()

        assert await asyncio.gather(*map(ask, QUESTIONS)) == alone


async def test_many_questions_come_back_in_order(plain: Engine) -> None:
    async with async_client(plain) as glm:
        one_by_one = [await glm.chat(question) for question in QUESTIONS]
        assert await glm.map(QUESTIONS, concurrency=4) == one_by_one


async def test_the_async_stream_equals_the_sync_one(glm: AutoGLM, plain: Engine) -> None:
    async with async_client(plain) as async_glm, async_glm.stream("Open Settings") as stream:
        events = [event async for event in stream]
    with glm.stream("Open Settings") as sync_stream:
        assert list(sync_stream) == events
    assert stream.reply == sync_stream.reply


def test_a_connection_that_the_engine_closed_meanwhile_is_not_used_again(glm: AutoGLM) -> None:
    glm.chat("Hi")
    time.sleep(5.2)  # vLLM closes idle connections after 5 s
    assert glm.chat("Hi").attempts == 1


def test_another_client_reads_the_same_answer(glm: AutoGLM, plain: Engine) -> None:
    with openai.OpenAI(base_url=plain.base_url, api_key="none") as witness:
        answer = witness.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTIONS[0]}],
            temperature=0,
            max_tokens=64,
            extra_body={"skip_special_tokens": False},
        )
    reply = glm.chat(QUESTIONS[0])
    assert reply.raw == answer.choices[0].message.content
    assert reply.usage is not None
    assert answer.usage is not None
    assert reply.usage.completion_tokens == answer.usage.completion_tokens
