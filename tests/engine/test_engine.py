"""The engine itself, asked over plain HTTP: what the other tests of this folder stand on."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import pytest
from PIL import Image

from .dictation import dictated
from .engine import MODEL, MODEL_LENGTH, OTHER_NAME, Engine

TAGGED = '<think>The task is done.</think><answer>do(action="Back")</answer>'

IMAGE_TOKENS = 4 * 8
"""A screen of 112 x 224 in squares of 28: two patches each way become one token."""


def picture(color: str) -> dict[str, Any]:
    data = io.BytesIO()
    Image.new("RGB", (112, 224), color).save(data, "PNG")
    url = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def ask(engine: Engine, content: object, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 16}
    with engine.http() as http:
        reply = http.post("/v1/chat/completions", json={**body, **(options or {})})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def said(engine: Engine, content: object, options: Mapping[str, Any] | None = None) -> tuple[str | None, str | None]:
    message = ask(engine, content, options)["choices"][0]["message"]
    return message["reasoning"], message["content"]


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
    answer = ask(engine, "Open WeChat")
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


def test_the_picture_is_seen(plain: Engine) -> None:
    question = {"type": "text", "text": "What is this?"}
    red, blue, again = (ask(plain, [picture(color), question]) for color in ("red", "blue", "red"))
    assert red["choices"][0]["message"]["content"] != blue["choices"][0]["message"]["content"]
    assert red["choices"][0]["message"]["content"] == again["choices"][0]["message"]["content"]
    marks_and_newline = 3
    without = ask(plain, "What is this?")["usage"]["prompt_tokens"]
    assert red["usage"]["prompt_tokens"] == without + IMAGE_TOKENS + marks_and_newline


def test_the_prompt_is_rendered_as_the_real_model_reads_it(plain: Engine) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Go on"}, picture("red")]},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
        {"role": "tool", "content": "not rendered", "tool_call_id": "1"},
        {"role": "user", "content": "Go on"},
    ]
    with plain.http() as http:
        body = {"model": MODEL, "messages": messages, "return_token_strs": True}
        tokens = http.post("/tokenize", json=body).raise_for_status().json()["tokens"]
        prompt = http.post("/detokenize", json={"model": MODEL, "tokens": tokens}).raise_for_status().json()["prompt"]
    image = "<|begin_of_image|>" + "<|image|>" * IMAGE_TOKENS + "<|end_of_image|>"
    assert prompt == (  # the server puts the picture first, wherever the client had it
        f"[gMASK]<sop><|system|>\nBe brief.<|user|>\n{image}\nGo on<|assistant|>\nYes.<|user|>\nGo on<|assistant|>\n"
    )


def test_tags_are_special_tokens_and_stripped_unless_asked_for(plain: Engine) -> None:
    words = dictated(plain, TAGGED)
    assert said(plain, "Hi", words) == (None, 'The task is done.do(action="Back")')
    shown = '<think>The task is done.</think><answer>do(action="Back")'  # </answer> ends the turn and is never sent
    assert said(plain, "Hi", {**words, "skip_special_tokens": False}) == (None, shown)


def test_a_parser_takes_the_thinking_out_of_the_answer(parser: Engine) -> None:
    assert said(parser, "Hi", dictated(parser, TAGGED)) == ("The task is done.", 'do(action="Back")')


def test_a_parser_takes_an_answer_without_tags_for_thinking(plain: Engine, parser: Engine) -> None:
    _, content = said(plain, "Open WeChat")
    assert said(parser, "Open WeChat") == (content, None)


def test_a_grammar_holds_random_weights(plain: Engine) -> None:
    _, content = said(plain, "Hi", {"structured_outputs": {"regex": r"do\(action=\"(Back|Home)\"\)"}, "max_tokens": 64})
    assert content in {'do(action="Back")', 'do(action="Home")'}


def test_the_key_is_asked_for(parser: Engine) -> None:
    with parser.http() as http:
        assert http.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_metrics(plain: Engine) -> None:
    before = plain.metric("vllm:prompt_tokens_total")
    used = ask(plain, "Open WeChat")["usage"]["prompt_tokens"]
    assert plain.metric("vllm:prompt_tokens_total") == before + used
    assert plain.metric("vllm:num_requests_running") == 0
    with pytest.raises(KeyError):
        plain.metric("vllm:nothing")
