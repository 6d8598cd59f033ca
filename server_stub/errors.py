"""What can go wrong in serving: each error says what to do next."""

from __future__ import annotations

__all__ = ["EngineFailed", "NotReady", "PreflightFailed", "ServeError"]


class ServeError(Exception):
    """Serving cannot go on; the message says why and what to try."""


class PreflightFailed(ServeError):
    """Something this server needs is missing on this machine; nothing was started."""


class EngineFailed(ServeError):
    """The engine ended by itself. ``exit_code`` is negative for a signal; ``log_tail`` holds its last lines."""

    def __init__(self, message: str, *, exit_code: int | None = None, log_tail: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.log_tail = log_tail


class NotReady(EngineFailed):
    """The engine runs but did not answer in time; it was stopped."""
