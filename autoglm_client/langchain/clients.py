"""The clients behind a chat model, made when they are first needed, and what is known of their server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from .. import AsyncAutoGLM, AutoGLM, AutoGLMError, BadRequest, ChatOptions

__all__ = ["Clients"]

QUESTION = "Hi"
TOOLS = [{"type": "function", "function": {"name": "probe", "parameters": {"type": "object", "properties": {}}}}]


class Clients:
    """One sync and one async client of the same server. Copies of it start anew, as connections cannot be copied."""

    def __init__(self, settings: Mapping[str, Any], http_client: Any = None, http_async_client: Any = None) -> None:
        self.settings = settings
        self._http_client = http_client
        self._http_async_client = http_async_client
        self._takes_tools: bool | None = None
        self._lock = Lock()
        self._async_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clients) and self._made_of == other._made_of

    __hash__ = None  # type: ignore[assignment]  # settings can be changed

    def __deepcopy__(self, memo: object) -> Clients:
        return Clients(self.settings, self._http_client, self._http_async_client)

    def __reduce__(self) -> tuple[type[Clients], tuple[dict[str, Any]]]:
        return Clients, ({},)  # neither connections nor keys

    @property
    def _made_of(self) -> tuple[Any, ...]:
        return self.settings, self._http_client, self._http_async_client

    @cached_property
    def client(self) -> AutoGLM:
        """For ``invoke``, ``stream`` and ``batch``."""
        return AutoGLM(**self.settings, http_client=self._http_client)

    @cached_property
    def async_client(self) -> AsyncAutoGLM:
        """For ``ainvoke``, ``astream`` and ``abatch``, in any event loop."""
        return AsyncAutoGLM(**self.settings, http_client=self._http_async_client)

    def takes_tools(self, deadline: float | None) -> bool:
        """Whether the server shows tools to the model and reads its calls; asked once, before the ``deadline``.

        A stock AutoGLM server does neither: GLM-4.1V's template leaves tools out (``/tokenize`` counts the same tokens
        with and without), and without ``--tool-call-parser`` vLLM answers 400.
        """
        with self._lock:
            if self._takes_tools is None:
                self._takes_tools = self._shows_tools(deadline) and self._parses_tools(deadline)
            return self._takes_tools

    async def atakes_tools(self, deadline: float | None) -> bool:
        """The same for async code."""
        async with self._async_locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if self._takes_tools is None:
                self._takes_tools = await self._ashows_tools(deadline) and await self._aparses_tools(deadline)
            return self._takes_tools

    def _shows_tools(self, deadline: float | None) -> bool:
        tokenize = self.client.tokenize
        try:
            without = tokenize(QUESTION, deadline=deadline)
            return without.count < tokenize(QUESTION, deadline=deadline, tools=TOOLS).count
        except AutoGLMError:
            return True  # only vLLM has the route: the next question decides

    async def _ashows_tools(self, deadline: float | None) -> bool:
        tokenize = self.async_client.tokenize
        try:
            without = await tokenize(QUESTION, deadline=deadline)
            return without.count < (await tokenize(QUESTION, deadline=deadline, tools=TOOLS)).count
        except AutoGLMError:
            return True

    def _parses_tools(self, deadline: float | None) -> bool:
        try:
            self.client.chat(QUESTION, **_probe(deadline))
        except BadRequest:
            return False
        return True

    async def _aparses_tools(self, deadline: float | None) -> bool:
        try:
            await self.async_client.chat(QUESTION, **_probe(deadline))
        except BadRequest:
            return False
        return True


def _probe(deadline: float | None) -> ChatOptions:
    options: ChatOptions = {"tools": TOOLS, "max_tokens": 1}
    return options if deadline is None else {**options, "deadline": deadline}
