"""What the model is shown: the prompt that the server makes of the client's messages."""

from __future__ import annotations

import re
from datetime import date

from autoglm_client import (
    AutoGLM,
    Message,
    assistant,
    extend,
    first_turn,
    image,
    next_turn,
    system,
    system_prompt,
    user,
)

from .clients import screenshot
from .engine import MODEL, Engine

IMAGE = "<|begin_of_image|>" + "<|image|>" * 32 + "<|end_of_image|>"
"""A screen of 1:2; one of the real model's takes thousands of tokens."""

SAID = '<think>The user wants Settings. I launch it.</think><answer>do(action="Launch", app="Settings")</answer>'
RULES = system_prompt("en", today=date(2025, 12, 11))


def rendered(glm: AutoGLM, engine: Engine, messages: list[Message]) -> tuple[str, list[str]]:
    """The prompt as text, and its control tokens."""
    prompt = glm.tokenize(messages, return_token_strs=True)
    with engine.http() as http:
        reply = http.post("/detokenize", json={"model": MODEL, "tokens": prompt.tokens})
    control = [token for token in prompt.token_strs or [] if token.startswith("<") and token != "<|image|>"]
    return reply.raise_for_status().json()["prompt"], control


def test_a_task_reads_as_the_real_model_was_taught(glm: AutoGLM, plain: Engine) -> None:
    screen = image(screenshot())
    first = [system(RULES), first_turn("Open Settings", screen, {"current_app": "System Home"})]
    reply = glm.chat(first)
    text, control = rendered(glm, plain, extend(first, reply, next_turn(screen, {"current_app": "Settings"})))
    assert text == (
        f"[gMASK]<sop><|system|>\n{RULES}"
        '<|user|>\nOpen Settings\n\n{"current_app": "System Home"}'
        f"<|assistant|>\n{SAID}"
        f'<|user|>\n{IMAGE}\n** Screen Info **\n\n{{"current_app": "Settings"}}'
        "<|assistant|>\n"
    )
    assert control == re.findall(r"<(?!\|image\|)\S+?>", text)  # none is spelled in letters


def test_the_picture_comes_first_wherever_it_was_put(glm: AutoGLM, plain: Engine) -> None:
    screen = image(screenshot())
    text, _ = rendered(glm, plain, [user("Tap the red button", screen)])
    assert text == f"[gMASK]<sop><|user|>\n{IMAGE}\nTap the red button<|assistant|>\n"
    assert text == rendered(glm, plain, [user(screen, "Tap the red button")])[0]


def test_lists_of_parts_are_not_printed(glm: AutoGLM, plain: Engine) -> None:
    """Told nothing about it, vLLM shows the model ``[{'type': 'text', 'text': ...``."""
    parts: list[Message] = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello."}]},
        {"role": "tool", "content": "not rendered", "tool_call_id": "1"},
        {"role": "user", "content": [{"type": "text", "text": "Go on"}]},
    ]
    text, _ = rendered(glm, plain, parts)
    assert text == "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\nHello.<|user|>\nGo on<|assistant|>\n"
    assert text == rendered(glm, plain, [system("Be brief."), user("Hi"), assistant("Hello."), user("Go on")])[0]
