"""What the benchmarks share: a raw server of vLLM's shape in a process of its own, and CPU time taken in turn.

The server writes as fast as it is read, one event per HTTP chunk, so that what is measured is the client.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import random
import re
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

Run = Callable[[], object]

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


def completion() -> bytes:
    """The same answer in one piece, a short one."""
    message = {"role": "assistant", "content": '<think>I go back.</think><answer>do(action="Back")'}
    body = json.dumps(
        {
            "id": "chatcmpl-a39e43eb2b523610",
            "object": "chat.completion",
            "created": 1795224173,
            "model": "autoglm-phone-9b",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
        }
    ).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


COMPLETION = completion()


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
        while request := read_request(connection):
            streamed = re.search(rb'"stream": ?true', request)
            for piece in (HEAD, *pieces) if streamed else (COMPLETION,):
                connection.sendall(piece)


def read_request(connection: socket.socket) -> bytes:
    """One request; nothing when the client has gone."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (data := connection.recv(65536)):
            return b""
        request += data
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while len(body) < (int(length[1]) if length else 0):
        body += connection.recv(65536)
    return head + body


@contextmanager
def server(chunks: int) -> Iterator[str]:
    """The base URL of a running server."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(there, chunks), daemon=True)
    process.start()
    yield f"http://127.0.0.1:{here.recv()}/v1"
    process.terminate()


def options(description: str | None) -> argparse.Namespace:
    """What every benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--chunks", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


@contextmanager
def driving() -> Iterator[Callable[[Callable[[], Awaitable[object]]], Run]]:
    """Make sync functions of async ones; all run in one event loop."""
    with asyncio.Runner() as runner:

        def driven(run: Callable[[], Awaitable[object]]) -> Run:
            async def awaited() -> object:
                return await run()

            return lambda: runner.run(awaited())

        yield driven


def cpu_of(run: Run) -> float:
    """CPU time of this process: the server and other programs do not count."""
    gc.collect()
    started = time.process_time()
    run()
    return time.process_time() - started


def compare(name: str, runs: dict[str, Run], *, per: int, rounds: int) -> None:
    """Measure all in turn; print the medians, and the ratios of the first to each other, round by round."""
    for run in runs.values():
        run()
    measured = [{who: cpu_of(run) for who, run in runs.items()} for _ in range(rounds)]
    first, *others = runs
    told = [f"{who} {statistics.median(it[who] for it in measured) / per * 1e6:7.1f} us" for who in runs]
    ratios = [statistics.median(it[other] / it[first] for it in measured) for other in others]
    print(
        f"{name:14}",
        "   ".join(told),
        "  ",
        "   ".join(f"1/{it:.1f} of {who}" for it, who in zip(ratios, others, strict=True)),
    )
