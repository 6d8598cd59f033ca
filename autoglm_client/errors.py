"""Every way a call can fail, drawn as one tree.

::

    AutoGLMError
    ├── ConfigurationError            the call could not be made as written: fix an argument or a variable
    ├── ConnectionFailed              the server was not reached, or the connection broke
    │   ├── RequestTimedOut           one of the clocks ran out (``clock`` says which)
    │   └── DeadlineExceeded          the total time of the call ran out
    ├── Cancelled                     the call was ended from outside: `cancel()`, or the client was closed
    ├── StatusError                   the server answered, and said no
    │   ├── BadRequest                400, 413, 422: the request is wrong
    │   │   └── ContextOverflow       the prompt is longer than the model's context
    │   ├── AuthenticationFailed      401, 403: the key is missing, wrong, or may not do this
    │   ├── Redirected                3xx: the server sends elsewhere, and nothing is sent there
    │   ├── NotFound                  404: no such model or route
    │   ├── RateLimited               429: too many requests, or no balance
    │   ├── ServerFailed              5xx: the server is at fault
    │   │   └── ServerDied            the inference engine behind the server has stopped
    │   └── ContentFiltered           a moderation filter refused the prompt or the answer
    ├── InvalidReply                  the server answered something that is not a reply
    │   ├── EventTooLarge             one event of the stream is larger than the limit
    │   └── StreamInterrupted         the stream ended before the answer was complete
    ├── ActionError                   the answer holds no valid phone action (``code`` says why)
    └── MediaError                    an image, audio or video file cannot be sent

The class says whose fault it is and so what to do; the attributes carry the details.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from .reply import Reply

__all__ = [
    "ActionError",
    "ActionErrorCode",
    "AuthenticationFailed",
    "AutoGLMError",
    "BadRequest",
    "Cancelled",
    "ConfigurationError",
    "ConnectionFailed",
    "ContentFiltered",
    "ContextOverflow",
    "DeadlineExceeded",
    "EventTooLarge",
    "InsecureConnection",
    "InvalidReply",
    "MediaError",
    "NotFound",
    "RateLimited",
    "Redirected",
    "RequestTimedOut",
    "ServerDied",
    "ServerFailed",
    "StatusError",
    "StreamInterrupted",
]

Clock = Literal["connect", "send", "first_token", "between_tokens", "total"]

ActionErrorCode = Literal[
    "empty_response",
    "no_action",
    "malformed_call",
    "unknown_action",
    "missing_parameter",
    "invalid_coordinates",
    "coordinates_out_of_range",
    "truncated",
    "repetition",
    "content_filtered",
]


class InsecureConnection(UserWarning):
    """An API key and screenshots travel over a network in clear."""


class AutoGLMError(Exception):
    """The root: ``except AutoGLMError`` catches everything this package raises."""

    category: ClassVar[str] = "error"
    """A stable word for logs and metrics, one for each class."""

    retryable: bool = False
    """Whether the same call may succeed when it is made again."""

    attempts: int = 0
    """How many times the request was sent, 0 when it never was."""

    partial: Reply | None = None
    """What had arrived before the failure, if anything; never a complete answer."""

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)  # keyword-only arguments survive a pickle


class ConfigurationError(AutoGLMError, ValueError):
    """An argument, an option or an environment variable cannot be used; nothing was sent."""

    category = "configuration"


class ConnectionFailed(AutoGLMError):
    """The server was not reached, or the connection broke before the answer was complete."""

    category = "connection"
    retryable = True


class RequestTimedOut(ConnectionFailed):
    """One of the clocks ran out; ``clock`` names it."""

    category = "timeout"

    def __init__(self, message: str, *, clock: Clock = "first_token") -> None:
        super().__init__(message)
        self.clock = clock


class DeadlineExceeded(ConnectionFailed):
    """The total time for the call ran out, all attempts and pauses included."""

    category = "deadline"
    retryable = False


class Cancelled(AutoGLMError):
    """The call was ended from outside: ``stream.cancel()``, or the client was closed while it ran.

    ``partial`` holds what had arrived. Not retryable, because somebody wanted this end.
    """

    category = "cancelled"


class StatusError(AutoGLMError):
    """The server answered with an error, as an HTTP status or inside the stream."""

    category = "status"

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        body: str = "",
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = body
        self.request_id = request_id
        self.retry_after = retry_after
        """Seconds the server asks to wait, if it said so."""


class BadRequest(StatusError):
    """The server understood the request and refuses it: change the request (400, 413, 422)."""

    category = "bad_request"


class ContextOverflow(BadRequest):
    """The prompt does not fit the model's context: send fewer turns or smaller images."""

    category = "context_overflow"


class AuthenticationFailed(StatusError):
    """The key is missing, wrong or not allowed to do this (401, 403)."""

    category = "authentication"


class NotFound(StatusError):
    """There is no such model, or no such route under the base URL (404)."""

    category = "not_found"


class Redirected(StatusError):
    """The server sends elsewhere (3xx); key and screenshots do not go there: give that address as ``base_url``."""

    category = "redirect"


class RateLimited(StatusError):
    """Too many requests, or an empty account (429)."""

    category = "rate_limit"
    retryable = True


class ServerFailed(StatusError):
    """The server is at fault (5xx)."""

    category = "server"
    retryable = True


class ServerDied(ServerFailed):
    """The inference engine behind the server has stopped; it must be started again."""

    category = "server_died"
    retryable = False


class ContentFiltered(StatusError):
    """A moderation filter refused the prompt or the answer."""

    category = "content_filter"


class InvalidReply(AutoGLMError):
    """The server answered something that is not a chat completion."""

    category = "invalid_reply"


class EventTooLarge(InvalidReply):
    """One event of the stream is larger than the limit."""

    category = "event_too_large"


class StreamInterrupted(InvalidReply):
    """The stream ended before a ``finish_reason`` came; ``partial`` holds what had arrived."""

    category = "stream_interrupted"
    retryable = True


class ActionError(AutoGLMError, ValueError):
    """The answer holds no valid phone action."""

    category = "action"

    def __init__(self, message: str, *, code: ActionErrorCode, text: str = "", position: int = 0) -> None:
        super().__init__(message)
        self.code: ActionErrorCode = code
        """Why, as a word that programs can compare."""
        self.text = text
        """The text that was parsed."""
        self.position = position
        """The index in ``text`` where the trouble starts."""


class MediaError(AutoGLMError, ValueError):
    """An image, audio or video file cannot be sent; the message names it and says why."""

    category = "media"


def _rebuild(cls: type[AutoGLMError], args: tuple[object, ...], state: dict[str, object]) -> AutoGLMError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error
