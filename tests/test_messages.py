"""Messages, the turns of a phone task, and what is wrong with messages that cannot be sent."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import pytest

from autoglm_client.errors import ConfigurationError
from autoglm_client.media import ImagePart
from autoglm_client.messages import (
    Message,
    as_messages,
    assistant,
    extend,
    first_turn,
    next_turn,
    system,
    tool,
    user,
    without_images,
)


def screen(number: int = 0) -> ImagePart:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,iVBORw0KGgo{number}"}}


@dataclass(frozen=True)
class Call:
    id: str

    def to_dict(self) -> dict[str, object]:
        return {"id": self.id}


@dataclass(frozen=True)
class Action:
    thinking: str
    action: str


@dataclass(frozen=True)
class Answer:
    text: str
    reasoning: str | None = ""
    tool_calls: tuple[Call, ...] = ()
    action_call: Action | None = None


def test_roles() -> None:
    assert system("Be brief.") == {"role": "system", "content": "Be brief."}
    assert user("Hi") == {"role": "user", "content": "Hi"}
    assert assistant("Hello <think>") == {"role": "assistant", "content": "Hello <think>"}
    assert tool("42", "call-1") == {"role": "tool", "content": "42", "tool_call_id": "call-1"}


def test_a_user_message_keeps_the_order_of_its_parts() -> None:
    text = {"type": "text", "text": "What is this?"}
    assert user(screen(), "What is this?")["content"] == [screen(), text]
    assert user("What is this?", screen())["content"] == [text, screen()]
    assert user(screen())["content"] == [screen()]


@pytest.mark.parametrize("parts", [(), (b"\x89PNG",), ("a", None), ("a", {"text": "b"}), ({"type": 1},)])
def test_wrong_parts(parts: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"^user\(\): "):
        user(*parts)


CALL = 'do(action="Tap", element=[500, 320])'


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (Answer(CALL, "Wi-Fi is off."), f"<think>Wi-Fi is off.</think><answer>{CALL}</answer>"),
        (Answer(CALL), f"<think></think><answer>{CALL}</answer>"),
        (Answer(CALL, None), f"<think></think><answer>{CALL}</answer>"),
        (Answer(f"<answer>{CALL}</answer>\n", "<think>a</think>\n"), f"<think>a</think><answer>{CALL}</answer>"),
        (
            Answer(f"</think> <ans>{CALL}</ans></answer>", " <think><think>a"),
            f"<think>a</think><answer>{CALL}</answer>",
        ),
        (Answer(f"<think>a</think><answer>{CALL}\n"), f"<think>a</think><answer>{CALL}"),
        (
            Answer('do(action="Type", text="</answer>!")', "a"),
            '<think>a</think><answer>do(action="Type", text="</answer>!")</answer>',
        ),
    ],
)
def test_an_answer_is_tagged_once(answer: Answer, content: str) -> None:
    assert assistant(answer) == {"role": "assistant", "content": content}


def test_an_action_is_written_cleanly_whatever_stood_around_it() -> None:
    answer = Answer("Wi-Fi is off.\ndo(action='Tap', element=[[500, 320]])", "", (), Action("Wi-Fi is off.", CALL))
    assert assistant(answer)["content"] == f"<think>Wi-Fi is off.</think><answer>{CALL}</answer>"


def test_an_answer_with_tool_calls_keeps_them() -> None:
    calls = [{"id": "call-1"}]
    assert assistant(Answer("", "a", (Call("call-1"),))) == {"role": "assistant", "content": None, "tool_calls": calls}
    assert assistant(Answer("Wait.", None, (Call("call-1"),)))["content"] == "Wait."


def test_the_turns_of_a_phone_task() -> None:
    opening = [system("..."), first_turn("打开小红书", screen(1), {"current_app": "桌面"})]
    second = extend(
        opening, Answer('do(action="Launch", app="小红书")', "先打开"), next_turn(screen(2), {"current_app": "小红书"})
    )
    third = extend(second, Answer('finish(message="好")', "完成"), next_turn(screen(3), {}))
    assert third == [
        {"role": "system", "content": "..."},
        {"role": "user", "content": [{"type": "text", "text": '打开小红书\n\n{"current_app": "桌面"}'}]},
        {"role": "assistant", "content": '<think>先打开</think><answer>do(action="Launch", app="小红书")</answer>'},
        {"role": "user", "content": [{"type": "text", "text": '** Screen Info **\n\n{"current_app": "小红书"}'}]},
        {"role": "assistant", "content": '<think>完成</think><answer>finish(message="好")</answer>'},
        {"role": "user", "content": [screen(3), {"type": "text", "text": "** Screen Info **\n\n{}"}]},
    ]
    assert opening[1]["content"] == [screen(1), {"type": "text", "text": '打开小红书\n\n{"current_app": "桌面"}'}]
    assert [json.dumps(turns).count('image_url": {') for turns in (opening, second, third)] == [1, 1, 1]


@pytest.mark.parametrize("info", [{"app": object()}, {"self": [1, {2}]}])
def test_screen_info_that_is_not_json(info: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="screen_info: it cannot be written as JSON"):
        next_turn(screen(), info)


def test_images_are_taken_out_of_a_copy() -> None:
    messages: list[Message] = [
        system("a"),
        user("b", screen()),
        user(screen()),
        {"role": "assistant", "tool_calls": []},
    ]
    before = copy.deepcopy(messages)
    plain = without_images(messages)
    assert messages == before
    assert [message.get("content") for message in plain] == ["a", [{"type": "text", "text": "b"}], "", None]
    assert not any(new is old for new, old in zip(plain, messages, strict=True))


def test_what_a_call_may_be_given() -> None:
    assert as_messages("Hi") == as_messages(user("Hi")) == as_messages([user("Hi")]) == as_messages((user("Hi"),))
    calls: Message = {"role": "assistant", "content": None, "tool_calls": [{"id": "call-1"}]}
    given = [system(""), user("Hi", screen()), calls, tool("", "call-1")]
    assert as_messages(given) == given
    assert as_messages(given) is not given
    assert as_messages(given)[0] is not given[0]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "the string is empty"),
        (" \n", "the string is empty"),
        ([], "the list is empty"),
        (b"Hi", "messages: a bytes; pass a string"),
        (None, "messages: a NoneType; pass a string"),
        (iter([]), "messages: a list_iterator; pass a string"),
        (["Hi"], r"messages\[0\]: a str; use user\(...\)"),
        ([user("Hi"), ("user", "Hi")], r"messages\[1\]: a tuple; use user\(...\)"),
        ({"role": "developer", "content": "Hi"}, "the message: the role 'developer'; use one of system, user, assist"),
        ([{"content": "Hi"}], r"messages\[0\]: the role None; use one of"),
        ([{"role": ["user"], "content": "Hi"}], r"messages\[0\]: the role \['user'\]; use one of"),
        ([{"role": "user"}], r"messages\[0\]: there is no content"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], "there is no content"),
        ([{"role": "user", "content": []}], "the content must be a string or a list"),
        ([{"role": "user", "content": 5}], "the content must be a string or a list"),
        ([{"role": "user", "content": ["Hi"]}], "a str is no part of a message"),
        ([{"role": "user", "content": [{"text": "Hi"}]}], "a dict is no part of a message"),
    ],
)
def test_what_a_call_may_not_be_given(given: Any, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        as_messages(given)
