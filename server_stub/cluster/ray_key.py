"""The key that Ray Serve does not ask for: checked in its HTTP proxy, before anything else sees a request."""

from __future__ import annotations

import hmac
import os
from typing import Any

from starlette.middleware import Middleware
from starlette.responses import JSONResponse

__all__ = ["KeyRequired", "middlewares"]

OPEN = frozenset({"/-/healthz"})


def middlewares() -> list[Middleware]:
    """What Ray Serve puts before its proxy; it finds this function by an environment variable."""
    return [Middleware(KeyRequired, key=os.environ["VLLM_API_KEY"])]


class KeyRequired:
    """Answers 401, as vLLM does, to a request without the key; only the health route is open."""

    def __init__(self, app: Any, key: str) -> None:
        self._app = app
        self._authorization = f"Bearer {key}".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let the request through, or refuse it."""
        if scope["type"] == "lifespan" or scope["path"] in OPEN or self._has_key(scope):
            await self._app(scope, receive, send)
        else:
            await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)

    def _has_key(self, scope: Any) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._authorization)
