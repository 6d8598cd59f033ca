"""Both clients behind one face, so that every test of a client runs on both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from autoglm_client import AsyncAutoGLM, AutoGLM
from autoglm_client._retry import budget_of
from server_stub import ScriptedServer

ClientFactory = Callable[..., Any]


class _Blocking:
    """The async client, driven step by step: what it awaits, this waits for."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        if not callable(value):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            result = value(*args, **kwargs)
            if isinstance(result, Awaitable):
                return self._runner.run(_awaited(result))
            return _Blocking(result, self._runner) if hasattr(result, "__aiter__") else result

        return call

    def __enter__(self) -> Any:
        self._runner.run(self._target.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._runner.run(self._target.__aexit__(*error))

    def __iter__(self) -> Iterator[Any]:
        self._target.__aiter__()
        return self

    def __next__(self) -> Any:
        try:
            return self._runner.run(self._target.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


@pytest.fixture(params=["sync", "async"])
def make_client(request: pytest.FixtureRequest) -> Iterator[ClientFactory]:
    """Make a client of either kind; it is closed when the test ends."""
    made: list[Any] = []
    with asyncio.Runner() as runner:

        def make(*args: Any, **kwargs: Any) -> Any:
            client: Any
            if request.param == "sync":
                client = AutoGLM(*args, **kwargs)
            else:
                client = _Blocking(AsyncAutoGLM(*args, **kwargs), runner)
            made.append(client)
            return client

        yield make
        for client in made:
            client.close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A scripted server, fresh for each test."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def glm(make_client: ClientFactory, server: ScriptedServer) -> Any:
    """A client of the scripted server."""
    return make_client(server.base_url)


@pytest.fixture(autouse=True)
def _no_memory_of_servers() -> None:
    """A port may be another server's in the next test: what it may be retried is not what that one left."""
    budget_of.cache_clear()


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own settings out of the tests."""
    for name in ("BASE_URL", "API_KEY", "MODEL"):
        monkeypatch.delenv(f"AUTOGLM_{name}", raising=False)
        monkeypatch.delenv(f"PHONE_AGENT_{name}", raising=False)
