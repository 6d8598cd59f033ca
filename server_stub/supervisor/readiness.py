"""Ask a server over HTTP whether it can do its work: its health, and one generated token."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

__all__ = ["Readiness", "Refused"]

HEALTH_SECONDS = 5.0


class Refused(Exception):
    """The server answered the first question with an error, or hung up on it; the text holds what it said."""


@dataclass(frozen=True)
class Readiness:
    """Questions to one server; no proxy stands between us and this machine."""

    root_url: str
    health: str
    model: str
    api_key: str | None = field(default=None, repr=False)

    def is_healthy(self) -> bool:
        """Whether the server says that it is up, which is less than that it works."""
        try:
            self._ask(self.health, HEALTH_SECONDS)
        except (OSError, HTTPException):
            return False
        return True

    def generate(self, seconds: float) -> bool:
        """Have one token generated; false when the server is not yet there for it."""
        question = {"model": self.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        try:
            answer = json.loads(self._ask("/v1/chat/completions", seconds, question))
        except HTTPError as error:
            if error.code == 503:
                return False
            raise Refused(f"{error.code} {error.read(2000).decode(errors='replace')}") from error
        except TimeoutError:
            return False
        except (OSError, HTTPException, ValueError) as error:
            raise Refused(str(error) or type(error).__name__) from error
        if not (isinstance(answer, dict) and answer.get("choices")):
            raise Refused(f"an answer without choices: {answer!s:.500}")
        return True

    def _ask(self, path: str, seconds: float, question: dict[str, Any] | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        data = json.dumps(question).encode() if question else None
        request = Request(self.root_url + path, data, headers)  # noqa: S310 - the server's own address
        with build_opener(ProxyHandler({})).open(request, timeout=seconds) as answer:
            return bytes(answer.read())
