"""CPU time per streamed chunk: this client against openai-python, in turn, in one run.

``python -m benchmarks.stream_cpu [--chunks N] [--rounds N]``. Quote the ratios, not the microseconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import openai

from autoglm_client import AsyncAutoGLM, AutoGLM

from .in_turn import compare, driving, options, server


def ours(url: str) -> Callable[[], object]:
    glm = AutoGLM(url)

    def run() -> None:
        with glm.stream("x") as answer:
            for _ in answer:
                pass
            assert answer.reply.action is not None

    return run


def theirs(url: str) -> Callable[[], object]:
    client = openai.OpenAI(base_url=url, api_key="x")

    def run() -> None:
        for _ in client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True):
            pass

    return run


def ours_async(url: str) -> Callable[[], Awaitable[object]]:
    glm = AsyncAutoGLM(url)

    async def run() -> None:
        async with glm.stream("x") as answer:
            async for _ in answer:
                pass
            assert answer.reply.action is not None

    return run


def theirs_async(url: str) -> Callable[[], Awaitable[object]]:
    client = openai.AsyncOpenAI(base_url=url, api_key="x")

    async def run() -> None:
        async for _ in await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        ):
            pass

    return run


def main() -> None:
    given = options(__doc__)
    with server(given.chunks) as url, driving() as driven:
        sync = {"autoglm": ours(url), "openai": theirs(url)}
        compare("sync", sync, per=given.chunks, rounds=given.rounds)
        asynchronous = {"autoglm": driven(ours_async(url)), "openai": driven(theirs_async(url))}
        compare("async", asynchronous, per=given.chunks, rounds=given.rounds)


if __name__ == "__main__":
    main()
