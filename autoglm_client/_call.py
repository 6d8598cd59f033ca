"""One call on its way: its clocks, the answer as far as it has come, and the border to the HTTP library."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from os import urandom
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakMethod

from . import defaults
from ._assembler import Assembler
from ._checks import encoded
from ._interrupt import hang_up
from ._resume import continuation, obstacles
from ._secret import SecretHeaders, keep_silent, sending
from .errors import AutoGLMError, Cancelled, ConfigurationError, ConnectionFailed, InvalidReply, StreamInterrupted
from .reply import Reply, Timing
from .timeouts import CallClock, running_clock
from .wire import Resume

_HTTP = {"httpx", "httpx2", "h11"}  # h11's own errors come through where a header does not fit the body
_MAX_WORDS = 200  # characters of the library's own text: h11 repeats a whole line

_BEGINS_A_STREAM = re.compile(rb"[\r\n]{0,9}(?::|data:|event:)")
"""A stream that the server calls something else: no JSON begins so."""

if TYPE_CHECKING:
    from asyncio import Task

__all__ = ["AsyncGuard", "Call", "Guard", "Head", "Received", "translate"]


class Head(Protocol):
    """The status and the headers of an answer, from httpx2 or httpx."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Case-insensitive."""


class Received(NamedTuple):
    """A head that outlives its answer."""

    status_code: int
    headers: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class Call:
    """One request, its running clocks, and the answer as far as it has come."""

    method: str
    url: str
    headers: SecretHeaders
    content: bytes | None = field(default=None, repr=False)
    clock: CallClock
    assembler: Assembler = field(default_factory=Assembler, repr=False)
    new_assembler: Callable[[], Assembler] = Assembler
    resume: Resume = "never"
    resumed: bool = False
    id: str = field(default_factory=lambda: urandom(12).hex())
    attempts: int = 0
    first_token: float | None = None
    _received: int = 0
    _whole: BytesIO | None = field(default=None, repr=False)
    """The body so far where it is not a stream."""

    def begin_attempt(self) -> None:
        """Forget what an earlier attempt left behind; raises when there is no time for another."""
        if not self.clock.begin():
            raise self.clock.error("total")
        sending(self.headers)
        self.attempts += 1
        self._received = 0
        if self.resumed:
            self.assembler.go_on()
        else:
            self.assembler = self.new_assembler()
            self.first_token = None

    def go_on(self, cut: AutoGLMError) -> bool:
        """Make this the request for the rest of an answer that was cut; false, with a note, where that cannot be."""
        reason = self._obstacle(cut)
        if reason is None:
            self.content = encoded(continuation(self._body(), self.assembler.beginning()))
            self.resumed = self.clock.fresh_only = True
        elif self.resume != "never":
            cut.add_note(f"the answer was not resumed: {reason}")
        return reason is None

    def _obstacle(self, cut: AutoGLMError) -> str | None:
        if self.resume == "never" or type(cut) is not StreamInterrupted or self.assembler.ended:
            return "it was not merely cut"
        if self.resumed:
            return "it had been resumed before"
        return next(obstacles(self.resume, self._body(), self.assembler.beginning()), None)

    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.content or b"{}")
        return body

    def headers_to_send(self) -> dict[str, str]:
        """A name for the attempt, which vLLM takes for its own, and one for the call, for gateways."""
        return {"x-request-id": f"{self.id}-{self.attempts}", "idempotency-key": self.id, **self.headers}

    def time_limits(self) -> tuple[float | None, float | None, float | None, float | None]:
        """Connect, read, write and pool timeouts, as httpx2 and httpx take them; our own transports are stricter."""
        clock, timeouts = self.clock, self.clock.timeouts
        return (
            clock.within(timeouts.connect),
            clock.within(timeouts.first_token),
            clock.within(timeouts.send),
            clock.within(None),
        )

    def open(self, head: Head) -> None:
        """The answer begins: as a stream or in one piece, which is the server's choice, whatever was asked for."""
        if self.clock.link == "reused":
            raise ConnectionFailed("the server's answer was there before the request")
        if self.clock.link == "unknown":  # a client of the user's own: pings would feed its timeouts
            self.clock.expect("first_token")
        self.clock.link = "answered"
        kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        self._whole = None if kind == "text/event-stream" else BytesIO()

    def take(self, data: bytes) -> None:
        """The next piece of the body; what it means is appended to the assembler's events."""
        self._received += len(data)
        self.check_size(self._received)
        if self._whole is not None:
            self._whole.write(data)
            if _BEGINS_A_STREAM.match(self._whole.getbuffer()) is None:
                self.clock.check()
                return
            data, self._whole = self._whole.getvalue(), None
        tokens = self.assembler.tokens
        self.assembler.feed(data)
        if self.assembler.tokens > tokens:
            self._heard()
        else:
            self.clock.check()

    @staticmethod
    def check_size(size: int) -> None:
        """Refuse a body that is too large."""
        if size > defaults.MAX_BODY_BYTES:
            raise InvalidReply(f"the server's answer is larger than {defaults.MAX_BODY_BYTES} bytes")

    def end(self) -> None:
        """The body has ended; raises when the answer has not."""
        whole, self._whole = self._whole, None
        if whole is not None:
            self.assembler.feed_whole(whole.getvalue())  # which is no copy
        self.assembler.close()

    def is_complete(self) -> bool:
        """Whether the answer is all there, though its body ended with an error: then only the framing is wrong."""
        whole, self._whole = self._whole, None
        if whole is not None and not self.resumed:
            assembler = self.new_assembler()  # another, since a part of an answer in one piece is no answer
            with suppress(AutoGLMError):
                assembler.feed_whole(whole.getvalue())
            if assembler.complete:
                self.assembler = assembler
        return self.assembler.complete

    def _heard(self) -> None:
        if self.first_token is None:
            self.first_token = self.clock.elapsed()
        if self.assembler.complete:
            self.clock.expect_tail()
        elif self.clock.heard_one():
            raise self.clock.error()

    def reply(self) -> Reply:
        """What has arrived."""
        return self.assembler.reply(self.timing(), self.attempts)

    def timing(self) -> Timing:
        """What the clocks show."""
        return Timing(total=self.clock.elapsed(), first_token=self.first_token)

    def described(self, error: AutoGLMError) -> AutoGLMError:
        """Put on an error what the call knows, and take out what nobody may see."""
        self.headers.hide_in(error)
        error.attempts = self.attempts
        if self.assembler.started and error.partial is None:
            error.partial = self.reply()
        return error


class Guard:
    """The border: inside, the call's clocks run; what leaves it are our errors, with all that the call knows.

    The clock stays set behind it, where nothing looks at it: so two threads or tasks may use one guard.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        running_clock.set(self._call.clock)

    def watch(self, answer: Any = None) -> None:
        """From now on, cancelling the call hangs up the connection of this answer; before it, our transport knows."""
        if answer is not None:
            self._call.clock.interrupt.arm(partial(_hang_up_on, answer))

    def let_go(self) -> None:
        """The answer is closed; it holds the request, and so the key."""
        self._call.clock.interrupt.disarm()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        for each in keep_silent(error):
            self._call.headers.hide_in(each)
        if isinstance(error, Exception) and (ours := translate(error, self._call)) is not None:
            self._call.described(ours)
            if ours is not error:
                try:
                    raise ours from error
                finally:
                    del ours  # an error and a frame of its traceback that hold each other wait for the collector


class AsyncGuard(Guard):
    """The border in a task: cancelling the call cancels what the task awaits in it, and nothing outside it."""

    __slots__ = ("__weakref__", "_answer", "_cancelling", "_current_task", "_pulled", "_task")

    def __init__(self, call: Call) -> None:
        from asyncio import current_task

        super().__init__(call)
        self._current_task = current_task
        self._answer: Any = None
        self._task: Task[Any] | None = None
        self._pulled = False
        self._cancelling = 0

    def __enter__(self) -> None:
        self._task = self._current_task()
        running_clock.set(self._call.clock)

    def watch(self, answer: Any = None) -> None:
        """From now on, cancelling the call wakes the task that waits for this answer, or hangs up where none does."""
        from asyncio import get_running_loop

        self._answer = answer
        pull = WeakMethod(self._pull)  # the call knows its interrupt: a circle would keep an abandoned stream alive
        self._call.clock.interrupt.arm(partial(_call_in, get_running_loop(), pull))

    def let_go(self) -> None:
        """The answer is closed; it holds the request, and so the key."""
        super().let_go()
        self._answer = None

    def _pull(self) -> None:
        if self._task is not None:
            self._pulled = True
            self._cancelling = self._task.cancelling()
            self._task.cancel()
        elif self._answer is not None:
            _hang_up_on(self._answer)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if error is None and not self._pulled:  # for every piece of a stream
            return
        if self._pulled and task is not None:
            self._pulled = False
            ours_alone = task.uncancel() <= self._cancelling  # or else somebody wants the task itself to end
            if ours_alone and kind is not None and kind.__name__ == "CancelledError":
                deque(keep_silent(error), maxlen=0)
                raise self._call.described(self._call.clock.error()) from None
        super().__exit__(kind, error, trace)


def _hang_up_on(answer: Any) -> None:
    stream = answer.extensions.get("network_stream")
    if stream is not None and (connection := stream.get_extra_info("socket")) is not None:
        hang_up(connection)  # a client of the user may have none


def _call_in(loop: Any, weak: WeakMethod[Callable[[], None]]) -> None:
    if (wake := weak()) is not None:
        with suppress(RuntimeError):  # the loop has ended, and with it whatever waited
            loop.call_soon_threadsafe(wake)


def translate(error: Exception, call: Call) -> AutoGLMError | None:
    """One of our errors for a foreign one of httpx2 or httpx, ``None`` for anything else.

    By name, because the two libraries have the same exceptions, and httpx need not be installed.
    """
    if call.clock.cancelled and not isinstance(error, Cancelled):
        return call.clock.error()  # whatever happened, it happened because somebody pulled the plug
    if isinstance(error, AutoGLMError):
        return error
    names = {cls.__name__ for cls in type(error).__mro__ if cls.__module__.partition(".")[0] in _HTTP}
    if not names:
        return None
    if "TimeoutException" in names:
        if "ReadTimeout" in names:
            return call.clock.error()
        return call.clock.error("send" if "WriteTimeout" in names else "connect")
    words = call.headers.hidden(str(error))[:_MAX_WORDS] or type(error).__name__
    if "RemoteProtocolError" in names and _is_nonsense(error) and call.clock.link != "reused":
        return InvalidReply(f"what came from {call.url} is not valid HTTP: {words}")
    if call.assembler.started:
        return StreamInterrupted(f"the connection broke before the answer was complete: {words}")
    if "ConnectError" in names:
        call.clock.link = "unreached"
        return ConnectionFailed(f"cannot connect to {call.url}: {words}: is the server running, is base_url right?")
    if names & {"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"}:
        return ConfigurationError(f"the request to {call.url} cannot be sent: {words}")
    return ConnectionFailed(f"the connection to {call.url} failed: {words}")


def _is_nonsense(error: Exception) -> bool:
    """Whether h11 cannot read what came, and not because the connection ended in the middle of it."""
    whys = error.__cause__.args if error.__cause__ is not None else ()  # httpcore2's error holds the one of h11
    return any(type(why).__module__.startswith("h11.") and not str(why).startswith("peer ") for why in whys)
