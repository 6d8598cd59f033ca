"""One call, made from a thread or from a task; each says how it ended."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from threading import Timer

from autoglm_client import AsyncAutoGLM, AsyncReplyStream, AutoGLM, Event, ReplyStream

from .judge import Judge
from .plans import Plan


def ask(glm: AutoGLM, plan: Plan, judge: Judge) -> str:
    """Make a call from a thread."""
    try:
        with AutoGLM(**plan.own_client) if plan.own_client else nullcontext(glm) as client:
            if plan.streamed:
                return _read(client.stream(plan.messages, **plan.options), plan, judge)
            return judge.of_reply(plan, client.chat(plan.messages, **plan.options))
    except BaseException as error:  # noqa: BLE001 - whatever comes out that should not is what is looked for
        return judge.of_error(plan, error)


def _read(stream: ReplyStream, plan: Plan, judge: Judge) -> str:
    if plan.kind == "cancel":
        Timer(plan.seconds, stream.cancel).start()
    heard: list[Event] = []
    try:
        with stream:
            for event in stream:
                heard.append(event)
                if plan.leaves(len(heard)):
                    break
    finally:
        plan.attempts = stream.partial.attempts
    return judge.of_stream(plan, stream, heard)


async def ask_async(glm: AsyncAutoGLM, plan: Plan, judge: Judge) -> str:
    """Make a call from a task."""
    try:
        async with (
            asyncio.timeout(plan.seconds if plan.kind == "task cancel" else None),
            AsyncAutoGLM(**plan.own_client) if plan.own_client else nullcontext(glm) as client,
        ):
            if plan.streamed:
                return await _read_async(client.stream(plan.messages, **plan.options), plan, judge)
            return judge.of_reply(plan, await client.chat(plan.messages, **plan.options))
    except BaseException as error:  # noqa: BLE001 - whatever comes out that should not is what is looked for
        return judge.of_error(plan, error)


async def _read_async(stream: AsyncReplyStream, plan: Plan, judge: Judge) -> str:
    if plan.kind == "cancel" and plan.number % 2:  # by its own loop, or by another thread
        asyncio.get_running_loop().call_later(plan.seconds, stream.cancel)
    elif plan.kind == "cancel":
        Timer(plan.seconds, stream.cancel).start()
    heard: list[Event] = []
    try:
        async with stream:
            async for event in stream:
                heard.append(event)
                if plan.leaves(len(heard)):
                    break
    finally:
        plan.attempts = stream.partial.attempts
    return judge.of_stream(plan, stream, heard)
