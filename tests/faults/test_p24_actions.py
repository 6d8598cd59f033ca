"""P24: what a model writes is read, never evaluated; it is a typed action within bounds, or an ActionError."""

from __future__ import annotations

import ast
import builtins
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from autoglm_client import (
    Action,
    ActionError,
    ActionReady,
    Back,
    ConfigurationError,
    Point,
    Tap,
    Type,
    TypeName,
    parse_action,
)
from autoglm_client.langchain import phone_tools

from ..conftest import ClientFactory
from ..raw_server import DONE, HEAD, delta, finish, plain, raw_server
from .test_p23_images import SMALL

BLACK = SMALL
MADE = '__import__("os").system("touch /tmp/autoglm-was-here")'


@contextmanager
def nothing_runs(*more: str) -> Iterator[None]:
    """Whatever could run a text, or read it as Python, is an error in here."""

    def fail(*args: object, **kwargs: object) -> None:
        raise SystemError("text of the model was evaluated")

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((os, "system"), (os, "popen"), (subprocess, "Popen"), (ast, "literal_eval")):
            patch.setattr(module, name, fail)
        for name in ("eval", "exec", "compile", *more):
            patch.setattr(builtins, name, fail)
        yield


def tap(written: str) -> str:
    return f'do(action="Tap", element={written})'


def typed(written: str) -> str:
    return f'do(action="Type", text={written})'


HOSTILE: dict[str, Action | str] = {
    f"do(action={MADE})": "malformed_call",
    typed(MADE): "malformed_call",
    tap(f"[{MADE}, 1]"): "invalid_coordinates",
    tap("[500, eval('1')]"): "invalid_coordinates",
    f'{MADE}\ndo(action="Back")': Back(),
    f'do(action="Launch", app="微信", x={MADE})': "malformed_call",
    f"finish(message={MADE})": "malformed_call",
    typed('f"{1+1}"'): "malformed_call",
    typed('f"{1+1}'): "malformed_call",
    typed('"{0.__class__}".format(1)'): "truncated",
    typed('"a" "b"'): Type('a" "b'),
    typed('"%s" % 1'): "truncated",
    typed('b"abc"'): "malformed_call",
    typed('"$(reboot); `reboot` && rm -rf /"'): Type("$(reboot); `reboot` && rm -rf /"),
    typed("lambda: 1"): "malformed_call",
    typed("[x for x in (1,)]"): "malformed_call",
    tap("[500 if 1 else 2, 1]"): "invalid_coordinates",
    tap("[1+1, 1]"): "invalid_coordinates",
    tap("[10**10, 1]"): "invalid_coordinates",
    tap("[-1, 5]"): "coordinates_out_of_range",
    tap("[1000, 5]"): "coordinates_out_of_range",
    tap("[5, 1e300]"): "coordinates_out_of_range",
    tap(f"[{'9' * 300}, 5]"): "coordinates_out_of_range",
    tap(f"[{'9' * 100_000}, 5]"): "invalid_coordinates",
    tap("[1e999, 5]"): "coordinates_out_of_range",
    tap("[nan, 5]"): "invalid_coordinates",
    tap("[inf, 5]"): "invalid_coordinates",
    tap("[True, False]"): "invalid_coordinates",
    tap("[None, None]"): "invalid_coordinates",
    tap("[0.5, 0.5]"): "invalid_coordinates",
    tap("[500.4, 499.6]"): Tap(Point(500, 500)),
    tap("[057, 0x10]"): "invalid_coordinates",
    tap("[]"): "invalid_coordinates",
    tap("[1, 2, 3]"): "invalid_coordinates",
    tap("{'__class__': 1}"): "invalid_coordinates",
    'do(action="Tap", element=[1, 2], element=[3, 4])': "malformed_call",
    'do(action="Back", action="Tap", element=[3, 4])': "malformed_call",
    'do(action="Tap", ELEMENT=[1, 2], element=[3, 4])': "malformed_call",
    'do(action="Shell", command="reboot")': "unknown_action",
    'do(action="__class__")': "unknown_action",
    'do(action="_BUILDERS")': "unknown_action",
    'do(action="Back", __class__="x", command="reboot")': Back(),
    "do(**{'action': 'Back'})": Back(),
    "do(action=Back)": "malformed_call",
    'os.system(action="Back")': "no_action",
    typed('"half'): "truncated",
    'do(action="Tap", element=[50': "truncated",
    'do(action="Type", text="转账 1500 元给': "truncated",
    'do(action="Launch", app="微信"': "truncated",
    'finish(message="done': "truncated",
    typed('"a\\x00\\x1b[2J\\x7f\\x9fb\\n\\tc"'): Type("a[2Jb\n\tc"),
    typed('"a\x00\x1b[2J\x7f\x9fb"'): Type("a[2Jb"),
    'do(action="Type_Name", text="a\\u0007b")': TypeName("ab"),
    typed(f'"{"a" * 2_000}"'): Type("a" * 2_000),
    typed(f'"{"a" * 2_001}"'): "malformed_call",
    typed(f'"{"a" * 300_000}"'): "malformed_call",
    f'do(action="Type_Name", text="{"a" * 2_001}")': "malformed_call",
    "(" * 1_000_000: "repetition",
    "do(" * 200_000: "truncated",
    f"do(action={'(' * 100_000}": "malformed_call",
    tap("[" * 100_000 + "1, 2" + "]" * 100_000): "invalid_coordinates",
    typed("(" * 1_000_000): "malformed_call",
    '{"action": ' * 100_000: "malformed_call",
}


def read(reply: Any) -> Action | str:
    try:
        action: Action = reply.expect_action()
    except ActionError as error:
        return error.code
    return action


def test_the_trap_works() -> None:
    with nothing_runs(), pytest.raises(SystemError):
        eval("1")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_p24_nothing_is_evaluated(text: str) -> None:
    found: Action | str
    try:
        with nothing_runs("open", "__import__"):
            found = parse_action(text)
    except ActionError as error:
        found = error.code
    assert found == HOSTILE[text]


def test_p24_nor_in_a_call(make_client: ClientFactory) -> None:
    """Sent in one piece, and as a stream, whose scanner looks at every piece."""
    with raw_server([plain(b'{"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}')]) as server:
        glm = make_client(server.url)
        glm.chat("x")  # what is imported late is here now
    for text, expected in HOSTILE.items():
        if len(text) > 10_000:
            continue
        choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop"}
        whole = plain(json.dumps({"choices": [choice]}).encode())
        pieces = [delta(text[start : start + 7]) for start in range(0, len(text), 7)]
        with raw_server([whole], [HEAD, *pieces, finish(), DONE]) as server:
            glm = make_client(server.url)
            with nothing_runs():
                assert read(glm.chat("x")) == expected, text
                with glm.stream("x") as stream:
                    events = list(stream)
                assert read(stream.reply) == expected, text
            ready = [event.action for event in events if isinstance(event, ActionReady)]
            assert ready == ([] if isinstance(expected, str) else [expected])


@pytest.mark.parametrize("text", [text for text in HOSTILE if len(text) > 100_000], ids=lambda text: text[:12])
def test_p24_nor_does_a_long_answer_hang(make_client: ClientFactory, text: str) -> None:
    pieces = [delta(text[start : start + 65_536]) for start in range(0, len(text), 65_536)]
    with (
        raw_server([HEAD, *pieces, finish(), DONE]) as server,
        make_client(server.url, timeout=20).stream("x") as stream,
    ):
        assert read(stream.finish()) == HOSTILE[text]


class Phone:
    """One that keeps what it was told."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []

    def screenshot(self) -> bytes:
        return BLACK

    def current_app(self) -> str:
        return "Bank"

    def tap(self, x: int, y: int, *, times: int = 1, seconds: float = 0.0) -> None:
        self.done.append(("tap", x, y, times, seconds))

    def swipe(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        self.done.append(("swipe", start, end))

    def type(self, text: str) -> None:
        self.done.append(("type", text))

    def key(self, name: str) -> None:
        self.done.append(("key", name))

    def launch(self, app: str) -> None:
        self.done.append(("launch", app))


PAY = {"element": [500, 500], "message": "pay 1,500"}


def do(phone: Phone, name: str, arguments: dict[str, Any], **options: Any) -> str:
    tools = {tool.name: tool for tool in phone_tools(phone, settle=0, **options)}
    return str(tools[name].invoke(arguments))


def test_p24_a_sensitive_tap_is_denied_where_nobody_is_asked() -> None:
    phone = Phone()
    with pytest.raises(ConfigurationError, match="asks the user"):
        do(phone, "tap", PAY)
    assert phone.done == []


@pytest.mark.parametrize("name", ["tap", "long_press", "double_tap"])
@pytest.mark.parametrize("answer", [None, False, "yes", "true", 1, {}, "no"])
def test_p24_nothing_but_true_is_a_yes(name: str, answer: object) -> None:
    phone = Phone()
    assert "refused" in do(phone, name, PAY, ask=lambda _: answer)
    assert phone.done == []
    asked: list[dict[str, Any]] = []
    do(phone, name, PAY, ask=lambda question: not asked.append(question))  # type: ignore[func-returns-value]
    assert len(phone.done) == 1
    assert asked == [{"kind": "confirm", "action": name, "message": "pay 1,500"}]


def test_p24_typed_text_reaches_the_phone_as_one_argument() -> None:
    phone = Phone()
    do(phone, "type", {"text": "$(reboot); `x` \x1b[2J'\"&"})
    assert "malformed_call" in do(phone, "type", {"text": "a" * 2_001})
    assert phone.done == [("type", "$(reboot); `x` [2J'\"&")]
