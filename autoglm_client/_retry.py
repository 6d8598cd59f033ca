"""When a failed call is made again, and after how long: one tenacity policy for both clients.

A driver belongs to one call: tenacity keeps the running attempt in it. Only what failed before the first event is tried
again, because text that was delivered cannot be taken back.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from re import fullmatch
from time import time
from typing import Any

from tenacity import RetryCallState, retry_if_exception, wait_random_exponential

from . import defaults
from .errors import AutoGLMError, StatusError
from .timeouts import CallClock

__all__ = ["read_retry_after", "retry_rules"]

_jitter = wait_random_exponential(multiplier=0.25, max=8)  # full jitter: a crowd of clients must not come back together


def retry_rules(max_attempts: int, clock: CallClock) -> Mapping[str, Any]:
    """The arguments of a tenacity driver for one call."""

    def out_of_time(state: RetryCallState) -> bool:
        left = clock.remaining()
        return left is not None and state.upcoming_sleep >= left

    return {
        "retry": retry_if_exception(_may_be_repeated),
        "wait": _wait,
        "stop": lambda state: (
            state.attempt_number >= max_attempts or out_of_time(state) or _asked_to_wait_too_long(state)
        ),
        "reraise": True,
    }


def _may_be_repeated(error: BaseException) -> bool:
    return isinstance(error, AutoGLMError) and error.retryable and error.partial is None


def _retry_after(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return (error.retry_after or 0.0) if isinstance(error, StatusError) else 0.0


def _wait(state: RetryCallState) -> float:
    return max(_jitter(state), _retry_after(state))


def _asked_to_wait_too_long(state: RetryCallState) -> bool:
    return _retry_after(state) > defaults.MAX_RETRY_AFTER_SECONDS


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
