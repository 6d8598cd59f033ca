"""Answers that a grammar shapes: actions by a regular expression, objects by a schema."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from pydantic import BaseModel

from autoglm_client import (
    Action,
    AutoGLM,
    Finish,
    Home,
    InvalidReply,
    Launch,
    LongPress,
    Swipe,
    TakeOver,
    Tap,
    Type,
    Wait,
)
from autoglm_client.langchain import ChatAutoGLM

from .engine import Engine

NUMBER = "[1-9][0-9]{0,2}"
PLACE = rf"\[{NUMBER},{NUMBER}\]"

ACTIONS: list[tuple[type[Action], str]] = [
    (Tap, rf'do\(action="Tap", element={PLACE}\)'),
    (Tap, rf'do\(action="Tap", element={PLACE}, message="重要操作"\)'),
    (LongPress, rf'do\(action="Long Press", element={PLACE}\)'),
    (Swipe, rf'do\(action="Swipe", start={PLACE}, end={PLACE}\)'),
    (Launch, r'do\(action="Launch", app="(微信|Settings)"\)'),
    (Type, r'do\(action="Type", text="[a-z ]{1,20}"\)'),
    (Wait, r'do\(action="Wait", duration="[1-9] seconds"\)'),
    (TakeOver, r'do\(action="Take_over", message="[a-z]{3,9}"\)'),
    (Home, r'do\(action="Home"\)'),
    (Finish, r'finish\(message="[a-z ]{1,20}"\)'),
]


class Button(BaseModel):
    label: Literal["send", "发送"]
    enabled: bool
    row: Literal[1, 2, 3]


@pytest.mark.parametrize(("kind", "regex"), ACTIONS)
def test_every_action_of_the_grammar_is_read(glm: AutoGLM, kind: type[Action], regex: str) -> None:
    reply = glm.chat("Go on", structured_outputs={"regex": regex}, max_tokens=128)
    assert type(reply.expect_action()) is kind
    with glm.stream("Go on", structured_outputs={"regex": regex}, max_tokens=128) as stream:
        assert stream.finish() == reply


def test_tags_that_are_spelled_letter_by_letter_are_tags(glm: AutoGLM) -> None:
    regex = rf'<think>[a-z ]{{3,20}}</think>\n<answer>do\(action="Tap", element={PLACE}\)</answer>'
    reply = glm.chat("Go on", structured_outputs={"regex": regex}, max_tokens=128)
    assert reply.reasoning
    assert reply.text.startswith("do(")
    assert isinstance(reply.action, Tap)
    with glm.stream("Go on", structured_outputs={"regex": regex}, max_tokens=128) as stream:
        assert stream.finish() == reply


def test_a_choice_is_kept(glm: AutoGLM) -> None:
    assert glm.chat("Go on", structured_outputs={"choice": ["yes", "不"]}).text in {"yes", "不"}


def test_langchain_takes_each_constraint_by_its_name(plain: Engine) -> None:
    model = ChatAutoGLM(base_url=plain.base_url, temperature=0, max_tokens=32)
    assert model.invoke("Go on", choice=["yes", "no"]).text in {"yes", "no"}
    assert re.fullmatch("[0-9]{3}", model.invoke("Go on", regex="[0-9]{3}").text)
    assert model.bind(grammar='root ::= "left" | "right"').invoke("Go on").text in {"left", "right"}


def test_a_schema_gives_an_object(glm: AutoGLM) -> None:
    button = glm.parse("The button?", Button, max_tokens=128)
    assert isinstance(button, Button)


def test_an_object_that_was_cut_is_refused_with_the_part_that_came(glm: AutoGLM) -> None:
    with pytest.raises(InvalidReply, match="max_tokens") as raised:
        glm.parse("The button?", Button, max_tokens=4)
    assert raised.value.partial is not None
    assert raised.value.partial.text.startswith("{")
