"""The whole chain, from a drawn screen to a pixel: the picture decides where the tiny model taps."""

from __future__ import annotations

from itertools import chain

import pytest

from autoglm_client import AutoGLM, Finish, Launch, Tap, extend, first_turn, image, next_turn, system, system_prompt
from benchmarks.tiny_taps import taps_inside
from server_stub.screen import Button, draw_screen

from .clients import async_client
from .engine import Engine

SIZE = (1080, 2400)
RED, BLUE = Button("red", 100, 300, 320, 160), Button("blue", 600, 1700, 320, 160)


def tap(glm: AutoGLM, task: str, *buttons: Button) -> tuple[int, int]:
    """The pixel that is tapped on a screen of these buttons."""
    screen = image(draw_screen(*SIZE, buttons))
    action = glm.chat([first_turn(task, screen, {"current_app": "Demo"})]).action
    assert isinstance(action, Tap)
    return action.at(*SIZE)


@pytest.mark.parametrize(("buttons", "screens", "least"), [(1, 200, 0.98), (3, 100, 0.95)])
async def test_how_many_taps_are_inside(plain: Engine, buttons: int, screens: int, least: float) -> None:
    """On screens of 720 x 1280 to 1440 x 3200 that it was not taught on; the task names the button's colour."""
    async with async_client(plain) as glm:
        inside = [*chain.from_iterable((await taps_inside(glm, buttons, screens=screens)).values())]
    print(f"\n{buttons} buttons: {sum(inside)} of {len(inside)} inside")
    assert len(inside) == screens
    assert sum(inside) >= least * screens


def test_the_same_question_another_picture(either: AutoGLM) -> None:
    below = RED._replace(top=1900)
    assert RED.holds(*tap(either, "Tap the red button", RED))
    assert below.holds(*tap(either, "Tap the red button", below))


def test_the_same_picture_another_question(either: AutoGLM) -> None:
    assert RED.holds(*tap(either, "Tap the red button", RED, BLUE))
    assert BLUE.holds(*tap(either, "Tap the blue button", RED, BLUE))
    assert BLUE.holds(*tap(either, "点击蓝色按钮", RED, BLUE))


def test_a_task_of_two_steps(either: AutoGLM) -> None:
    screen = image(draw_screen(*SIZE, [RED, BLUE]))
    messages = [system(system_prompt()), first_turn("Tap the blue button", screen, {"current_app": "Demo"})]
    reply = either.chat(messages)
    assert isinstance(reply.action, Tap)
    assert BLUE.holds(*reply.action.at(*SIZE))
    messages = extend(messages, reply, next_turn(screen, {"current_app": "Demo"}))
    assert isinstance(either.chat(messages).action, Finish)


def test_apps_are_launched_by_name(either: AutoGLM) -> None:
    assert either.chat("Open Settings").action == Launch("Settings")
    assert either.chat("打开微信").action == Launch("微信")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who are you?", "I am a tiny test model, not AutoGLM-Phone-9B."),
        ("你是谁？", "我是一个很小的测试模型，不是AutoGLM-Phone-9B。"),
    ],
)
def test_it_says_what_it_is(either: AutoGLM, question: str, answer: str) -> None:
    reply = either.chat(question)
    assert reply.text.startswith(answer)
    assert reply.action is None
