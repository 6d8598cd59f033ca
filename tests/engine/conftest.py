"""Two servers for the whole run, started together: they need 40 seconds and 2.5 GB of memory each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from autoglm_client import AutoGLM

from .clients import client
from .engine import Engine, build_checkpoint


class Engines(NamedTuple):
    plain: Engine
    parser: Engine


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    folder = tmp_path_factory.mktemp("model")
    build_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Engines]:
    logs = tmp_path_factory.mktemp("engine")
    both = Engines(
        plain=Engine(checkpoint, logs / "plain.log"),
        parser=Engine(checkpoint, logs / "parser.log", options=("--reasoning-parser", "glm45"), api_key="engine-key"),
    )
    try:
        for engine in both:
            engine.start()
        for engine in both:
            engine.wait()
        yield both
    finally:
        for engine in both:
            engine.stop()


@pytest.fixture
def plain(engines: Engines) -> Engine:
    """A server without a reasoning parser and without a key, as the official command starts it."""
    return engines.plain


@pytest.fixture
def parser(engines: Engines) -> Engine:
    """A server with ``--reasoning-parser glm45`` and a key."""
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
