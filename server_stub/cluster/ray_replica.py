"""A replica that ends with its engine; imported by Ray's workers, from this file's folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from ray.llm._internal.serve.core.server.llm_server import LLMServer

__all__ = ["Replica"]

LOOK_EVERY = 0.1  # seconds


class Replica(LLMServer):  # type: ignore[misc]  # Ray is not installed where types are checked
    """Ray's replica outlives its engine: for 24 seconds (measured) it goes on to take requests and to refuse them all.

    Refusing is quick, so the router sees it idle and sends it more than its share. A process that has ended gets none:
    what waits is routed to the others at once.
    """

    async def start(self) -> None:
        """Start the engine, and end when it does."""
        await super().start()
        self._watch = asyncio.create_task(self._leave_with_the_engine())

    async def chat(self, *request: Any) -> AsyncIterator[Any]:
        """The answer, without the engine's last words: a stream that ends is asked again, one with an error is not."""
        return self._while_it_lives(await super().chat(*request))

    async def _while_it_lives(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in pieces:
            await self._leave_if_dead()
            yield piece

    async def _leave_with_the_engine(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self._leave_if_dead()

    async def _leave_if_dead(self) -> None:
        try:
            await self.check_health()
        except Exception as error:  # noqa: BLE001 - whatever it is, this replica answers nobody any more
            print(f"The engine of this replica has ended, and so does the replica: {error}", flush=True)  # noqa: T201
            os._exit(1)
