"""One call on its way: its clocks, the answer as far as it has come, and the border to the HTTP library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from . import defaults
from ._assembler import Assembler
from ._secret import Secret
from .errors import AutoGLMError, ConfigurationError, ConnectionFailed, InvalidReply, StreamInterrupted
from .reply import Reply, Timing
from .timeouts import CallClock, running_clock

_COMPRESSIONS = {"gzip", "deflate", "br", "zstd", "compress", "x-gzip"}

__all__ = ["Call", "Guard", "Head", "translate"]


class Head(Protocol):
    """The status and the headers of an answer, from httpx2 or httpx."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Case-insensitive."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One request, its running clocks, and the answer as far as it has come."""

    method: str
    url: str
    headers: dict[str, str] = field(repr=False)
    content: bytes | None = field(default=None, repr=False)
    secret: Secret = field(default=Secret(""), repr=False)
    clock: CallClock
    assembler: Assembler = field(default_factory=Assembler)
    new_assembler: Callable[[], Assembler] = Assembler
    attempts: int = 0
    first_token: float | None = None
    _received: int = 0
    _whole: bytearray | None = None
    """The body so far where it is not a stream."""

    def begin_attempt(self) -> None:
        """Forget what an earlier attempt left behind; raises when there is no time for another."""
        if not self.clock.begin():
            raise self.clock.error()
        self.attempts += 1
        self._received = 0
        self.assembler = self.new_assembler()
        self.first_token = None

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
        encoding = head.headers.get("content-encoding", "").strip().lower()
        if encoding in _COMPRESSIONS:
            raise InvalidReply(f"the server compressed its answer ({encoding}), though it was asked not to")
        kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        self._whole = None if kind == "text/event-stream" else bytearray()

    def take(self, data: bytes) -> None:
        """The next piece of the body; what it means is appended to the assembler's events."""
        self._received += len(data)
        if self._received > defaults.MAX_BODY_BYTES:
            raise InvalidReply(f"the server's answer is larger than {defaults.MAX_BODY_BYTES} bytes")
        if self._whole is not None:
            self._whole += data
        else:
            tokens = self.assembler.tokens
            self.assembler.feed(data)
            if self.assembler.tokens > tokens:
                self._heard()
                return
        if self.clock.is_over():  # a server that never pauses lets no read run into its limit
            raise self.clock.error()

    def end(self) -> None:
        """The body has ended; raises when the answer has not."""
        if self._whole is not None:
            self.assembler.feed_whole(bytes(self._whole))
        self.assembler.close()

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
        self.secret.hide_in(error)
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and isinstance(error, Exception) and (ours := translate(error, self._call)) is not None:
            self._call.described(ours)
            if ours is not error:
                echoes = self._call.secret.hidden(str(error)) != str(error)
                raise ours from (None if echoes else error)


def translate(error: Exception, call: Call) -> AutoGLMError | None:
    """One of our errors for a foreign one of httpx2 or httpx, ``None`` for anything else.

    By name, because the two libraries have the same exceptions, and httpx need not be installed.
    """
    if isinstance(error, AutoGLMError):
        return error
    names = {cls.__name__ for cls in type(error).__mro__ if cls.__module__.partition(".")[0] in {"httpx", "httpx2"}}
    if not names:
        return None
    if "TimeoutException" in names:
        if "ReadTimeout" in names:
            return call.clock.error()
        return call.clock.error("send" if "WriteTimeout" in names else "connect")
    if call.assembler.started:
        return StreamInterrupted(f"the connection broke before the answer was complete: {_words(error)}")
    if "ConnectError" in names:
        return ConnectionFailed(
            f"cannot connect to {call.url}: {_words(error)}: is the server running, is base_url right?"
        )
    if names & {"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"}:
        return ConfigurationError(f"the request to {call.url} cannot be sent: {_words(error)}")
    return ConnectionFailed(f"the connection to {call.url} failed: {_words(error)}")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
