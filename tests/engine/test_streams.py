"""Streams of a real engine under load, left early, and after a pause."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypedDict

import openai
import pytest

from autoglm_client import AutoGLM, AutoGLMError, DeadlineExceeded, Reply, Timeouts

from .clients import async_client
from .dictation import dictated
from .engine import MODEL, Engine


class Long(TypedDict):
    max_tokens: int
    ignore_eos: bool


LONG: Long = {"max_tokens": 4000, "ignore_eos": True}
QUESTIONS = [f"Open WeChat and say hello to friend {number}" for number in range(8)]


def has(engine: Engine, running: int, within: float = 2.0) -> bool:
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


def close_from_another_thread(glm: AutoGLM, engine: Engine) -> None:
    with glm.stream("Go on", **LONG) as stream:
        closer = threading.Timer(0.5, stream.close)
        closer.start()
        with suppress(AutoGLMError):
            stream.finish()
        closer.join()
        assert not stream.partial.complete


@pytest.mark.parametrize(
    "end", [leave, fail_inside, run_out_of_time, run_out_of_time_waiting, close_from_another_thread]
)
def test_an_abandoned_answer_ends_on_the_engine(
    glm: AutoGLM, plain: Engine, end: Callable[[AutoGLM, Engine], None]
) -> None:
    end(glm, plain)
    assert has(plain, running=0)
    assert glm.chat("Hi").complete


async def test_a_cancelled_task_ends_on_the_engine(plain: Engine) -> None:
    async with async_client(plain) as glm:
        first = asyncio.Event()

        async def ask() -> None:
            async with glm.stream("Go on", **LONG) as stream:
                async for _ in stream:
                    first.set()

        task = asyncio.create_task(ask())
        await first.wait()
        assert await asyncio.to_thread(has, plain, running=1, within=5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(has, plain, running=0)
        assert (await glm.chat("Hi")).complete


async def test_eight_streams_run_at_the_same_time_and_do_not_mix(plain: Engine) -> None:
    async with async_client(plain) as glm:
        alone = [await glm.chat(question, max_tokens=64) for question in QUESTIONS]
        await glm.close()
        all_have_begun = asyncio.Barrier(len(QUESTIONS))

        async def ask(question: str) -> Reply:
            async with glm.stream(question, max_tokens=64) as stream:
                await anext(stream)
                await all_have_begun.wait()
                return await stream.finish()

        assert await asyncio.gather(*map(ask, QUESTIONS)) == alone


async def test_many_questions_come_back_in_order(plain: Engine) -> None:
    async with async_client(plain) as glm:
        one_by_one = [await glm.chat(question) for question in QUESTIONS]
        assert await glm.map(QUESTIONS, concurrency=4) == one_by_one


async def test_the_async_stream_equals_the_sync_one(glm: AutoGLM, plain: Engine) -> None:
    options = dictated(plain, '<think>The task is done.</think><answer>do(action="Back")</answer>')
    async with async_client(plain) as async_glm, async_glm.stream("Hi", **options) as stream:
        events = [event async for event in stream]
    with glm.stream("Hi", **options) as sync_stream:
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
            max_tokens=32,
            extra_body={"skip_special_tokens": False},
        )
    reply = glm.chat(QUESTIONS[0])
    assert reply.raw == answer.choices[0].message.content
    assert reply.usage is not None
    assert answer.usage is not None
    assert reply.usage.completion_tokens == answer.usage.completion_tokens
