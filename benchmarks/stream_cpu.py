"""CPU time per streamed chunk: this client against openai-python, in turn, in one run.

``python -m benchmarks.stream_cpu [--chunks N] [--rounds N]`` starts a raw server in a process of its own, which writes
a stream of vLLM's shape as fast as it is read, one event per HTTP chunk. What is printed is CPU time of this process:
the server and other programs do not count. Quote the ratios, not the microseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import random
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import openai

from autoglm_client import AsyncAutoGLM, AutoGLM

WORDS = (
    "the user wants to open a page that shows what is on this screen so first tap close and look for it then".split()
)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def event(delta: dict[str, str] | None, finish: str | None = None) -> bytes:
    """An event as vLLM 0.32 writes it."""
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish, "token_ids": None}
    chunk = {
        "id": "chatcmpl-a39e43eb2b523610",
        "object": "chat.completion.chunk",
        "created": 1795224173,
        "model": "autoglm-phone-9b",
        "choices": [choice],
    }
    data = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def stream(chunks: int) -> list[bytes]:
    """Thinking, then an action."""
    chance = random.Random(1)  # the same words each time, and no loop that a client might notice
    words = [event({"content": "<think>"}), *(event({"content": f" {chance.choice(WORDS)}"}) for _ in range(chunks))]
    done = b"data: [DONE]\n\n"
    end = event({}, "stop") + f"{len(done):x}\r\n".encode() + done + b"\r\n0\r\n\r\n"
    return [*words, event({"content": '</think><answer>do(action="Back")'}), end]


def serve(pipe: Connection, chunks: int) -> None:
    """Answer every request with the stream."""
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname()[1])
    pieces = stream(chunks)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, pieces), daemon=True).start()


def answer(connection: socket.socket, pieces: list[bytes]) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        while connection.recv(65536).endswith(b"}") or connection.recv(65536):  # headers and body may come apart
            connection.sendall(HEAD)
            for piece in pieces:
                connection.sendall(piece)


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


def cpu_of(run: Callable[[], object]) -> float:
    gc.collect()
    started = time.process_time()
    run()
    return time.process_time() - started


def compare(name: str, one: Callable[[], object], other: Callable[[], object], chunks: int, rounds: int) -> None:
    """Measure both in turn and print medians and the ratio round by round."""
    one(), other()
    pairs = [(cpu_of(one), cpu_of(other)) for _ in range(rounds)]
    mine, peer = (statistics.median(side) / chunks * 1e6 for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"{name:6} autoglm {mine:6.1f} us/chunk   openai {peer:6.1f} us/chunk   ratio {ratio:.3f} (1/{1 / ratio:.1f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there, options.chunks), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    compare("sync", ours(url), theirs(url), options.chunks, options.rounds)
    with asyncio.Runner() as runner:

        def driven(run: Callable[[], Awaitable[object]]) -> Callable[[], object]:
            async def awaited() -> object:
                return await run()

            return lambda: runner.run(awaited())

        compare("async", driven(ours_async(url)), driven(theirs_async(url)), options.chunks, options.rounds)
    server.terminate()


if __name__ == "__main__":
    main()
