"""What a server's refusal means: an error body, in any of the shapes in use, to one of our errors.

Shapes seen: vLLM ``{"error": {"message", "type", "param", "code"}}``, older ones with these fields at the top, FastAPI
``{"detail": ...}``, Ray Serve both of them, the message in a wrapping of its own, BigModel ``{"error": {"code": "1113",
"message"}}``, ModelScope ``{"errors": {"message"}}``, and plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .defaults import MAX_ERROR_BYTES
from .errors import (
    AuthenticationFailed,
    BadRequest,
    ContentFiltered,
    ContextOverflow,
    NotFound,
    RateLimited,
    Redirected,
    ServerDied,
    ServerFailed,
    StatusError,
)

__all__ = ["Refusal", "read_refusal", "status_error"]

_ERROR_STATUS = re.compile("[45][0-9]{2}")
_HALF = re.compile("[\ud800-\udfff]")  # of a character: JSON can hold it, but nobody can print it
_MAX_WORDS = 500  # characters of the server's own text in a message; the whole is in ``body``

_NO_BALANCE = "1113"
_BIGMODEL_CODES: dict[str, type[StatusError]] = {
    _NO_BALANCE: RateLimited,
    "1211": NotFound,
    "1261": ContextOverflow,
    "1301": ContentFiltered,
    "1302": RateLimited,
    "1305": RateLimited,
}
_TOO_LONG = ("maximum context length", "longer than the maximum model length")  # vLLM's words for text, for images
_RAY = re.compile(r"Message: (.*?) \(Request ID: [^)]{0,200}\), Internal exception: ", re.DOTALL)
_RAY_ORIGINAL = ", original exception: "
"""Ray Serve LLM's ingress (2.60) around a message; where that is "Internal Server Error", a traceback says more."""
_CLASSES: dict[int, type[StatusError]] = {
    401: AuthenticationFailed,
    403: AuthenticationFailed,
    404: NotFound,
    408: ServerFailed,
    429: RateLimited,
}
_ADVICE: dict[type[StatusError], str] = {
    AuthenticationFailed: "the API key is missing or wrong (AUTOGLM_API_KEY or api_key=)",
    NotFound: "no such model or address: compare model= and base_url= with `autoglm check`",
    ContextOverflow: "the prompt is too long for the model: send fewer turns or smaller images",
    RateLimited: "too many requests",
    Redirected: "the server sends elsewhere, which is not followed",
    ServerDied: "the inference engine has stopped and must be started again",
    ServerFailed: "the server failed",
    ContentFiltered: "refused by content moderation",
    BadRequest: "the server refuses the request",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an error body says."""

    message: str
    type: str = ""
    code: str = ""
    of_a_replica: bool = False
    """It comes from one of several engines, behind an ingress that will ask another one."""


def read_refusal(body: object) -> Refusal:
    """Find message, type and code in a decoded error body."""
    if isinstance(body, Mapping):
        for key in ("error", "errors", "detail"):
            if body.get(key):
                return _fields(body[key], outer=body)
        return _fields(body, outer=body)
    return Refusal(_words(body))


def _fields(body: object, outer: Mapping[str, Any]) -> Refusal:
    if not isinstance(body, Mapping):
        return Refusal(_words(body), code=str(outer.get("code") or ""))
    message = body.get("message") or outer.get("message") or _words(body)
    if isinstance(message, str):
        message = message[:MAX_ERROR_BYTES]
    kind, code = str(body.get("type") or ""), str(body.get("code") or "")
    if (unwrapped := _unwrapped(message)) is not None:
        return Refusal(unwrapped, type=kind, code=code, of_a_replica=True)
    return Refusal(_words(message), type=kind, code=code)


def _unwrapped(message: object) -> str | None:
    """What Ray's ingress was told: its message, or the last line of the traceback that is not indented."""
    wrapped = _RAY.match(message) if isinstance(message, str) else None
    if wrapped is None:
        return None
    _, is_there, original = wrapped.string[wrapped.end() :].partition(_RAY_ORIGINAL)
    if not is_there:
        return None
    lines = [line for line in original.splitlines() if line[:1].strip()]
    return lines[-1].strip() if lines and wrapped[1] == "Internal Server Error" else wrapped[1].strip()


def _words(value: object) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def status_error(
    status: int,
    body: object,
    *,
    text: str = "",
    request_id: str | None = None,
    retry_after: float | None = None,
) -> StatusError:
    """Make the error for a refusal; ``status`` 0 takes it from the body, as an error inside a stream needs."""
    refusal = read_refusal(body)
    if not status:
        status = int(refusal.code) if _ERROR_STATUS.fullmatch(refusal.code) else 500
    kind = _class_of(status, refusal)
    words = _HALF.sub("\ufffd", refusal.message[:_MAX_WORDS])
    message = f"{status} {_advice(kind, status)}"
    error = kind(
        f"{message}: {words}" if words else message,
        status=status,
        body=_HALF.sub("\ufffd", (text or _words(body))[:MAX_ERROR_BYTES]),
        request_id=request_id,
        retry_after=retry_after,
    )
    error.retryable = kind.retryable and refusal.code != _NO_BALANCE
    return error


def _advice(kind: type[StatusError], status: int) -> str:
    if kind is AuthenticationFailed and status == 403:
        return "the API key may not do this: use one that may (AUTOGLM_API_KEY or api_key=)"
    return _ADVICE.get(kind, "the server answered with an unexpected status")


def _class_of(status: int, refusal: Refusal) -> type[StatusError]:
    if refusal.code in _BIGMODEL_CODES:
        return _BIGMODEL_CODES[refusal.code]
    words = refusal.message.lower()
    if status >= 500:
        died = "enginecore" in words or "enginedead" in (refusal.type.lower() + words).replace(" ", "")
        return ServerDied if died and not refusal.of_a_replica else ServerFailed
    if status in _CLASSES:
        return _CLASSES[status]
    if any(sign in words for sign in _TOO_LONG) or refusal.code == "context_length_exceeded":
        return ContextOverflow
    if "content_filter" in refusal.code or "content_filter" in refusal.type:
        return ContentFiltered
    if 300 <= status < 400:
        return Redirected
    return BadRequest if 400 <= status < 500 else StatusError
