"""When a failed call is made again, and after how long: one tenacity policy for both clients.

A driver belongs to one call: tenacity keeps the running attempt in it. Only what failed before the first event is tried
again, because text that was delivered cannot be taken back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from re import fullmatch
from time import time
from typing import TYPE_CHECKING, Any

from .defaults import MAX_RETRY_AFTER_SECONDS
from .errors import AutoGLMError, StatusError
from .timeouts import CallClock

if TYPE_CHECKING:
    from tenacity import AsyncRetrying, RetryCallState, Retrying

__all__ = ["async_attempts", "read_retry_after", "sync_attempts"]


def async_attempts(max_attempts: int, clock: CallClock, pause: Callable[[float], Awaitable[None]]) -> AsyncRetrying:
    """The attempts of one call, for ``async for``."""
    from tenacity import AsyncRetrying  # at the first call, as httpx2 is: importing this package should cost little

    return AsyncRetrying(sleep=pause, **_rules(max_attempts, clock))


def sync_attempts(max_attempts: int, clock: CallClock, pause: Callable[[float], None]) -> Retrying:
    """The attempts of one call, for ``for``."""
    from tenacity import Retrying

    return Retrying(sleep=pause, **_rules(max_attempts, clock))


def _rules(max_attempts: int, clock: CallClock) -> Mapping[str, Any]:
    from tenacity import retry_if_exception, wait_random_exponential

    jitter = wait_random_exponential(multiplier=0.25, max=8)  # full: a crowd of clients must not come back together

    def wait(state: RetryCallState) -> float:
        return max(jitter(state), _retry_after(state))

    def give_up(state: RetryCallState) -> bool:
        left = clock.remaining()
        out_of_time = left is not None and state.upcoming_sleep >= left
        return out_of_time or state.attempt_number >= max_attempts or _retry_after(state) > MAX_RETRY_AFTER_SECONDS

    return {
        "retry": retry_if_exception(_may_be_repeated),
        "wait": wait,
        "stop": give_up,
        "reraise": True,
    }


def _may_be_repeated(error: BaseException) -> bool:
    return isinstance(error, AutoGLMError) and error.retryable and error.partial is None


def _retry_after(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return (error.retry_after or 0.0) if isinstance(error, StatusError) else 0.0


def read_retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header, a number or a date (RFC 9110, 10.2.3); ``None`` for nonsense."""
    if not value:
        return None
    if fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value.strip()):
        return float(value)
    try:
        return max(parsedate_to_datetime(value).timestamp() - time(), 0.0)
    except (ValueError, OverflowError):
        return None
