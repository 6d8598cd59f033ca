"""An error answered in vLLM's words: status and the JSON body that goes with it."""

from __future__ import annotations

from typing import Any

__all__ = ["Refusal", "invalid_field"]

_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError", 501: "NotImplementedError"}


class Refusal(Exception):
    """A request that vLLM would answer with ``status`` and an error body."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        value: object = None,
        kind: str | None = None,
    ) -> None:
        extras = [f"{name}={it}" for name, it in (("parameter", param), ("value", value)) if it is not None]
        if extras and status == 400:
            message = f"{message} ({', '.join(extras)})"
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "error": {"message": message, "type": kind or _TYPES.get(status, "Error"), "param": param, "code": status}
        }


def invalid_field(where: str, kind: str, message: str, value: object, **context: object) -> Refusal:
    """Make the 400 for a body of the wrong form: pydantic's error as a Python dict, containers only counted."""
    if isinstance(value, (dict, list)):
        value = f"<{type(value).__name__} of {len(value)} items>"
    error = {"type": kind, "loc": where, "msg": message, "input": value}
    if context:
        error["ctx"] = context
    refusal = Refusal(f"1 validation error:\n  {error}", kind="Bad Request")
    refusal.body["error"]["param"] = where
    return refusal
