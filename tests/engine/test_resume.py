"""Answers that were cut, gone on with by the engine itself."""

from __future__ import annotations

import pytest

from autoglm_client import AutoGLM, Reply, StreamInterrupted, image, user

from ..cutting_proxy import cutting
from .clients import client, screenshot
from .engine import Engine

PLACES = 25


def ask(glm: AutoGLM) -> Reply:
    question = user("Tap the red button", image(screenshot()))
    with glm.stream([question], temperature=0, max_tokens=200, resume="always") as stream:
        return stream.finish()


@pytest.fixture(params=["plain", "parser"])
def engine(request: pytest.FixtureRequest) -> Engine:
    engine: Engine = request.getfixturevalue(request.param)
    return engine


def test_a_greedy_answer_is_the_same_wherever_it_is_cut(engine: Engine) -> None:
    """From the thinking to the end of the action; the server counts the words that it gets back as its own."""
    with client(engine) as glm:
        whole = ask(glm)
    assert whole.reasoning
    assert whole.action is not None
    replies = []
    for events in range(2, 2 + PLACES):
        with cutting(engine.base_url, events=events) as url, AutoGLM(url, api_key=engine.api_key) as glm:
            replies.append(ask(glm))
    assert [reply.resumed for reply in replies] == [True] * PLACES
    assert [(reply, reply.raw) for reply in replies] == [(whole, whole.raw)] * PLACES


def test_a_penalty_would_make_it_another_answer(engine: Engine) -> None:
    with (
        cutting(engine.base_url, events=9) as url,
        AutoGLM(url, api_key=engine.api_key, resume="always") as glm,
        pytest.raises(StreamInterrupted) as caught,
        glm.stream("Open Settings", frequency_penalty=0.2) as stream,
    ):
        stream.finish()
    assert "frequency_penalty" in caught.value.__notes__[0]
