"""Five clocks for one call, each with its own meaning and its own error."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from time import monotonic
from typing import Literal

from . import defaults
from ._interrupt import Interrupt
from .errors import AutoGLMError, Cancelled, Clock, ConfigurationError, DeadlineExceeded, InvalidReply, RequestTimedOut

__all__ = ["CallClock", "Timeouts"]

Link = Literal["unknown", "unreached", "fresh", "reused", "heard", "answered"]

_FOREVER = 1e8  # seconds: three years, and less than what the system's clocks overflow at


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds; ``None`` lets a clock run for ever."""

    connect: float | None = defaults.CONNECT_SECONDS
    """To reach the server: name, TCP and TLS."""
    send: float | None = defaults.SEND_SECONDS
    """To upload the request; ten screenshots are several megabytes."""
    first_token: float | None = defaults.FIRST_TOKEN_SECONDS
    """From the upload to the first event of a stream: queue, image encoding and prefill."""
    between_tokens: float | None = defaults.BETWEEN_TOKENS_SECONDS
    """From one event of a stream to the next; keep-alive comments do not feed it."""
    total: float | None = defaults.TOTAL_SECONDS
    """The whole call: every attempt, every pause, the whole answer."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and not (isinstance(value, int | float) and 0 < value < _FOREVER):
                raise ConfigurationError(f"timeout {each.name}={value!r}: give seconds above 0, or None for no limit")

    @classmethod
    def of(cls, value: float | Timeouts | None) -> Timeouts:
        """Read ``timeout=30.0`` as "30 s in all", the other clocks being no longer than that."""
        if isinstance(value, Timeouts):
            return value
        if value is None:
            return cls(first_token=None, between_tokens=None, total=None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigurationError(f"timeout={value!r}: give seconds, a Timeouts, or None")
        usual = cls()
        shorter = {each.name: min(value, getattr(usual, each.name)) for each in fields(cls)}
        return cls(**(shorter | {"total": value}))

    def without_token_clocks(self) -> Timeouts:
        """For a plain call, whose answer comes in one piece at the end."""
        return replace(self, first_token=None, between_tokens=None)


class CallClock:
    """The running clocks of one call: how long the next step may take, and what it means when that is over."""

    def __init__(
        self, timeouts: Timeouts, deadline: float | None = None, *, interrupt: Interrupt | None = None
    ) -> None:
        self.timeouts = timeouts
        self.interrupt = interrupt or Interrupt()
        self.cancelled: str | None = None
        """Why the call was ended from outside, if it was."""
        self.started = monotonic()
        ends = [end for end in (deadline, timeouts.total and self.started + timeouts.total) if end is not None]
        self.deadline = min(ends) if ends else None
        self._waiting_for: Clock = "first_token"
        self._until: float | None = None
        self.link: Link = "unknown"
        """How far the attempt's connection came, as far as our transport or the error tells."""
        self._head_bytes = 0
        self.fresh_only = False
        """Whether connections that were kept are not to be used."""

    def cancel(self, reason: str = "the call was cancelled") -> None:
        """End the call now, from any thread: its time is over, and what it waits for is woken."""
        self.cancelled = self.cancelled or reason
        self.deadline = self.started
        self.interrupt.fire()

    def elapsed(self) -> float:
        """Seconds since the call began."""
        return monotonic() - self.started

    def remaining(self) -> float | None:
        """Seconds until the deadline, negative when it has passed, ``None`` without one."""
        return None if self.deadline is None else self.deadline - monotonic()

    def within(self, seconds: float | None) -> float | None:
        """Shorten a limit to what the deadline leaves, but never to nothing: 0 would mean "do not block"."""
        return self._left_of(None if seconds is None else monotonic() + seconds)

    def short(self) -> CallClock:
        """Clocks for a question in the middle of this call, which ends with it."""
        return CallClock(Timeouts.of(defaults.CONNECT_SECONDS), self.deadline, interrupt=self.interrupt)

    def begin(self) -> bool:
        """Forget what an earlier attempt waited for; false when the whole call is late."""
        self._until = None
        self.link = "unknown"
        left = self.remaining()
        return left is None or left >= defaults.MIN_ATTEMPT_SECONDS

    def takes(self, link: Link) -> None:
        """The attempt has its connection."""
        self.link = link
        self._head_bytes = 0
        self.fresh_only = False  # it was about this one: the others, and this one afterwards, may be kept

    def hear_head(self, size: int) -> None:
        """Some of the answer's head came; raises when it has no end, or when it is late, without a pause in it."""
        self.link = "heard"
        self._head_bytes += size
        if self._head_bytes > defaults.MAX_HEAD_BYTES:
            raise InvalidReply(f"the headers of the server's answer are larger than {defaults.MAX_HEAD_BYTES} bytes")
        self.check()

    def expect(self, clock: Clock) -> None:
        """Start the clock for the next event of a stream."""
        seconds: float | None = getattr(self.timeouts, clock)
        self._waiting_for = clock
        self._until = None if seconds is None else monotonic() + seconds

    def heard_one(self) -> bool:
        """An event came: start the clock for the next; true when the whole call is late."""
        now = monotonic()
        between = self.timeouts.between_tokens
        self._waiting_for = "between_tokens"
        self._until = None if between is None else now + between
        return self.deadline is not None and self.deadline <= now

    def expect_tail(self) -> None:
        """The answer is complete: wait only a moment for what may follow it."""
        self._until = monotonic() + defaults.TAIL_SECONDS

    def for_next_event(self) -> float | None:
        """Seconds that the next event may still take."""
        return self._left_of(self._until)

    def _left_of(self, end: float | None) -> float | None:
        if end is None or (self.deadline is not None and self.deadline < end):
            end = self.deadline
        return None if end is None else max(end - monotonic(), 0.001)

    def is_over(self) -> bool:
        """Whether the event that is waited for, or the whole call, is late."""
        now = monotonic()
        return (self._until is not None and self._until <= now) or (self.deadline is not None and self.deadline <= now)

    def check(self) -> None:
        """Raise when it is late: where a server never pauses, no read runs into its limit."""
        if self.is_over():
            raise self.error()

    def error(self, clock: Clock | None = None) -> AutoGLMError:
        """Say which clock ran out."""
        if self.cancelled:
            return Cancelled(self.cancelled)
        left = self.remaining()
        if left is not None and (left <= 0 or clock == "total"):
            return DeadlineExceeded(f"the total time for the call ran out after {self.elapsed():.1f} s: raise timeout=")
        clock = clock or self._waiting_for
        return RequestTimedOut(_EXPLANATIONS[clock].format(getattr(self.timeouts, clock)), clock=clock)


running_clock: ContextVar[CallClock] = ContextVar("running_clock")
"""The clocks of the call that this thread or task is in the middle of; the transports look here."""

_EXPLANATIONS: dict[Clock, str] = {
    "connect": "no connection within {} s: is the server running, and is base_url right?",
    "send": "the request could not be uploaded within {} s",
    "first_token": "no token within {} s: the server is loading or busy; raise timeout=Timeouts(first_token=...)",
    "between_tokens": "the stream stalled: no token for {} s",
    "total": "the call took longer than {} s",
}
