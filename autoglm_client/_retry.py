"""When a failed call is made again, and after how long: one tenacity policy for both clients.

A driver belongs to one call: tenacity keeps the running attempt in it. Only what failed before the first event is tried
again, because text that was delivered cannot be taken back.

Tenacity gets no error to hold, only whether it mattered: an error holds its traceback, this the frames, and these
whatever holds the error, so that the call and its screenshots would wait for the garbage collector.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from re import fullmatch
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .defaults import MAX_RETRY_AFTER_SECONDS, MIN_ATTEMPT_SECONDS
from .errors import AutoGLMError, ConnectionFailed, RequestTimedOut, ServerDied, StatusError
from .timeouts import CallClock

if TYPE_CHECKING:
    from tenacity import BaseRetrying, RetryCallState

__all__ = ["Budget", "Policy", "async_retried", "budget_of", "read_retry_after", "sync_retried"]

T = TypeVar("T")


class Budget:
    """What a server has left of this process's trust: an outage must not be multiplied by retries.

    As gRPC throttles (its proposal A6): a failed attempt costs one of ten tokens, a success returns a tenth, and there
    are retries only above half. A first attempt is never held back. Threads that count at once may lose a count.
    """

    _FULL = 10.0

    def __init__(self) -> None:
        self._tokens = self._FULL
        self.engine_died = False
        """Whether the last that was heard of the server is that its engine has stopped."""

    @property
    def allows_retries(self) -> bool:
        """Whether the server seems to be up."""
        return self._tokens > self._FULL / 2

    def hear(self, error: AutoGLMError) -> None:
        """Remember that the engine has died, which a stream may tell in its middle."""
        self.engine_died = self.engine_died or isinstance(error, ServerDied)

    def failed(self) -> None:
        """An attempt failed, and not for what was asked."""
        self._tokens = max(self._tokens - 1, 0.0)

    def succeeded(self) -> None:
        """An attempt was answered."""
        self._tokens = min(self._tokens + 0.1, self._FULL)
        self.engine_died = False

    def renew(self) -> None:
        """The server has just shown that it is up."""
        self._tokens = self._FULL
        self.engine_died = False


@lru_cache(maxsize=1024)
def budget_of(_base_url: str) -> Budget:
    """The one of all clients of this process that ask there."""
    return Budget()


class Policy:
    """Whether and when one call is made again, and what it waits for; around an attempt, it takes note of its end."""

    def __init__(self, max_attempts: int, clock: CallClock, budget: Budget | None = None) -> None:
        self._max_attempts = max_attempts
        self._clock = clock
        self._budget = budget or Budget()
        self._free = False
        self._free_ones = 0
        self._late_ones = 0
        self._unreached = False
        self.error: AutoGLMError | None = None
        """Why the last attempt failed."""
        self.awaits_engine = False
        """Whether the next attempt is to wait until the server's engine runs again; it is the last then."""
        self.wants_more = False
        """Whether the last attempt failed in a way that another one may not."""

    def __enter__(self) -> None:
        """Begin an attempt."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Take note of how it ended, and keep its error."""
        self._free = self._clock.fresh_only = False
        if error is None:
            self._budget.succeeded()
        if not isinstance(error, AutoGLMError):
            return False
        self.error, self.wants_more = error, self.again(error)
        return True

    def again(self, error: AutoGLMError) -> bool:
        """Whether an attempt that failed so may be repeated."""
        if error.partial is None and self._is_stale(error):
            return True
        self._charge(error)
        if error.partial is not None or self.awaits_engine:
            return False
        self.awaits_engine = self._budget.engine_died and self._is_sign_of_death(error)
        return self.awaits_engine or (error.retryable and not self._is_late_again(error))

    def _is_stale(self, error: AutoGLMError) -> bool:
        """A connection that was kept too long fails before the first byte: that says nothing about the server."""
        self._free = self._clock.link == "reused" and type(error) is ConnectionFailed and not self._free_ones
        self._free_ones += self._free
        self._clock.fresh_only = self._free
        return self._free

    def _charge(self, error: AutoGLMError) -> None:
        self._budget.hear(error)
        first_unreached = self._clock.link == "unreached" and not self._unreached  # nothing has left this machine
        self._unreached = self._unreached or first_unreached
        if not first_unreached and (error.retryable or isinstance(error, ServerDied)):
            self._budget.failed()

    def _is_sign_of_death(self, error: AutoGLMError) -> bool:
        refused = self._clock.link == "unreached" or (isinstance(error, StatusError) and error.status in {502, 503})
        return refused or isinstance(error, ServerDied)

    def _is_late_again(self, error: AutoGLMError) -> bool:
        late = isinstance(error, RequestTimedOut) and error.clock == "first_token"
        self._late_ones += late
        return late and self._late_ones > 1  # the work is done twice by then, on a server that has too much of it

    def wait(self, jitter: float) -> float:
        """Seconds before the next attempt."""
        return 0.0 if self._free or self.awaits_engine else max(jitter, self._retry_after)

    def gives_up(self, attempts: int, wait: float) -> bool:
        """Whether no further attempt is made, though it might help."""
        left = self._clock.remaining()
        if left is not None and wait + MIN_ATTEMPT_SECONDS > left:
            return True
        if self._free:
            return False
        if attempts - self._free_ones >= self._max_attempts:
            return True
        return not self.awaits_engine and (
            self._retry_after > MAX_RETRY_AFTER_SECONDS or not self._budget.allows_retries
        )

    @property
    def _retry_after(self) -> float:
        return (self.error.retry_after or 0.0) if isinstance(self.error, StatusError) else 0.0


async def async_retried(
    once: Callable[[], Awaitable[T]], policy: Policy, pause: Callable[[float], Awaitable[None]]
) -> T:
    """What one of the attempts returns; raises why the last one failed."""
    from tenacity import AsyncRetrying  # at the first call, as httpx2 is: importing this package should cost little

    driver = AsyncRetrying(sleep=pause, **_rules(policy))
    try:
        async for attempt in driver:
            with policy:
                return await once()
            attempt.retry_state.set_result(policy.wants_more)
        raise cast("AutoGLMError", policy.error)
    finally:
        _forget(policy, driver)


def sync_retried(once: Callable[[], T], policy: Policy, pause: Callable[[float], None]) -> T:
    """What one of the attempts returns; raises why the last one failed."""
    from tenacity import Retrying

    driver = Retrying(sleep=pause, **_rules(policy))
    try:
        for attempt in driver:
            with policy:
                return once()
            attempt.retry_state.set_result(policy.wants_more)
        raise cast("AutoGLMError", policy.error)
    finally:
        _forget(policy, driver)


def _rules(policy: Policy) -> Mapping[str, Any]:
    from tenacity import wait_random_exponential

    jitter = wait_random_exponential(multiplier=0.25, max=8)  # full: a crowd of clients must not come back together

    def again(state: RetryCallState) -> bool:
        return bool(state.outcome and state.outcome.result())

    def wait(state: RetryCallState) -> float:
        return policy.wait(jitter(state))

    def stop(state: RetryCallState) -> bool:
        return policy.gives_up(state.attempt_number, state.upcoming_sleep)

    return {"retry": again, "wait": wait, "stop": stop, "retry_error_callback": lambda _: None}


def _forget(policy: Policy, driver: BaseRetrying) -> None:
    policy.error = None
    driver.iter_state.reset()  # it holds itself, by its next actions
    vars(driver).pop("_retry_state", None)  # and by its running attempt, if it is async


def read_retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header, a number or a date (RFC 9110, 10.2.3); ``None`` for nonsense."""
    if not value:
        return None
    if fullmatch(r"[0-9]{1,300}(\.[0-9]{1,300})?", value.strip()):  # with more digits it might be infinite
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - time(), 0.0)
    except (ValueError, OverflowError):
        return None
