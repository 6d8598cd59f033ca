"""P10: cancel is immediate and releases the connection, whatever the call waits for."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import httpx2
import pytest

from autoglm_client import AsyncAutoGLM, AutoGLM, AutoGLMError, Cancelled, Reply, StreamInterrupted, Timeouts
from autoglm_client._concurrency import Together
from autoglm_client.timeouts import CallClock

from ..conftest import ClientFactory
from ..raw_server import DONE, HEAD, Step, deaf_server, delta, finish, kept, next_request, plain, raw_server

AT_ONCE = 3.0  # seconds: what is waited for would take 20; a busy machine takes its time to wake a thread
BUSY = plain(b"", "503 Service Unavailable", "Retry-After: 20")
ANSWER = plain(b'{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}')

WAITS: dict[str, list[Any]] = {
    "for the head": [20.0],
    "for the first event": [HEAD, 20.0],
    "with pings": [HEAD, *[b": ping\n\n", 0.05] * 400],
    "for the next event": [HEAD, delta("a"), 20.0],
    "inside an event": [HEAD, delta("a"), b"data: {", 20.0],
    "for an answer in one piece": [plain(b'{"choices"', "200 OK")[:-3], 20.0],
    "before it asks again": [BUSY],
}


@contextmanager
def at_once() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < AT_ONCE


def cancel_when_asked(server: Any, stream: Any) -> None:
    """From another thread, once the request has come and the client waits."""

    def run() -> None:
        server.wait_for(1)
        time.sleep(0.2)
        stream.cancel()

    threading.Thread(target=run, daemon=True).start()


def read(stream: Any) -> None:
    with stream:
        stream.finish()


@pytest.mark.parametrize("script", WAITS.values(), ids=WAITS)
def test_p10_cancel_from_another_thread_while_it_waits(make_client: ClientFactory, script: list[Step]) -> None:
    with raw_server(script) as server:
        stream = make_client(server.url).stream("x")
        cancel_when_asked(server, stream)
        with at_once(), pytest.raises(Cancelled, match="cancelled") as caught:
            read(stream)
        error = caught.value
        assert (error.category, error.retryable, error.attempts) == ("cancelled", False, 1)
        assert (error.partial.text if error.partial else "") == ("a" if delta("a") in script else "")
        if script != [BUSY]:
            assert server.hung_up.wait(AT_ONCE)
        time.sleep(0.3)
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["connecting", "the handshake", "the upload"])
def test_p10_cancel_before_anything_was_answered(make_client: ClientFactory, kind: str) -> None:
    with deaf_server(accepts=kind != "connecting") as address:
        scheme = "https" if kind == "the handshake" else "http"
        stream = make_client(f"{scheme}://{address}/v1", timeout=Timeouts(connect=20)).stream("x" * 20_000_000)
        threading.Timer(0.5, stream.cancel).start()
        with at_once(), pytest.raises(Cancelled):
            read(stream)


def test_p10_cancel_before_the_call(make_client: ClientFactory) -> None:
    with raw_server([ANSWER]) as server:
        stream = make_client(server.url).stream("x")
        stream.cancel()
        with pytest.raises(Cancelled) as caught:
            read(stream)
        assert caught.value.attempts == len(server.requests) == 0


def test_p10_cancel_drops_what_was_not_read(make_client: ClientFactory) -> None:
    script: list[Step] = [HEAD, delta("a") + delta("b") + delta("c"), 20.0]
    with raw_server(script) as server, make_client(server.url).stream("x") as stream:
        assert next(iter(stream)).text == "a"
        stream.cancel()
        stream.cancel()
        for ask in (lambda: next(stream), lambda: stream.reply, stream.finish):
            with pytest.raises(Cancelled) as caught:
                ask()
            assert isinstance(caught.value.partial, Reply)
            assert caught.value.partial.text == stream.partial.text == "abc"
        assert server.hung_up.wait(AT_ONCE)


def test_p10_a_complete_answer_stays_complete(make_client: ClientFactory) -> None:
    with raw_server([HEAD, delta("a") + finish(), 20.0]) as server:
        with make_client(server.url).stream("x") as stream:
            stream.cancel()
            assert stream.finish().text == "a"
        stream.cancel()
        assert stream.reply.finish_reason == "stop"


def test_p10_a_cancelled_call_leaves_the_next_one_alone(make_client: ClientFactory) -> None:
    with raw_server([kept(ANSWER), next_request, HEAD, delta("a"), 0.3, delta("b"), finish()]) as server:
        glm = make_client(server.url)
        with glm.stream("x") as first:
            first.finish()
        with glm.stream("x") as second:
            first.cancel()  # its connection is the other's by now
            assert second.finish().text == "ab"
        assert len(server.requests) == 1


@pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)
def test_p10_cancel_with_a_client_of_ones_own(library: Any) -> None:
    with raw_server(WAITS["for the next event"]) as server, library.Client() as own:
        stream = AutoGLM(server.url, http_client=own).stream("x")
        cancel_when_asked(server, stream)
        with at_once(), pytest.raises(Cancelled):
            read(stream)
        assert server.hung_up.wait(AT_ONCE)


@pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)
@pytest.mark.parametrize("script", WAITS.values(), ids=WAITS)
async def test_p10_cancel_with_an_async_client_of_ones_own(library: Any, script: list[Step]) -> None:
    with raw_server(script) as server:
        async with library.AsyncClient() as own:
            stream = AsyncAutoGLM(server.url, http_client=own).stream("x")
            cancel_when_asked(server, stream)
            with at_once(), pytest.raises(Cancelled):
                async with stream:
                    await stream.finish()


def test_p10_cancel_with_a_client_that_has_no_sockets() -> None:
    class Piece(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield delta("a")
            stream.cancel()
            yield delta("b")

    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Piece())

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as own:
        stream = AutoGLM("http://h/v1", http_client=own).stream("x")
        with pytest.raises(Cancelled):
            read(stream)


def test_p10_a_thread_that_does_something_else_is_not_needed() -> None:
    with raw_server(WAITS["for the next event"]) as server, AutoGLM(server.url) as glm, glm.stream("x") as stream:
        next(stream)
        threading.Thread(target=stream.cancel).start()
        assert server.hung_up.wait(AT_ONCE)


async def test_p10_a_task_that_does_something_else_is_left_alone() -> None:
    with raw_server(WAITS["for the next event"]) as server:
        async with AsyncAutoGLM(server.url) as glm, glm.stream("x") as stream:
            await anext(stream)
            asyncio.get_running_loop().call_later(0.1, stream.cancel)
            await asyncio.sleep(0.3)
            assert await asyncio.to_thread(server.hung_up.wait, AT_ONCE)
            with pytest.raises(Cancelled):
                await anext(stream)


async def test_p10_a_cancelled_stream_is_no_cancelled_task() -> None:
    with raw_server(WAITS["for the next event"]) as server:
        async with AsyncAutoGLM(server.url) as glm, glm.stream("x") as stream:
            asyncio.get_running_loop().call_later(0.2, stream.cancel)
            with pytest.raises(Cancelled):
                await stream.finish()
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0


@pytest.mark.parametrize("script", WAITS.values(), ids=WAITS)
@pytest.mark.parametrize("also", [False, True])
async def test_p10_a_cancelled_task(script: list[Step], also: bool) -> None:
    """``task.cancel()`` stays what it is, also when the stream is cancelled in the same moment."""
    with raw_server(script) as server:
        async with AsyncAutoGLM(server.url) as glm:
            stream = glm.stream("x")

            async def ask() -> None:
                async with stream:
                    await stream.finish()

            task = asyncio.create_task(ask())
            await asyncio.to_thread(server.wait_for, 1)
            await asyncio.sleep(0.2)
            if also:
                stream.cancel()
                await asyncio.sleep(0)
            task.cancel()
            with at_once(), pytest.raises(asyncio.CancelledError):
                await task
            assert script == [BUSY] or await asyncio.to_thread(server.hung_up.wait, AT_ONCE)


async def test_p10_cancelled_after_its_loop_has_ended() -> None:
    with raw_server(WAITS["for the next event"]) as server:
        streams: list[Any] = []

        async def leave() -> None:
            glm = AsyncAutoGLM(server.url)
            streams.append(glm.stream("x"))
            await streams[0].__aenter__()

        await asyncio.to_thread(asyncio.run, leave())
        streams[0].cancel()
        with pytest.raises(Cancelled):
            _ = streams[0].reply


@pytest.mark.parametrize("script", WAITS.values(), ids=WAITS)
def test_p10_closing_the_client_ends_its_calls(script: list[Step]) -> None:
    with raw_server(script, [ANSWER]) as server:
        glm = AutoGLM(server.url)

        def close() -> None:
            server.wait_for(1)
            time.sleep(0.2)
            glm.close()

        threading.Thread(target=close).start()
        with at_once(), pytest.raises(Cancelled, match="client was closed"):
            glm.chat("x")
        time.sleep(0.2)
        assert len(server.requests) == 1
        assert glm.chat("x").text == "hello"
        glm.close()


@pytest.mark.parametrize("script", WAITS.values(), ids=WAITS)
async def test_p10_closing_the_async_client_ends_its_calls(script: list[Step]) -> None:
    with raw_server(script, [ANSWER]) as server:
        glm = AsyncAutoGLM(server.url)
        task = asyncio.create_task(glm.chat("x"))
        await asyncio.to_thread(server.wait_for, 1)
        await asyncio.sleep(0.2)
        await glm.close()
        with at_once(), pytest.raises(Cancelled, match="client was closed"):
            await task
        assert len(server.requests) == 1
        assert (await glm.chat("x")).text == "hello"
        await glm.close()


def test_p10_closing_the_client_ends_the_waiting_for_a_server() -> None:
    with raw_server([plain(b"", "503 Service Unavailable")]) as server, AutoGLM(server.url, max_attempts=1) as glm:
        threading.Timer(0.7, glm.close).start()
        with at_once(), pytest.raises(Cancelled):
            glm.wait_until_ready(20)


def test_p10_close_from_another_thread() -> None:
    with raw_server([HEAD, delta("a"), 20.0]) as server, AutoGLM(server.url) as glm, glm.stream("x") as stream:
        next(stream)
        threading.Timer(0.3, stream.close).start()
        with at_once(), pytest.raises(StreamInterrupted):
            stream.finish()
        assert server.hung_up.wait(AT_ONCE)


def test_p10_ctrl_c_before_the_first_event_hangs_up(make_client: ClientFactory, monkeypatch: Any) -> None:
    def interrupted(_call: object, _data: bytes) -> None:
        raise KeyboardInterrupt

    with raw_server([HEAD, delta("a"), 20.0]) as server:
        glm = make_client(server.url)
        monkeypatch.setattr("autoglm_client._call.Call.take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            glm.stream("x").__enter__()
        assert server.hung_up.wait(AT_ONCE)


def test_p10_a_refusal_that_goes_on_is_hung_up_before_the_pause(make_client: ClientFactory) -> None:
    times: list[float] = []

    def until_the_end(connection: Any) -> None:
        with suppress(OSError):
            while connection.recv(65536):
                pass
        times.append(time.monotonic())

    refusal = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9000000\r\nRetry-After: 2\r\n\r\n" + b"x" * 80_000
    answer: list[Step] = [lambda _: times.append(time.monotonic()), ANSWER]
    with raw_server([refusal, until_the_end], answer) as server:
        assert make_client(server.url).chat("x").text == "hello"
    ended, asked_again = times
    assert asked_again - ended > 1.0


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only what nothing refers to is freed: circles stay."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_p10_an_abandoned_stream_needs_no_collector() -> None:
    with raw_server(WAITS["for the next event"]) as server, AutoGLM(server.url) as glm:
        stream = glm.stream("x").__enter__()
        for _ in stream:
            break
        gone = weakref.ref(stream)
        del stream
        assert gone() is None
        assert server.hung_up.wait(AT_ONCE)


@pytest.mark.usefixtures("no_collector")
async def test_p10_an_abandoned_async_stream_needs_no_collector() -> None:
    with raw_server(WAITS["for the next event"]) as server:
        async with AsyncAutoGLM(server.url) as glm:
            stream = await glm.stream("x").__aenter__()
            async for _ in stream:
                break
            gone, guard, clock = weakref.ref(stream), weakref.ref(stream._answer.guard), stream._call.clock
            del stream
            assert gone() is None
            assert guard() is None
            clock.cancel()  # of a stream that is no more
            assert await asyncio.to_thread(server.hung_up.wait, AT_ONCE)


@pytest.mark.usefixtures("no_collector")
def test_p10_break_and_an_error_in_the_block(make_client: ClientFactory) -> None:
    for leave in (IndexError, KeyError):
        with raw_server(WAITS["for the next event"]) as server:
            with suppress(leave), make_client(server.url).stream("x") as stream:
                for _ in stream:
                    raise leave
            assert server.hung_up.wait(AT_ONCE)


def calls() -> int:
    return sum(type(it).__name__ == "Call" for it in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
def test_p10_nothing_of_a_finished_call_is_kept(make_client: ClientFactory) -> None:
    asks: list[Callable[[Any], Any]] = [lambda glm: glm.chat("x"), lambda glm: read(glm.stream("x"))]
    with raw_server([HEAD, delta("hello"), finish(), DONE]) as server:
        glm = make_client(server.url)
        for ask in asks:
            ask(glm)  # pydantic remembers the frames of the first one of a process
            before = calls()
            ask(glm)
            assert calls() == before


def test_p10_many_cancel_one_stream(make_client: ClientFactory) -> None:
    with raw_server(WAITS["for the next event"]) as server:
        stream = make_client(server.url).stream("x")
        for _ in range(16):
            cancel_when_asked(server, stream)
        with at_once(), pytest.raises(AutoGLMError) as caught:
            read(stream)
        assert type(caught.value) is Cancelled


def interrupt_when_asked(server: Any, requests: int) -> None:
    server.wait_for(requests)
    os.kill(os.getpid(), signal.SIGINT)


def test_p10_ctrl_c_ends_the_calls_of_a_map_and_no_other() -> None:
    with raw_server([HEAD, delta("a"), 20.0]) as server, AutoGLM(server.url) as glm, glm.stream("x") as other:
        threading.Thread(target=interrupt_when_asked, args=(server, 3), daemon=True).start()
        with at_once(), pytest.raises(KeyboardInterrupt):
            glm.map(["x"] * 4, concurrency=2)
        assert server.hung_up.wait(AT_ONCE)
        assert len(server.requests) == 3
        assert not other._call.clock.cancelled


def test_p10_an_error_of_progress_ends_the_calls_of_a_map(make_client: ClientFactory) -> None:
    with raw_server([0.3, ANSWER], [20.0]) as server:
        with at_once(), pytest.raises((ZeroDivisionError, ExceptionGroup)):
            make_client(server.url).map(["x"] * 4, concurrency=2, progress=lambda done, _: 1 // (done - 1))
        assert server.hung_up.wait(AT_ONCE)


def test_p10_a_call_that_begins_when_its_map_has_ended_ends_too() -> None:
    together, clock = Together(), CallClock(Timeouts())
    together.cancel()
    together.add(clock)
    assert clock.cancelled
