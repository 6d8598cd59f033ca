"""An async answer on its way: send, iterate, close.

``stream.py`` is derived from this file by ``scripts/derive_sync.py``: change this one and run it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from copy import copy
from functools import partial
from io import BytesIO
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, Self, cast

from . import defaults
from ._call import AsyncGuard, Call, Guard, Head, Received
from ._concurrency import async_pause
from ._exchange import Configuration
from ._inflate import Inflater, inflater_for
from ._pool import AsyncPool
from ._redirect import followed
from ._retry import Policy, async_retried
from ._secret import keep_silent
from .errors import (
    AutoGLMError,
    Cancelled,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    NotFound,
    ServerFailed,
    StreamInterrupted,
)
from .events import Event
from .reply import Reply
from .timeouts import CallClock

if TYPE_CHECKING:
    import httpx2

__all__ = ["AsyncAnswer", "AsyncReplyStream", "async_is_well", "async_read"]


class AsyncReplyStream:
    """An answer while it comes: iterate over its events, then read :attr:`reply`."""

    def __init__(self, configuration: Configuration, pool: AsyncPool, call: Call) -> None:
        self._configuration = configuration
        self._pool = pool
        self._call = call
        self._answer = AsyncAnswer(configuration, pool, call)
        self._failure: AutoGLMError | None = None
        self._left = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._call.url}>"

    async def __aenter__(self) -> Self:
        """Send the request and wait for the first event; until then a failure is retried."""
        try:
            policy = self._configuration.policy(self._call)
            pause = partial(_pause, self._configuration, self._pool, policy, self._call.clock)
            await async_retried(self._start, policy, pause)
        except BaseException as error:  # a cancelled task, too, must not keep the connection
            if isinstance(error, AutoGLMError):
                self._call.described(error)  # also what ended a pause
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        if not self._call.attempts:
            raise ConfigurationError(
                "a stream is opened by its block: `with glm.stream(...) as stream:`, with `async` if it is"
            )
        return self

    async def __anext__(self) -> Event:
        call = self._call
        if call.clock.cancelled and not call.assembler.complete:
            await self.close()
            raise call.described(call.clock.error())
        events = call.assembler.events
        while not events:
            if self._failure is not None:
                await self._go_on(self._failure)
            elif self._answer.closed:
                self._check_complete()
                raise StopAsyncIteration
            else:
                await self._advance()
        return events.popleft()

    @property
    def reply(self) -> Reply:
        """The finished answer, equal to what ``chat`` would have returned; raises before it is complete."""
        self._check_complete()
        return self._call.reply()

    @property
    def partial(self) -> Reply:
        """What has arrived so far."""
        return self._call.reply()

    async def finish(self) -> Reply:
        """Read what is left, and return the finished answer."""
        async for _ in self:
            pass
        return self.reply

    def cancel(self) -> None:
        """End the answer now, from any thread or task, also while it waits to be tried again.

        Whoever reads it gets :class:`Cancelled`, whose ``partial`` is what had arrived; the connection is hung up, so
        that the generation ends on the server. An answer that is complete already stays complete.
        """
        self._call.clock.cancel()

    async def close(self) -> None:
        """Release the connection; a generation that still runs ends on the server."""
        self._left = True
        await self._answer.close()

    def _check_complete(self) -> None:
        if self._call.assembler.complete:
            return
        if self._failure is not None:
            self._fail()
        if self._call.clock.cancelled:
            raise self._call.described(self._call.clock.error())
        state = "was closed before its end" if self._left else "is not complete yet: iterate to the end first"
        raise self._call.described(StreamInterrupted(f"the answer {state}; see also `partial`"))

    def _fail(self) -> NoReturn:
        """Raise a twin of what ended the answer: its traceback leads here, and back to what is kept."""
        failure = cast("AutoGLMError", self._failure)
        raise copy(failure) from failure.__cause__

    async def _go_on(self, cut: AutoGLMError) -> None:
        """Ask for the rest of an answer that was cut; raises what cut it where there is none to be had."""
        budget = self._configuration.budget
        budget.hear(cut)  # not when it came: with the first event in one piece, that would be a success after it
        if not (budget.allows_retries and self._call.go_on(cut)):
            self._fail()
        budget.failed()
        try:
            await self._start()
            self._check_news()
        except BaseException as error:
            await self._answer.close()
            if not isinstance(error, AutoGLMError) or isinstance(error, Cancelled | DeadlineExceeded):
                raise
            budget.hear(error)
            cut.add_note(f"the answer was not resumed: {error}")
            cut.__cause__ = error.with_traceback(None)
            self._failure = self._call.described(cut)
            self._fail()
        budget.succeeded()

    async def _start(self) -> None:
        self._failure = None
        if self._left:
            self._check_complete()
        await self._answer.open()
        while not self._has_news:
            await self._advance()
        if not self._call.assembler.started:
            self._check_news()

    def _check_news(self) -> None:
        if self._failure is not None and not self._call.assembler.events:
            self._fail()

    @property
    def _has_news(self) -> bool:
        return bool(self._call.assembler.events) or self._failure is not None or self._answer.closed

    async def _advance(self) -> None:
        """Read one piece of the body and turn it into events."""
        answer, call = self._answer, self._call
        try:
            with answer.guard:
                try:
                    call.take(await answer.chunks.__anext__())
                    more = not call.assembler.stopped
                except StopAsyncIteration:
                    call.end()
                    more = False
        except AutoGLMError as error:
            more = False
            if not call.is_complete():  # once complete, nothing that follows can spoil the answer
                error.retryable = error.retryable and not self._left
                self._failure = _without_frames(error)
        if not more:
            await answer.close()


class AsyncAnswer:
    """What the server sends back for one attempt of a call."""

    head: Head
    chunks: AsyncGenerator[bytes, None]

    def __init__(self, configuration: Configuration, pool: AsyncPool, call: Call) -> None:
        self._configuration = configuration
        self._pool = pool
        self._call = call
        self.guard = AsyncGuard(call)
        self._response: httpx2.Response | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def closed(self) -> bool:
        """Whether there is nothing more to read."""
        return self._response is None

    async def open(self) -> None:
        """Send the request and read the head of the answer; raises what a status other than 200 means."""
        call = self._call
        with self.guard:
            call.begin_attempt()
            try:
                await self._follow()
            except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
                # A proxy, a certificate, a header, a name, a client of the user's own from another event loop.
                if isinstance(error, AutoGLMError):
                    raise
                raise ConfigurationError(f"the request to {call.url} cannot be made: {error}") from error
            call.open(self.head)
            if inflater := inflater_for(self.head.headers.get("content-encoding")):
                self.chunks = _inflated(self.chunks, inflater)
        if self.head.status_code != 200:
            body = await self._read_refusal()
            with self.guard:
                raise self._configuration.failure(self.head, body.getvalue())

    async def _follow(self) -> None:
        """Send the request, and again where the same server sends it on to, with the same method and body."""
        url: str | None = self._call.url
        for _ in range(1 + defaults.MAX_REDIRECTS):
            if url is None:
                return
            await self.close()
            self.guard.watch()
            self._response = response = await self._send(url)
            self.head = Received(response.status_code, response.headers)  # the response holds the request, and the key
            # What aiter_raw() reads, without its bookkeeping (1 us of 18 for a chunk); httpx2 makes it a generator.
            stream = cast("httpx2.AsyncByteStream", response.stream)
            self.chunks = cast("AsyncGenerator[bytes, None]", stream.__aiter__())
            self.guard.watch(self._response)
            url = followed(url, self.head.status_code, self.head.headers.get("location"))

    async def _send(self, url: str) -> httpx2.Response:
        call, client = self._call, await self._pool.client(self._call.clock)
        if client.is_closed:
            raise ConfigurationError("http_client is closed: it must stay open as long as it is used")
        request = client.build_request(
            call.method, url, headers=call.headers_to_send(), content=call.content, timeout=call.time_limits()
        )
        return await client.send(request, stream=True, follow_redirects=False)

    async def read_all(self, limit: int) -> BytesIO:
        """The whole body, or a little more than ``limit`` bytes of it; shows nothing of itself to who shows locals."""
        body = BytesIO()
        with self.guard:
            while body.tell() <= limit and (data := await anext(self.chunks, None)) is not None:
                body.write(data)
                self._call.clock.check()
        return body

    async def close(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        response, self._response = self._response, None
        if response is not None and not self._call.clock.interrupt.inherited:
            self.guard.let_go()
            with Guard(self._call):  # its own: another thread may be closing while one reads
                await response.aclose()
                with suppress(RuntimeError, ValueError):  # another thread or task is reading: it sees the end
                    await self.chunks.aclose()

    async def _read_refusal(self) -> BytesIO:
        try:
            return await self.read_all(defaults.MAX_ERROR_BYTES)
        except AutoGLMError:
            return BytesIO()  # the status says enough
        finally:
            await self.close()


def _without_frames(error: AutoGLMError) -> AutoGLMError:
    """One that a stream may keep: frames of tracebacks hold the stream, and would wait for the collector with it."""
    for each in keep_silent(error):
        each.__traceback__ = None
    return error


async def _pause(
    configuration: Configuration, pool: AsyncPool, policy: Policy, clock: CallClock, seconds: float
) -> None:
    """Wait before the next attempt; for an engine that has died, until another one runs.

    A function, since tenacity's driver is a circle: it must not hold the stream.
    """
    await async_pause(clock, seconds)
    patience = configuration.clock(defaults.TOTAL_SECONDS)  # of a call without an end
    while policy.awaits_engine and not await async_is_well(configuration, pool, clock.short()):
        await async_pause(clock, defaults.ENGINE_POLL_SECONDS)
        if not clock.begin() or (clock.deadline is None and patience.is_over()):
            raise policy.error if policy.error and not clock.cancelled else clock.error()


async def async_read(configuration: Configuration, pool: AsyncPool, call: Call, policy: Policy) -> bytes:
    """The whole answer of a route that has no stream."""
    once = partial(_read_once, configuration, pool, call)
    return await async_retried(once, policy, partial(async_pause, call.clock))


async def _read_once(configuration: Configuration, pool: AsyncPool, call: Call) -> bytes:
    async with AsyncAnswer(configuration, pool, call) as answer:
        body = await answer.read_all(defaults.MAX_BODY_BYTES)
        with answer.guard:
            call.check_size(body.tell())
        return body.getvalue()


async def _inflated(chunks: AsyncGenerator[bytes, None], inflater: Inflater) -> AsyncGenerator[bytes, None]:
    try:
        async for data in chunks:
            for piece in inflater.feed(data):
                yield piece
        inflater.close()
    finally:
        await chunks.aclose()


async def async_is_well(configuration: Configuration, pool: AsyncPool, clock: CallClock | None) -> bool:
    """Ask once whether the server says that it is well; raises what waiting cannot mend."""
    for url in configuration.health_urls():
        call = configuration.request("GET", url, clock=clock)
        try:
            await async_read(configuration, pool, call, Policy(1, call.clock))
        except NotFound:
            continue
        except (ConnectionFailed, ServerFailed):
            return False
        else:
            return True
    return False
