"""What the engine refuses, as the errors of the client, streamed or not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from autoglm_client import (
    AuthenticationFailed,
    AutoGLM,
    BadRequest,
    ChatOptions,
    ContextOverflow,
    Message,
    NotFound,
    StatusError,
    audio,
    image,
    user,
)

from .clients import screenshot
from .engine import MODEL_LENGTH, Engine

ALMOST_TOO_LONG = "打开 settings " * 960
ONE_TOKEN: ChatOptions = {"max_tokens": 1}
SOUND = b"RIFF\x00\x00\x00\x00WAVE"
BROKEN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
FILE = {"type": "file", "file": {"file_id": "1"}}
TOOL = {"type": "function", "function": {"name": "tap", "parameters": {"type": "object", "properties": {}}}}

REFUSED: dict[str, tuple[type[StatusError], list[Message], ChatOptions]] = {
    "unknown model": (NotFound, [user("Hi")], {"model": "gpt"}),
    "temperature": (BadRequest, [user("Hi")], {"temperature": -1}),
    "too long": (ContextOverflow, [user("打开 settings " * 1500)], {}),
    "too long with its pictures": (ContextOverflow, [user(*[image(screenshot())] * 10, ALMOST_TOO_LONG)], ONE_TOKEN),
    "more than the context wanted": (BadRequest, [user("Hi")], {"max_tokens": 5000}),
    "broken picture": (BadRequest, [user(cast("Any", BROKEN), "Hi")], {}),
    "too many pictures": (BadRequest, [user(*[image(screenshot(size=(64, 64)))] * 11, "Hi")], {}),
    "sound": (BadRequest, [user(audio(SOUND), "Hi")], {}),
    "file": (BadRequest, [user(cast("Any", FILE), "Hi")], {}),
    "tools without a parser": (BadRequest, [user("Hi")], {"tools": [TOOL], "tool_choice": "auto"}),
    "grammar": (BadRequest, [user("Hi")], {"structured_outputs": {"regex": "("}}),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("streamed", [False, True])
def test_what_is_refused_says_why(glm: AutoGLM, case: str, streamed: bool) -> None:
    kind, messages, options = REFUSED[case]
    with pytest.raises(StatusError) as raised:
        ask(glm, messages, options, streamed=streamed)
    assert type(raised.value) is kind
    assert raised.value.status in {400, 404}
    assert raised.value.attempts == 1
    assert not raised.value.retryable
    assert str(raised.value)
    assert glm.chat("Hi").complete  # the engine and the connections are none the worse for it


def test_pictures_that_do_not_fit_are_told_in_words_of_their_own(glm: AutoGLM) -> None:
    assert glm.tokenize(ALMOST_TOO_LONG).count < MODEL_LENGTH  # the text alone fits
    _, messages, options = REFUSED["too long with its pictures"]
    with pytest.raises(ContextOverflow) as raised:
        glm.chat(messages, **options)
    assert "Input length (" in raised.value.body
    with pytest.raises(ContextOverflow) as text_alone:
        glm.chat(ALMOST_TOO_LONG * 2)
    assert "Input length (" not in text_alone.value.body


@pytest.mark.parametrize("streamed", [False, True])
def test_a_wrong_key_is_refused(parser: Engine, streamed: bool) -> None:
    with (
        AutoGLM(parser.base_url, api_key="not-the-key") as glm,
        pytest.raises(AuthenticationFailed) as raised,
    ):
        ask(glm, [user("Hi")], {}, streamed=streamed)
    assert (raised.value.status, raised.value.attempts) == (401, 1)
    assert "not-the-key" not in repr(raised.value)


def test_a_wrong_key_is_not_waited_for(parser: Engine) -> None:
    with AutoGLM(parser.base_url, api_key="not-the-key") as glm:
        with pytest.raises(AuthenticationFailed):
            glm.models()
        with pytest.raises(AuthenticationFailed):
            glm.wait_until_ready(timeout=10)


def ask(glm: AutoGLM, messages: list[Message], options: ChatOptions, *, streamed: bool) -> object:
    if not streamed:
        return glm.chat(messages, **options)
    with glm.stream(messages, **options) as stream:
        return stream.finish()
