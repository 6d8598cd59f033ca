"""Errors that are ours and LangChain's at once: ``except RateLimited`` and ``ModelRateLimitError`` both catch them.

LangChain's classes drive its retry, fallback and summarization middleware; ``response`` is what its tracers read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)

from .. import (
    AuthenticationFailed,
    AutoGLMError,
    BadRequest,
    Cancelled,
    ConfigurationError,
    ConnectionFailed,
    ContentFiltered,
    ContextOverflow,
    DeadlineExceeded,
    EventTooLarge,
    InvalidReply,
    NotFound,
    RateLimited,
    Redirected,
    RequestTimedOut,
    ServerDied,
    ServerFailed,
    StatusError,
    StreamInterrupted,
)

__all__ = ["ErrorResponse", "model_error", "model_errors"]


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """What the server answered, under the names that LangChain looks for."""

    status_code: int
    text: str = field(repr=False)
    headers: Mapping[str, str]

    def json(self) -> Any:
        """Decode the body; raises ``ValueError`` when it is no JSON."""
        return json.loads(self.text)


class ModelConfigurationError(ConfigurationError, ModelInvalidRequestError):
    """:class:`~autoglm_client.ConfigurationError`."""


class ModelConnectionFailed(ConnectionFailed, ModelConnectionError):
    """:class:`~autoglm_client.ConnectionFailed`."""


class ModelRequestTimedOut(RequestTimedOut, ModelTimeoutError):
    """:class:`~autoglm_client.RequestTimedOut`."""


class ModelDeadlineExceeded(DeadlineExceeded, ModelTimeoutError):
    """:class:`~autoglm_client.DeadlineExceeded`."""


class ModelStatusError(StatusError, ModelError):
    """:class:`~autoglm_client.StatusError`."""


class ModelBadRequest(BadRequest, ModelInvalidRequestError):
    """:class:`~autoglm_client.BadRequest`."""


class ModelContextOverflow(ContextOverflow, ContextOverflowError):
    """:class:`~autoglm_client.ContextOverflow`."""


class ModelAuthenticationFailed(AuthenticationFailed, ModelAuthenticationError):
    """:class:`~autoglm_client.AuthenticationFailed`."""


class ModelRedirected(Redirected, ModelInvalidRequestError):
    """:class:`~autoglm_client.Redirected`."""


class ModelNotFound(NotFound, ModelNotFoundError):
    """:class:`~autoglm_client.NotFound`."""


class ModelRateLimited(RateLimited, ModelRateLimitError):
    """:class:`~autoglm_client.RateLimited`."""


class ModelServerFailed(ServerFailed, ModelAPIError):
    """:class:`~autoglm_client.ServerFailed`."""


class ModelServerDied(ServerDied, ModelAPIError):
    """:class:`~autoglm_client.ServerDied`."""


class ModelContentFiltered(ContentFiltered, ModelInvalidRequestError):
    """:class:`~autoglm_client.ContentFiltered`."""


class ModelInvalidReply(InvalidReply, ModelAPIError):
    """:class:`~autoglm_client.InvalidReply`."""


class ModelEventTooLarge(EventTooLarge, ModelAPIError):
    """:class:`~autoglm_client.EventTooLarge`."""


class ModelStreamInterrupted(StreamInterrupted, ModelConnectionError):
    """:class:`~autoglm_client.StreamInterrupted`."""


class ModelCancelled(Cancelled, ModelError):
    """:class:`~autoglm_client.Cancelled`."""


class ModelPermissionDenied(AuthenticationFailed, ModelPermissionDeniedError):
    """:class:`~autoglm_client.AuthenticationFailed` with the status 403: the key may not do this."""


_KINDS: dict[type[AutoGLMError], type[AutoGLMError]] = {
    ConfigurationError: ModelConfigurationError,
    ConnectionFailed: ModelConnectionFailed,
    RequestTimedOut: ModelRequestTimedOut,
    DeadlineExceeded: ModelDeadlineExceeded,
    StatusError: ModelStatusError,
    BadRequest: ModelBadRequest,
    ContextOverflow: ModelContextOverflow,
    AuthenticationFailed: ModelAuthenticationFailed,
    Redirected: ModelRedirected,
    NotFound: ModelNotFound,
    RateLimited: ModelRateLimited,
    ServerFailed: ModelServerFailed,
    ServerDied: ModelServerDied,
    ContentFiltered: ModelContentFiltered,
    InvalidReply: ModelInvalidReply,
    EventTooLarge: ModelEventTooLarge,
    StreamInterrupted: ModelStreamInterrupted,
    Cancelled: ModelCancelled,
}


def model_error(error: AutoGLMError) -> AutoGLMError:
    """The same error of a class that LangChain knows too, with its words and attributes."""
    kind = _KINDS.get(type(error))
    if kind is None:
        return error
    if isinstance(error, AuthenticationFailed) and error.status == 403:
        kind = ModelPermissionDenied
    known = kind.__new__(kind, *error.args)
    known.__dict__.update(error.__dict__, is_retryable=error.retryable)
    if isinstance(error, StatusError):
        headers = {"x-request-id": error.request_id} if error.request_id else {}
        known.__dict__["response"] = ErrorResponse(error.status, error.body, headers)
    return known


@contextmanager
def model_errors() -> Iterator[None]:
    """Inside, our errors become LangChain's as well."""
    try:
        yield
    except AutoGLMError as error:
        known = model_error(error)
        if known is error:
            raise
        raise known.with_traceback(error.__traceback__) from error.__cause__
