"""The tree of errors, and what each kind of refusal becomes."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from autoglm_client import errors
from autoglm_client._status import read_refusal, status_error
from autoglm_client.errors import (
    ActionError,
    AuthenticationFailed,
    AutoGLMError,
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    NotFound,
    RateLimited,
    Redirected,
    RequestTimedOut,
    ServerDied,
    ServerFailed,
    StatusError,
)

from .wire_samples import SAMPLES

CLASSES: list[type[AutoGLMError]] = [
    value
    for name in errors.__all__
    if isinstance(value := getattr(errors, name), type) and issubclass(value, AutoGLMError)
]


def test_every_class_has_a_category_of_its_own() -> None:
    assert len({cls.category for cls in CLASSES}) == len(CLASSES)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = [line.split("──")[-1].split()[0] for line in (errors.__doc__ or "").splitlines() if "──" in line]
    assert {*drawn, "AutoGLMError"} == {cls.__name__ for cls in CLASSES}
    for cls in CLASSES:
        assert cls.__doc__


@pytest.mark.parametrize(
    "error",
    [
        ActionError("no", code="truncated", text="do(", position=3),
        StatusError("no", status=418, body="{}", request_id="x", retry_after=1.0),
        RequestTimedOut("late", clock="between_tokens"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_pickled_error_keeps_everything(error: AutoGLMError) -> None:
    error.attempts = 2
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.args, vars(copy)) == (type(error), error.args, vars(error))


REFUSALS: list[tuple[int, Any, type[StatusError]]] = [
    (400, {"error": {"message": "temperature must be non-negative", "type": "BadRequestError"}}, BadRequest),
    (400, {"error": {"message": "This model's maximum context length is 4096 tokens. However, ..."}}, ContextOverflow),
    (400, {"error": {"message": "too long", "code": "context_length_exceeded"}}, ContextOverflow),
    (400, {"error": {"message": "no", "code": "content_filter"}}, ContentFiltered),
    (400, {"object": "error", "message": "old", "type": "BadRequestError", "code": 400}, BadRequest),
    (401, {"error": "Unauthorized"}, AuthenticationFailed),
    (403, {"detail": "Forbidden"}, AuthenticationFailed),
    (404, {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}}, NotFound),
    (404, {"detail": "Not Found"}, NotFound),
    (408, "", ServerFailed),
    (413, "Payload Too Large", BadRequest),
    (422, {"detail": [{"loc": ["body", "messages"], "msg": "Field required"}]}, BadRequest),
    (429, {"error": {"code": "1302", "message": "rate"}}, RateLimited),
    (429, {"error": {"code": "1113", "message": "余额不足"}}, RateLimited),
    (400, {"error": {"code": "1211", "message": "模型不存在"}}, NotFound),
    (400, {"error": {"code": "1261", "message": "Prompt 超长"}}, ContextOverflow),
    (400, {"error": {"code": "1301", "message": "敏感内容"}}, ContentFiltered),
    (400, {"errors": {"message": "ModelScope says no"}}, BadRequest),
    (500, {"error": {"message": ["no", "text"]}}, ServerFailed),
    (500, {"error": {"message": "boom", "type": "InternalServerError", "code": 500}}, ServerFailed),
    (500, {"error": {"message": "EngineCore encountered an issue. See stack trace.", "code": 500}}, ServerDied),
    (500, {"error": {"message": "Engine Dead Error"}}, ServerDied),
    (502, "<html>Bad Gateway</html>", ServerFailed),
    (503, None, ServerFailed),
    (503, [], ServerFailed),
    (301, "", Redirected),
]


@pytest.mark.parametrize(("status", "body", "kind"), REFUSALS, ids=str)
def test_what_a_refusal_becomes(status: int, body: Any, kind: type[StatusError]) -> None:
    error = status_error(status, body)
    assert type(error) is kind
    assert error.status == status
    assert str(error).startswith(f"{status} ")
    assert read_refusal(body).message in str(error)
    assert "\n" not in str(error)


def test_a_key_without_the_right_is_not_called_wrong() -> None:
    assert str(status_error(403, {"detail": "Forbidden"})).startswith("403 the API key may not do this: ")
    assert "missing or wrong" in str(status_error(401, {"detail": "Unauthorized"}))
    assert "refused by content moderation" in str(status_error(403, {"error": {"code": "1301", "message": "no"}}))


def test_an_empty_account_is_not_worth_a_retry() -> None:
    assert status_error(429, {"error": {"code": "1302", "message": "rate"}}).retryable
    assert not status_error(429, {"error": {"code": "1113", "message": "balance"}}).retryable


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (400, 400),
        ("503", 503),
        (None, 500),
        ("1302", 500),
        ("x", 500),
        ("9" * 5000, 500),
        ("000400" + "0" * 5000, 500),
        (200, 500),
    ],
)
def test_an_error_inside_a_stream_brings_its_own_status(code: object, status: int) -> None:
    assert status_error(0, {"error": {"message": "m", "code": code}}).status == status


def test_half_a_character_in_an_error_can_be_printed() -> None:
    for body in ({"error": {"message": "a\ud83d"}}, {"error": "a\udc00"}, ["a\ud83d"]):
        error = status_error(400, json.loads(json.dumps(body)))
        assert "a\ufffd" in str(error)
        assert (str(error) + error.body).encode()


def test_a_dead_engine_by_its_type_alone() -> None:
    body = {"error": {"message": "it stopped", "type": "EngineDeadError", "code": 500}}
    assert type(status_error(500, body)) is type(status_error(0, body)) is ServerDied


INGRESS = "Message: {} (Request ID: 1), Internal exception: e"
WRAPPED = {
    "no original": (INGRESS.format("no"), INGRESS.format("no"), False),
    "an original": (INGRESS.format("no") + ", original exception: x", "no", True),
    "two of each": (INGRESS.format("no") * 2 + ", original exception: x" * 2, "no", True),
    "a traceback": (INGRESS.format("Internal Server Error") + ", original exception: a\n b\nc\n d", "c", True),
}


@pytest.mark.parametrize(("message", "words", "of_a_replica"), WRAPPED.values(), ids=WRAPPED)
def test_the_words_of_an_ingress(message: str, words: str, of_a_replica: bool) -> None:
    refusal = read_refusal({"error": {"message": message}})
    assert (refusal.message, refusal.of_a_replica) == (words, of_a_replica)


def test_a_long_message_is_shortened_but_the_body_is_whole() -> None:
    error = status_error(500, "x" * 5000, text="y" * 5000)
    assert len(str(error)) < 600
    assert error.body == "y" * 5000


@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample["status"] >= 400])
def test_the_errors_of_a_real_vllm(name: str) -> None:
    sample = SAMPLES[name]
    error = status_error(sample["status"], json.loads(sample["body"]), text=sample["body"])
    expected = {"e_context": ContextOverflow, "e_model": NotFound}.get(name.split(".")[1], BadRequest)
    assert type(error) is expected
    assert error.body == sample["body"]
