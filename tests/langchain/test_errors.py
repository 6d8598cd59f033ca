"""Errors that are ours and LangChain's at once."""

from __future__ import annotations

import pickle

import pytest
from langchain_core.exceptions import (
    ContextOverflowError,
    LangChainException,
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

from autoglm_client import (
    ActionError,
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
from autoglm_client.langchain.errors import ErrorResponse, model_error, model_errors

PAIRS: list[tuple[AutoGLMError, type[LangChainException], bool]] = [
    (ConfigurationError("x"), ModelInvalidRequestError, False),
    (ConnectionFailed("x"), ModelConnectionError, True),
    (RequestTimedOut("x", clock="connect"), ModelTimeoutError, True),
    (DeadlineExceeded("x"), ModelTimeoutError, False),
    (StatusError("x", status=418), ModelError, False),
    (BadRequest("x", status=400), ModelInvalidRequestError, False),
    (ContextOverflow("x", status=400), ContextOverflowError, False),
    (AuthenticationFailed("x", status=401), ModelAuthenticationError, False),
    (AuthenticationFailed("x", status=403), ModelPermissionDeniedError, False),
    (Redirected("x", status=307), ModelInvalidRequestError, False),
    (Cancelled("x"), ModelError, False),
    (NotFound("x", status=404), ModelNotFoundError, False),
    (RateLimited("x", status=429, retry_after=2.0), ModelRateLimitError, True),
    (ServerFailed("x", status=503), ModelAPIError, True),
    (ServerDied("x", status=500), ModelAPIError, False),
    (ContentFiltered("x"), ModelInvalidRequestError, False),
    (InvalidReply("x"), ModelAPIError, False),
    (EventTooLarge("x"), ModelAPIError, False),
    (StreamInterrupted("x"), ModelConnectionError, True),
]


@pytest.mark.parametrize(("error", "theirs", "retryable"), PAIRS, ids=lambda value: getattr(value, "__name__", None))
def test_each_is_both(error: AutoGLMError, theirs: type[LangChainException], retryable: bool) -> None:
    error.attempts = 3
    for known in (model_error(error), pickle.loads(pickle.dumps(model_error(error)))):
        assert isinstance(known, type(error))
        assert isinstance(known, theirs)
        assert str(known) == str(error)
        assert known.attempts == 3
        assert known.is_retryable is retryable  # type: ignore[attr-defined]
        assert {**vars(known), **vars(error)} == vars(known)


def test_what_tracers_read() -> None:
    error: object = model_error(RateLimited("x", status=429, body='{"error": "slow"}', request_id="7"))
    response = error.response  # type: ignore[attr-defined]
    assert response == ErrorResponse(429, '{"error": "slow"}', {"x-request-id": "7"})
    assert response.json() == {"error": "slow"}


def test_one_that_langchain_has_no_word_for_stays_as_it_is() -> None:
    error = ActionError("x", code="no_action")
    with pytest.raises(ActionError) as raised, model_errors():
        raise error
    assert raised.value is error


def test_the_cause_stays() -> None:
    cause = OSError("cable")
    with pytest.raises(ModelConnectionError) as raised, model_errors():
        raise ConnectionFailed("x") from cause
    assert raised.value.__cause__ is cause
