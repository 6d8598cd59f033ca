"""The engine itself, asked over plain HTTP: what the other tests of this folder stand on."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from server_stub.screen import Button, draw_screen

from .engine import MODEL, MODEL_LENGTH, OTHER_NAME, Engine

TASK = "Open Settings"
THINKING = "The user wants Settings. I launch it."
ANSWER = 'do(action="Launch", app="Settings")'

IMAGE_TOKENS = 4 * 8
"""The picture in squares of 28: two patches each way become one token."""


def picture(left: int, top: int) -> dict[str, Any]:
    """A screen of 112 x 224 with a red button at this place."""
    png = draw_screen(112, 224, [Button("red", left, top, 40, 20)])
    url = "data:image/png;base64," + base64.b64encode(png).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def ask(engine: Engine, content: object, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 64}
    with engine.http() as http:
        reply = http.post("/v1/chat/completions", json={**body, **(options or {})})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def said(engine: Engine, content: object, options: Mapping[str, Any] | None = None) -> tuple[str | None, str | None]:
    message = ask(engine, content, options)["choices"][0]["message"]
    return message["reasoning"], message["content"]


def tokens(engine: Engine, text: str) -> list[str]:
    """Their numbers, as the keys of a JSON object."""
    with engine.http() as http:
        reply = http.post("/tokenize", json={"model": MODEL, "prompt": text, "add_special_tokens": False})
    return [str(token) for token in reply.raise_for_status().json()["tokens"]]


@pytest.fixture(params=["plain", "parser"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


def test_health_and_models(engine: Engine) -> None:
    with engine.http() as http:
        assert http.get("/health").status_code == 200
        models = http.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == [MODEL, OTHER_NAME]
    assert models[0]["max_model_len"] == MODEL_LENGTH


def test_one_completion(engine: Engine) -> None:
    answer = ask(engine, TASK, {"max_tokens": 16})
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_the_picture_is_seen(plain: Engine) -> None:
    question = {"type": "text", "text": "Tap the red button"}
    here, there, again = (ask(plain, [picture(*place), question]) for place in ((10, 20), (60, 180), (10, 20)))
    assert here["choices"][0]["message"]["content"] != there["choices"][0]["message"]["content"]
    assert here["choices"][0]["message"]["content"] == again["choices"][0]["message"]["content"]
    marks_and_newline = 3
    without = ask(plain, question["text"])["usage"]["prompt_tokens"]
    assert here["usage"]["prompt_tokens"] == without + IMAGE_TOKENS + marks_and_newline


def test_tags_are_special_tokens_and_stripped_unless_asked_for(plain: Engine) -> None:
    assert said(plain, TASK) == (None, THINKING + ANSWER)
    shown = f"<think>{THINKING}</think><answer>{ANSWER}"  # </answer> ends the turn and is never sent
    assert said(plain, TASK, {"skip_special_tokens": False}) == (None, shown)


def test_a_parser_takes_the_thinking_out_of_the_answer(parser: Engine) -> None:
    assert said(parser, TASK) == (THINKING, ANSWER)


def test_a_parser_takes_an_answer_without_tags_for_thinking(plain: Engine, parser: Engine) -> None:
    without_tags = {"logit_bias": dict.fromkeys(tokens(plain, "<think></think><answer></answer>"), -100)}
    _, content = said(plain, TASK, without_tags)
    assert said(parser, TASK, without_tags) == (content, None)


def test_a_grammar_is_stronger_than_the_weights(plain: Engine) -> None:
    _, content = said(plain, "Hi", {"structured_outputs": {"regex": r"do\(action=\"(Back|Home)\"\)"}, "max_tokens": 64})
    assert content in {'do(action="Back")', 'do(action="Home")'}


def test_the_key_is_asked_for(parser: Engine) -> None:
    with parser.http() as http:
        assert http.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_metrics(plain: Engine) -> None:
    before = plain.metric("vllm:prompt_tokens_total")
    used = ask(plain, TASK)["usage"]["prompt_tokens"]
    assert plain.metric("vllm:prompt_tokens_total") == before + used
    assert plain.metric("vllm:num_requests_running") == 0
    with pytest.raises(KeyError):
        plain.metric("vllm:nothing")
