"""The clients behind a chat model, made when they are first needed, and what is known of their server."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from .. import AsyncAutoGLM, AutoGLM, AutoGLMError, BadRequest, ChatOptions

__all__ = ["Clients"]

QUESTION = "Hi"
PROBE: ChatOptions = {
    "tools": [{"type": "function", "function": {"name": "probe", "parameters": {"type": "object", "properties": {}}}}],
    "max_tokens": 1,
}


class Clients:
    """One sync and one async client of the same server. Copies of it start anew, as connections cannot be copied."""

    def __init__(self, settings: Mapping[str, Any], http_client: Any = None, http_async_client: Any = None) -> None:
        self.settings = settings
        self._http_client = http_client
        self._http_async_client = http_async_client
        self._takes_tools: bool | None = None

    def __deepcopy__(self, memo: object) -> Clients:
        return Clients(self.settings, self._http_client, self._http_async_client)

    @cached_property
    def client(self) -> AutoGLM:
        """For ``invoke``, ``stream`` and ``batch``."""
        return AutoGLM(**self.settings, http_client=self._http_client)

    @cached_property
    def async_client(self) -> AsyncAutoGLM:
        """For ``ainvoke``, ``astream`` and ``abatch``, in any event loop."""
        return AsyncAutoGLM(**self.settings, http_client=self._http_async_client)

    def takes_tools(self) -> bool:
        """Whether the server shows tools to the model and reads its calls; asked once.

        A stock AutoGLM server does neither: GLM-4.1V's template leaves tools out (``/tokenize`` counts the same tokens
        with and without), and without ``--tool-call-parser`` vLLM answers 400.
        """
        if self._takes_tools is None:
            self._takes_tools = self._shows_tools() and self._parses_tools()
        return self._takes_tools

    async def atakes_tools(self) -> bool:
        """The same for async code."""
        if self._takes_tools is None:
            self._takes_tools = await self._ashows_tools() and await self._aparses_tools()
        return self._takes_tools

    def _shows_tools(self) -> bool:
        glm = self.client
        try:
            return glm.tokenize(QUESTION).count < glm.tokenize(QUESTION, tools=PROBE["tools"]).count
        except AutoGLMError:
            return True  # only vLLM has the route: the next question decides

    async def _ashows_tools(self) -> bool:
        glm = self.async_client
        try:
            without = await glm.tokenize(QUESTION)
            return without.count < (await glm.tokenize(QUESTION, tools=PROBE["tools"])).count
        except AutoGLMError:
            return True

    def _parses_tools(self) -> bool:
        try:
            self.client.chat(QUESTION, **PROBE)
        except BadRequest:
            return False
        return True

    async def _aparses_tools(self) -> bool:
        try:
            await self.async_client.chat(QUESTION, **PROBE)
        except BadRequest:
            return False
        return True
