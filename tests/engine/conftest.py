"""Two servers for the whole run, started together: they need a minute, and 2.5 GB of memory each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from autoglm_client import AutoGLM

from .clients import client
from .engine import Engine, serving, tiny

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # the engines share the machine with one another and with the tests
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "5",  # vLLM's own default, that the client must bear
}


class Engines(NamedTuple):
    plain: Engine
    parser: Engine


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name in ("AUTOGLM_API_KEY", "AUTOGLM_BASE_URL", "VLLM_API_KEY"):
            patch.delenv(name, raising=False)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    logs = tmp_path_factory.mktemp("engine")
    both = Engines(
        plain=tiny(logs / "plain.log"),
        parser=tiny(logs / "parser.log", reasoning_parser="glm45", tool_parser="hermes", api_key="engine-key"),
    )
    with serving(*both):
        yield both


@pytest.fixture
def plain(engines: Engines) -> Engine:
    """A server without a reasoning parser and without a key, as the official command starts it."""
    return engines.plain


@pytest.fixture
def parser(engines: Engines) -> Engine:
    """A server with ``--reasoning-parser glm45``, a parser of tool calls, and a key."""
    return engines.parser


@pytest.fixture
def glm(plain: Engine) -> Iterator[AutoGLM]:
    with client(plain) as glm:
        yield glm


@pytest.fixture
def glm_parser(parser: Engine) -> Iterator[AutoGLM]:
    with client(parser) as glm:
        yield glm


@pytest.fixture(params=["glm", "glm_parser"])
def either(request: pytest.FixtureRequest) -> AutoGLM:
    """The client of the one server, then of the other."""
    found: AutoGLM = request.getfixturevalue(request.param)
    return found
