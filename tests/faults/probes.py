"""Promises that no fault of the wire shows: each a small experiment, for our clients and for their peers.

A probe gives true when the promise was kept; some are of things that the peers do not offer.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_client import ActionError, AsyncAutoGLM, AutoGLM, AutoGLMError, Timeouts, image, parse_action
from server_stub import ScriptedServer, Server

from ..raw_server import HEAD, RawServer, Step, delta, kept, next_request, plain, raw_server, reset
from .catalogue import ANSWER, USUAL
from .drivers import KEY, MODEL, Library, chat_openai, one_limit

SOON = 3.0
OPEN: list[Step] = [HEAD, delta("a"), 20.0]
CUT: list[Step] = [HEAD, delta("a"), 0.02, reset]
PAUSE = plain(b"", "503 Busy", "Retry-After: 15")


class Subject:
    """A library, by what the probes do with it; ``make`` and ``amake`` are its two clients."""

    library: Library

    def make(self, url: str) -> Any:
        raise NotImplementedError

    def amake(self, url: str) -> Any:
        raise NotImplementedError

    def ask(self, client: Any, question: str = "x") -> str:
        raise NotImplementedError

    async def aask(self, client: Any, question: str = "x") -> str:
        raise NotImplementedError

    def stream(self, client: Any) -> Any:
        """An open answer, to be iterated over."""
        raise NotImplementedError

    async def astream(self, client: Any) -> AsyncIterator[Any]:
        raise NotImplementedError

    def cancel(self, stream: Any) -> None:
        """From another thread, while it is read."""
        stream.close()

    def end(self, client: Any) -> None:
        """From another thread, while it asks."""
        client.close()

    async def aend(self, client: Any) -> None:
        await client.close()


class Ours(Subject):
    library: Library = "ours"

    def make(self, url: str) -> Any:
        return AutoGLM(url, api_key=KEY, timeout=USUAL)

    def amake(self, url: str) -> Any:
        return AsyncAutoGLM(url, api_key=KEY, timeout=USUAL)

    def ask(self, client: Any, question: str = "x") -> str:
        return str(client.chat(question).text)

    async def aask(self, client: Any, question: str = "x") -> str:
        return str((await client.chat(question)).text)

    def stream(self, client: Any) -> Any:
        return client.stream("x").__enter__()

    async def astream(self, client: Any) -> AsyncIterator[Any]:
        stream: AsyncIterator[Any] = await client.stream("x").__aenter__()
        return stream

    def cancel(self, stream: Any) -> None:
        stream.cancel()


def _timeout(timeouts: Timeouts) -> Any:
    import httpx2

    return httpx2.Timeout(one_limit(timeouts), connect=timeouts.connect)


class OpenAIs(Subject):
    library: Library = "openai"

    def make(self, url: str) -> Any:
        from openai import OpenAI

        return OpenAI(base_url=url, api_key=KEY, timeout=_timeout(USUAL))

    def amake(self, url: str) -> Any:
        from openai import AsyncOpenAI

        return AsyncOpenAI(base_url=url, api_key=KEY, timeout=_timeout(USUAL))

    def ask(self, client: Any, question: str = "x") -> str:
        return str(client.chat.completions.create(**self._question(question)).choices[0].message.content)

    async def aask(self, client: Any, question: str = "x") -> str:
        return str((await client.chat.completions.create(**self._question(question))).choices[0].message.content)

    def stream(self, client: Any) -> Any:
        return client.chat.completions.create(**self._question("x"), stream=True)

    async def astream(self, client: Any) -> AsyncIterator[Any]:
        stream: AsyncIterator[Any] = await client.chat.completions.create(**self._question("x"), stream=True)
        return stream

    @staticmethod
    def _question(text: str) -> dict[str, Any]:
        return {"model": MODEL, "messages": [{"role": "user", "content": text}]}


class LangChains(Subject):
    library: Library = "ChatOpenAI"

    def make(self, url: str) -> Any:
        return chat_openai(url, USUAL)

    amake = make

    def ask(self, client: Any, question: str = "x") -> str:
        return str(client.invoke(question).text)

    async def aask(self, client: Any, question: str = "x") -> str:
        return str((await client.ainvoke(question)).text)

    def stream(self, client: Any) -> Any:
        return client.stream("x")

    async def astream(self, client: Any) -> AsyncIterator[Any]:
        stream: AsyncIterator[Any] = client.astream("x")
        return stream

    def end(self, client: Any) -> None:
        client.root_client.close()

    async def aend(self, client: Any) -> None:
        await client.root_async_client.close()


SUBJECTS: tuple[Subject, ...] = (Ours(), OpenAIs(), LangChains())


@dataclass(frozen=True)
class Probe:
    """One experiment."""

    promise: int
    name: str
    run: Callable[[Subject], bool]
    ours_alone: bool = False
    """Peers have no such thing."""

    def __str__(self) -> str:
        return f"P{self.promise}-{self.name.replace(' ', '-')}"


PROBES: list[Probe] = []
Run = Callable[[Subject], bool]


def probe(promise: int, *, ours_alone: bool = False) -> Callable[[Run], Run]:
    """Name a function a probe."""

    def take(run: Run) -> Run:
        PROBES.append(Probe(promise, run.__name__.strip("_").replace("_", " "), run, ours_alone))
        return run

    return take


@contextmanager
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _ends_soon(work: Callable[[], object]) -> threading.Thread:
    def quietly() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=quietly, daemon=True)
    thread.start()
    return thread


@probe(10)
def break_hangs_up(subject: Subject) -> bool:
    with raw_server(OPEN) as server, _no_collector():
        client = subject.make(server.url)
        for _ in subject.stream(client):
            break
        return server.hung_up.wait(SOON)


@probe(10)
def a_block_that_is_left_hangs_up(subject: Subject) -> bool:
    with raw_server(OPEN) as server, _no_collector():
        client = subject.make(server.url)
        with closing(subject.stream(client)) as stream:
            for _ in stream:
                break
        return server.hung_up.wait(SOON)


@probe(10)
def async_break_hangs_up(subject: Subject) -> bool:
    async def leave(server: RawServer) -> bool:
        async for _ in await subject.astream(subject.amake(server.url)):
            break
        return await asyncio.to_thread(server.hung_up.wait, SOON)

    with raw_server(OPEN) as server, _no_collector():
        return asyncio.run(leave(server))


@probe(10)
def another_thread_cancels(subject: Subject) -> bool:
    with raw_server(OPEN) as server:
        stream = subject.stream(subject.make(server.url))
        thread = _ends_soon(lambda: list(stream))
        server.wait_for(1)
        time.sleep(0.3)
        with suppress(Exception):
            subject.cancel(stream)
        thread.join(SOON)
        return not thread.is_alive() and server.hung_up.wait(SOON)


@probe(10)
def closing_the_client_ends_a_pause(subject: Subject) -> bool:
    with raw_server([PAUSE], [ANSWER]) as server:
        client = subject.make(server.url)
        thread = _ends_soon(lambda: subject.ask(client))
        server.wait_for(1)
        time.sleep(0.3)
        subject.end(client)
        thread.join(SOON)
        return not thread.is_alive() and len(server.requests) == 1


@probe(10)
def a_cancelled_task_hangs_up(subject: Subject) -> bool:
    async def cancelled(server: RawServer) -> bool:
        async def read() -> None:
            async for _ in await subject.astream(subject.amake(server.url)):
                pass

        task = asyncio.create_task(read())
        await asyncio.to_thread(server.wait_for, 1)
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.wait([task], timeout=SOON)
        return task.cancelled() and await asyncio.to_thread(server.hung_up.wait, SOON)

    with raw_server(OPEN) as server:
        return asyncio.run(cancelled(server))


@probe(11)
def tasks_cancelled_under_contention(subject: Subject) -> bool:
    async def contend(url: str) -> bool:
        client = subject.amake(url)
        over = time.monotonic() + 1.0

        async def ask(number: int) -> None:
            while time.monotonic() < over:
                task = asyncio.create_task(subject.aask(client))
                await asyncio.wait([task], timeout=(number % 7) * 0.01)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        await asyncio.gather(*(ask(number) for number in range(20)))
        texts = await asyncio.wait_for(asyncio.gather(*(subject.aask(client) for _ in range(5))), 15)
        await subject.aend(client)
        return len(texts) == 5 and all(texts)

    with ScriptedServer(pace=0.003) as server:
        return asyncio.run(contend(server.base_url))


FORKS = """
    import os, sys
    sys.path.insert(0, os.environ["ROOT"])
    from tests.faults.probes import SUBJECTS

    (subject,) = [subject for subject in SUBJECTS if subject.library == os.environ["LIBRARY"]]
    client = subject.make(os.environ["URL"])
    subject.ask(client)
    if not (child := os.fork()):
        print(subject.ask(client), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print(subject.ask(client), flush=True)
"""


@probe(12)
def a_child_takes_no_answer_of_its_parent(subject: Subject) -> bool:
    def said(text: str) -> bytes:
        return kept(ANSWER.replace(b'"ab"', f'"{text}"'.encode()))

    first: list[Step] = [said("p1"), next_request, said("p2"), 20.0]
    with raw_server(first, [said("c1"), 20.0]) as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(FORKS)],
            env={
                **os.environ,
                "URL": server.url,
                "LIBRARY": subject.library,
                "ROOT": str(Path(__file__).parent.parent.parent),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout.split() == ["c1", "p2"]


@probe(13)
def the_next_asyncio_run(subject: Subject) -> bool:
    with raw_server([kept(ANSWER), next_request, kept(ANSWER), 20.0]) as server:
        client = subject.amake(server.url)
        return [asyncio.run(subject.aask(client)) for _ in range(3)] == ["ab"] * 3


@probe(13)
def a_loop_for_each_thread(subject: Subject) -> bool:
    with raw_server([kept(ANSWER), next_request, kept(ANSWER), 20.0]) as server:
        client = subject.amake(server.url)
        texts: list[str] = []

        async def twice() -> None:
            for _ in range(2):
                texts.append(await subject.aask(client))

        threads = [_ends_soon(lambda: asyncio.run(twice())) for _ in range(4)]
        for thread in threads:
            thread.join(SOON * 2)
        return texts == ["ab"] * 8


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _leaks(before: int) -> bool:
    until = time.monotonic() + SOON
    while _descriptors() > before + 2 and time.monotonic() < until:
        time.sleep(0.05)
    return _descriptors() > before + 2


@probe(14)
def failing_calls_leak_nothing(subject: Subject) -> bool:
    with raw_server(CUT) as server:
        client = subject.make(server.url)
        for number in range(100):
            with suppress(Exception):
                list(subject.stream(client))
            if number == 5:
                before = _descriptors()
        return not _leaks(before)


@probe(14)
def failing_async_calls_leak_nothing(subject: Subject) -> bool:
    async def fail(url: str) -> bool:
        client = subject.amake(url)
        for number in range(100):
            with suppress(Exception):
                async for _ in await subject.astream(client):
                    pass
            if number == 5:
                before = _descriptors()
        leaks = await asyncio.to_thread(_leaks, before)
        await subject.aend(client)
        return not leaks

    with raw_server(CUT) as server:
        return asyncio.run(fail(server.url))


SILENT = plain(b'{"error":{"message":"Unauthorized","code":401}}', "401 Unauthorized")
ECHO = plain(f'{{"error":{{"message":"Incorrect API key: {KEY}","code":401}}}}'.encode(), "401 Unauthorized")


def _refused(subject: Subject, answer: bytes = SILENT) -> Exception:
    with raw_server([answer]) as server:
        try:
            subject.ask(subject.make(server.url))
        except Exception as error:
            return error
    raise AssertionError("a 401 is an error")


@probe(20)
def repr_of_the_client(subject: Subject) -> bool:
    return all(KEY not in form(make("http://127.0.0.1:9/v1")) for form in (repr, str) for make in _makers(subject))


@probe(20)
def the_clients_attributes(subject: Subject) -> bool:
    return all(KEY not in repr(vars(make("http://127.0.0.1:9/v1"))) for make in _makers(subject))


def _makers(subject: Subject) -> tuple[Callable[[str], Any], ...]:
    return subject.make, subject.amake


@probe(20)
def an_echo_in_the_error(subject: Subject) -> bool:
    error = _refused(subject, ECHO)
    return KEY not in str(error) + repr(error) + "".join(traceback.format_exception(error))


@probe(20)
def what_the_error_keeps(subject: Subject) -> bool:
    """Its attributes, and the headers of a request among them."""
    values = list(vars(_refused(subject)).values())
    headers = [dict(getattr(getattr(value, "request", value), "headers", {})) for value in values]
    return KEY not in repr(values) + repr(headers)


@probe(20)
def logs_at_every_level(subject: Subject) -> bool:
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.getMessage()} {record.args}")

    root, listener = logging.getLogger(), Listener(level=1)
    known = [root, *map(logging.getLogger, ("openai", "httpx2", "httpcore2", "httpcore", "langchain_openai"))]
    levels = [logger.level for logger in known]
    root.addHandler(listener)
    for logger in known:
        logger.setLevel(1)
    try:
        _refused(subject)
    finally:
        root.removeHandler(listener)
        for logger, level in zip(known, levels, strict=True):
            logger.setLevel(level)
    return bool(lines) and KEY not in "\n".join(lines)


@probe(20)
def a_pickle(subject: Subject) -> bool:
    """Of the client, of an error: it may fail, but it holds no key."""
    for thing in (subject.make("http://127.0.0.1:9/v1"), _refused(subject)):
        with suppress(Exception):
            if KEY.encode() in pickle.dumps(thing):
                return False
    return True


@probe(22)
def the_proxy_of_the_environment(subject: Subject) -> bool:
    with _proxied() as (server, proxy):
        return subject.ask(subject.make(server.url)) == "ab" and not proxy.requests


@probe(22)
def the_proxy_of_the_environment_async(subject: Subject) -> bool:
    with _proxied() as (server, proxy):
        return asyncio.run(subject.aask(subject.amake(server.url))) == "ab" and not proxy.requests


@contextmanager
def _proxied() -> Iterator[tuple[RawServer, RawServer]]:
    with raw_server([ANSWER]) as server, raw_server([ANSWER]) as proxy:
        os.environ["HTTP_PROXY"] = proxy.url.removesuffix("/v1")
        try:
            yield server, proxy
        finally:
            del os.environ["HTTP_PROXY"]


@probe(23, ours_alone=True)
def a_path_is_read_here(subject: Subject) -> bool:
    from server_stub.screen import Button, draw_screen

    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"screen-{os.getpid()}.png"
    path.write_bytes(draw_screen(108, 216, [Button("green", 6, 16, 32, 12)]))
    try:
        return "data:image/png;base64," in repr(image(path))
    finally:
        path.unlink()


@probe(23, ours_alone=True)
def what_is_no_picture_is_refused(subject: Subject) -> bool:
    refused = 0
    for source in ("file:///etc/hostname", "/etc/hostname", "/dev/zero", b"no picture"):
        try:
            image(source)
        except AutoGLMError:
            refused += 1
    return refused == 4


@probe(24, ours_alone=True)
def only_whole_literal_actions(subject: Subject) -> bool:
    refused = 0
    bad = ('do(action="Type", text="pay 15', 'do(action=__import__("os"))', 'do(action="Tap", element=[9**9, 1])', "x")
    for text in bad:
        try:
            parse_action(text)
        except ActionError:
            refused += 1
    return refused == len(bad)


@probe(25, ours_alone=True)
def closed_by_default(subject: Subject) -> bool:
    argv = list(Server(profile="2x24gb").command.argv)
    host = argv[argv.index("--host") + 1]
    return host == "127.0.0.1" and "--api-key" not in argv and "--allowed-local-media-path" not in argv


@probe(25, ours_alone=True)
def a_public_address_has_a_key(subject: Subject) -> bool:
    """One is made where none is given, and it is not in the command line, which every user of the machine can read."""
    server = Server(profile="2x24gb", host="0.0.0.0")
    return bool(server.api_key) and str(server.api_key) not in " ".join(server.command.argv)
