"""Every shape of output to one action or one error: tables, the corpus, and properties over generated text."""

from __future__ import annotations

import contextlib
import json
import pickle
import time
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given, settings, strategies as st

from autoglm_client.actions import (
    Action,
    ActionScanner,
    Back,
    CallAPI,
    DoubleTap,
    Finish,
    Home,
    Interact,
    Launch,
    LongPress,
    Note,
    Point,
    Swipe,
    TakeOver,
    Tap,
    Type,
    TypeName,
    Wait,
    parse_action,
    read_action,
)
from autoglm_client.actions.quotes import Quotes
from autoglm_client.errors import ActionError
from autoglm_client.reasoning import split_reasoning

CORPUS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "autoglm_outputs.jsonl").read_text("utf-8").splitlines()
]

TAP = Tap(Point(500, 300))
TAP_CALL = 'do(action="Tap", element=[500, 300])'


def code_of(text: str, **options: Any) -> str:
    with pytest.raises(ActionError) as caught:
        read_action(text, **options)
    return caught.value.code


@pytest.mark.parametrize("row", CORPUS, ids=range(len(CORPUS)))
def test_corpus(row: dict[str, Any]) -> None:
    if "expected_error" in row:
        assert code_of(row["raw"]) == row["expected_error"]
        return
    call = read_action(row["raw"])
    assert {"thinking": call.thinking, "action": call.action.name, "params": call.params()} == row["expected"]


SHAPES: list[tuple[str, Action]] = [
    # tags: complete, unclosed, missing, orphaned, doubled, of other models
    (f"<think>a</think><answer>{TAP_CALL}</answer>", TAP),
    (f"<think>a</think>\n<answer>{TAP_CALL}", TAP),
    (f"<think>a <answer>{TAP_CALL}", TAP),
    (f"a</think>{TAP_CALL}</answer>", TAP),
    (f"<think></think><answer>{TAP_CALL}", TAP),
    (f"<ans>{TAP_CALL}", TAP),
    (f"<think><think>a</think><answer></think><answer>{TAP_CALL}</answer></answer>", TAP),
    (f"<|begin_of_box|>I see<|end_of_box|>\n<|begin_of_box|>{TAP_CALL}<|end_of_box|>", TAP),
    (f"<tool_call>\n{TAP_CALL}\n</tool_call>", TAP),
    ('<tool_call>do(action="Type", text="a "b" c")</tool_call>', Type('a "b" c')),
    (f"{TAP_CALL}<|user|>", TAP),
    # where the call stands
    (f"I see.\n{TAP_CALL}", TAP),
    (f"然后{TAP_CALL}", TAP),
    (f'I can call finish(message="done"), but not yet.\n{TAP_CALL}', TAP),
    (f'I can call finish(message="done"), but not yet. {TAP_CALL}', TAP),
    (f'<think>I can call finish(message="done")</think><answer>{TAP_CALL}', TAP),
    (f"It looks like do(action=x), so: {TAP_CALL}", TAP),
    (f"<think>a\n{TAP_CALL}", TAP),
    (f"I do (really) think so. {TAP_CALL}", TAP),
    # fences
    (f"```python\n{TAP_CALL}\n```", TAP),
    (f"`{TAP_CALL}`", TAP),
    ('```\ndo(action="Type", text="```py\nx=1\n```")\n```', Type("```py\nx=1\n```")),
    # spellings of the call
    (f"{TAP_CALL};", TAP),
    ("do(action='Tap', element=[500, 300])", TAP),
    ("do（action=“Tap”，element=［500，300］）", TAP),
    ('do(action="Tap", element: [500,300])', TAP),
    ('do("action": "Tap", "element": [500,300])', TAP),
    ('do("Tap", element=[500,300])', TAP),
    ('do(\n  action="Tap",\n  element=[500, 300],\n)', TAP),
    ('foo(action="Tap", element=[500,300])', TAP),
    ('do(action="Back",)', Back()),
    ('do(action="Type", text="a "b" c",)', Type('a "b" c')),
    ('{"_metadata": "do", "action": "Tap", "element": [500, 300]}', TAP),
    ('```json\n{"action": "Type", "text": "a\\u4f60\\/b"}\n```', Type("a你/b")),
    ('{"action": "Type", "text": "say "hi" now"}', Type('say "hi" now')),
    ('{"_metadata": "finish", "message": "ok"}', Finish("ok")),
    ('do(action="long_press", element=[500,300])', LongPress(Point(500, 300))),
    ('do(action="DOUBLE TAP", element=[500,300])', DoubleTap(Point(500, 300))),
    ('do(action="Press Back")', Back()),
    ('do(action="press_home")', Home()),
    ('do(action="Take_over", message="login")', TakeOver("login")),
    ('do(action="Call_API", instruction="sum up")', CallAPI("sum up")),
    ('do(action="Interact")', Interact()),
    ('do(action="Note", message=True)', Note("True")),
    ('do(action="Wait", duration=[3])', Wait((3,))),
    # the older prompt
    ('do(action="Type", argument="hi")', Type("hi")),
    ('do(action="Home", argument=None)', Home()),
    ('do(action="Swipe", argument="up")', Swipe.toward("up")),
    ('do(action="Swipe", direction="UP", dist="Long")', Swipe.toward("up", "long")),
    ('do(action="Swipe", direction="up", start=[1,2], end=[3,4])', Swipe(Point(1, 2), Point(3, 4))),
    ('do(action="Swipe", direction=None, start=[1,2], end=[3,4])', Swipe(Point(1, 2), Point(3, 4))),
    # finish
    ("finish()", Finish()),
    ('Finish("ok")', Finish("ok")),
    ("finish(message='I'm done')", Finish("I'm done")),
    ('do(action="Finish", message="ok")', Finish("ok")),
    ("<answer>finish</answer>", Finish()),
    ("All is done.\nfinish\n", Finish()),
    # coordinates
    ('do(action="Tap", element=[057,123])', Tap(Point(57, 123))),
    ('do(action="Tap", element=(500, 300))', TAP),
    ('do(action="Tap", element=<500,300>)', TAP),
    ('do(action="Tap", element=[[400,200],[600,400]])', TAP),
    ('do(action="Tap", element=[500.4, 299.6])', TAP),
    ('do(action="Tap", element=[0, 999])', Tap(Point(0, 999))),
    ('do(action="Tap", element=[0.0, 1.0])', Tap(Point(0, 1))),
    ('do(action="Tap", element="500,300")', TAP),
    ('do(action="Tap", element="[500, 300]")', TAP),
    ('do(action="Tap", element=["500","300"])', TAP),
    ('do(action="Tap", element=[500,300], message="pay")', Tap(Point(500, 300), "pay")),
    # texts
    ('do(action="Type", text=0123)', Type("0123")),
    ('do(action="Type", text="a\n\nb")', Type("a\n\nb")),
    ('do(action="Type", text="（摆渡车），“好”")', Type("（摆渡车），“好”")),
    ('do(action="Type", text="a\\q\\x41\\101\\\n\\u4f60\\ud83d\\ude00")', Type("a\\qAA你😀")),
    ('do(action="Type", text="""a "b" c""")', Type('a "b" c')),
    ('do(action="Type", text="say \\"hi\\" and "bye" now")', Type('say "hi" and "bye" now')),
    ('do(action="Type", text="print("a")\nprint("b")")', Type('print("a")\nprint("b")')),
    ('do(action="Type", text="{"a": "b", "c": 1}")', Type('{"a": "b", "c": 1}')),
    ('do(action="Type", text="f(x="1", y="2")")', Type('f(x="1", y="2")')),
    ('do(action="Type", text="5" screen")', Type('5" screen')),
    ('do(action="Type", text="smile :") is nice")', Type('smile :") is nice')),
    (f'do(action="Type", text="{TAP_CALL}")', Type(TAP_CALL)),
    ("do(action=“Type”，text=“你好“世界”呀”）", Type("你好“世界”呀")),
    ('do(action="Tap", message="“重要"操作"", element=[500,300])', Tap(Point(500, 300), '“重要"操作"')),
    ('do(action="Launch", app="抖音"极速版"")', Launch('抖音"极速版"')),
    ('do(action="Type", text="a") 然后点击"搜索"', Type("a")),
    # a text and what follows it
    ('do(action="Type", text="去"吃饭"呀")\n继续\nfinish(message="a "b" c")', Type('去"吃饭"呀')),
    ('do(action="Type", text="咖啡")，接着 finish(message="ok")', Type("咖啡")),
    ("do(action='Type', text='hi')\nI'll wait", Type("hi")),
    ('<answer>do(action="Type", text="a "b" c")</answer>\n继续("x")', Type('a "b" c')),
    ('do(action="Type", text="a "b" c")\n5" screens ("x")', Type('a "b" c")\n5" screens ("x')),
    ('do(action="Type", text="5" print("a")\nb")', Type('5" print("a")\nb')),
    ('do(action="Type", text="x "y" z", clear="yes")', Type('x "y" z')),
]


@pytest.mark.parametrize(("raw", "action"), SHAPES)
def test_shapes(raw: str, action: Action) -> None:
    assert parse_action(raw) == action


ERRORS: list[tuple[str, str]] = [
    ("", "empty_response"),
    (" \n", "empty_response"),
    ("<think></think><answer></answer>", "empty_response"),
    ("<think>a</think>", "no_action"),
    ("The button is at [500, 300].", "no_action"),
    ("I will finish", "no_action"),
    ('I can call finish(message="done"), but not yet.', "no_action"),
    ("do()", "no_action"),
    ("[{'Type': 'Type'}]", "no_action"),
    ('高德打车、"Launch", app="微信")', "no_action"),
    ("<think>a", "truncated"),
    (f"<think>a {TAP_CALL}", "truncated"),
    (f"<think>a\n{TAP_CALL}\nno", "truncated"),
    ("do(", "truncated"),
    ("do(act", "truncated"),
    ('do(action="Ta', "truncated"),
    ('do(action="Tap", elem', "truncated"),
    ('do(action="Tap", element=', "truncated"),
    ('do(action="Tap", element=[50', "truncated"),
    ('do(action="Tap", element=["50', "truncated"),
    ('do(action="Tap", element=[500, 300]', "truncated"),
    ('a do(action="Launch", app="京东\ndo you see', "truncated"),
    ('do(action="Type", text="print("a")\nprint("b', "truncated"),
    ('do(action="Type", text="C:\\temp\\")', "truncated"),
    ("系统检测到输入或生成内容可能包含不安全或敏感内容，请您避免", "content_filtered"),
    ('do(action="Fly", element=[1,2])', "unknown_action"),
    ('do(action="Batch", steps=[{"action": "Tap"}, {}], delay=500)', "unknown_action"),
    ('do(app="京东")', "missing_parameter"),
    ('do(action=None, app="京东")', "missing_parameter"),
    ('do(action="Launch", app=" ")', "missing_parameter"),
    ('do(action="Launch")', "missing_parameter"),
    ('do(action="Tap", element=None)', "missing_parameter"),
    ('do(action="Swipe", end=[1,2])', "missing_parameter"),
    ('do(action="Swipe", direction=None)', "missing_parameter"),
    ('{"_metadata": "do"}', "missing_parameter"),
    ('do(action="Tap", element=[x,y])', "invalid_coordinates"),
    ('do(action="Tap", element=["x","y"])', "invalid_coordinates"),
    ('do(action="Tap", element=[True, 5])', "invalid_coordinates"),
    ('do(action="Tap", element=[1,2,3])', "invalid_coordinates"),
    ('do(action="Tap", element=[])', "invalid_coordinates"),
    ('do(action="Tap", element=[500 300])', "invalid_coordinates"),
    ('do(action="Tap", element=[0.5, 0.3])', "invalid_coordinates"),
    (f'do(action="Tap", element={"[" * 100_000}', "invalid_coordinates"),
    ('do(action="Tap", element=get("a"))', "invalid_coordinates"),
    ('do(action="Tap", element=[1000, 0])', "coordinates_out_of_range"),
    ('do(action="Tap", element=[100, 200, 1500, 250])', "coordinates_out_of_range"),
    ('do(action="Type", text=hello)', "malformed_call"),
    ('do(action="Type", text=["a"])', "malformed_call"),
    ('do(action="Type", text="a", text="b")', "malformed_call"),
    ('do(action="Type", text=1 clear=2)', "malformed_call"),
    ("do(action=1, ,)", "malformed_call"),
    ('do(action="Swipe", direction="sideways")', "malformed_call"),
    ('do(action="Wait", duration=[[1]])', "malformed_call"),
    ("It is do(action=x), or do(action=y)?", "malformed_call"),
]


@pytest.mark.parametrize(("raw", "code"), ERRORS, ids=lambda value: value[:40])
def test_errors(raw: str, code: str) -> None:
    assert code_of(raw) == code


@pytest.mark.parametrize(
    ("raw", "finish_reason", "code"),
    [
        ("<think>a", "stop", "no_action"),
        ("a", "length", "truncated"),
        ("done\nfinish", "length", "truncated"),
        ('do(action="Type", text="a "b")', "length", "truncated"),
        (TAP_CALL, "content_filter", "content_filtered"),
        ("so it goes round and round " * 30, "length", "repetition"),
    ],
)
def test_the_finish_reason_tells_why(raw: str, finish_reason: str, code: str) -> None:
    assert code_of(raw, finish_reason=finish_reason) == code


def test_a_complete_call_survives_a_cut_behind_it() -> None:
    assert parse_action(f"{TAP_CALL}\nNow I see", finish_reason="length") == TAP
    assert parse_action('do(action="Type", text="a "b" c")\nNow I', finish_reason="length") == Type('a "b" c')


def test_an_error_says_where() -> None:
    with pytest.raises(ActionError) as caught:
        parse_action('<answer>do(action="Tap", element=[x,y])')
    assert caught.value.text == 'do(action="Tap", element=[x,y])'
    assert caught.value.text[caught.value.position] == "x"


@pytest.mark.parametrize(
    ("raw", "thinking"),
    [
        (f"<think>a</think><answer>{TAP_CALL}", "a"),
        (f"a\nb\n{TAP_CALL}", "a\nb"),
        (f"<think>a</think>\nb\n```python\n{TAP_CALL}\n```", "a\nb"),
        (f"<think>a\n{TAP_CALL}", "a"),
        (f"a\n<tool_call>\n{TAP_CALL}</tool_call>", "a"),
        ("a\n```\nfinish\n```", "a"),
        (TAP_CALL, ""),
    ],
)
def test_thinking(raw: str, thinking: str) -> None:
    assert read_action(raw).thinking == thinking


def test_reasoning_from_the_server() -> None:
    assert read_action(TAP_CALL, reasoning="a").thinking == "a"
    assert read_action("", reasoning=f"a\n{TAP_CALL}").warnings == ("the call was found in the thinking",)
    assert code_of("", reasoning=f"I could {TAP_CALL}", finish_reason="stop") == "no_action"


def test_what_else_a_call_holds() -> None:
    call = read_action('x\ndo(action="Type", text="hello", clear=True) ')
    assert (call.extra, call.params()) == ({"clear": True}, {"text": "hello", "clear": True})
    assert call.source == 'do(action="Type", text="hello", clear=True)'
    assert read_action('do(action="Long Press", element=[1,2], duration=2.5)').extra == {"duration": 2.5}
    assert read_action('do(action="Back", of={"a": 1})').extra == {"of": (("a", 1),)}
    assert read_action('do(action="Back", argument="x")').extra == {"argument": "x"}


@pytest.mark.parametrize(
    ("raw", "warning"),
    [
        ('foo(action="Back")', "the call was named foo, not do"),
        ('do(action="Tap", element=[100, 200, 150, 250])', "element was a box: its centre is used"),
        ('finish("a "b" c")', "quotes inside the text were not escaped: its end was guessed"),
    ],
)
def test_warnings(raw: str, warning: str) -> None:
    assert read_action(raw).warnings == (warning,)
    assert read_action(TAP_CALL).warnings == ()


def test_further_actions_are_told_and_not_taken() -> None:
    call = read_action(
        f'a\n{TAP_CALL}\n截图\ndo(action="Fly")\ndo(action="Type", text="a "b")\ndo(action="Back") I can finish() or\n'
        'finish(message="x")\ndo(action="Ta'
    )
    assert call.action == TAP
    assert call.extra_actions == (Type('a "b'), Back(), Finish("x"))


TRICKY = [
    *"\"'\\\n\r\x00\x85\u2028“”\ud83d\ude00😀a",
    *('")', '""', ", ", "text=", "<think>", "</answer>", "<|user|>", "do(action=", "finish(", "```"),
]
TEXTS = st.text(st.characters(), max_size=20) | st.lists(st.sampled_from(TRICKY), max_size=8).map("".join)
POINTS = st.builds(Point, st.integers(0, 999), st.integers(0, 999))
TYPED = TEXTS.map(lambda text: "".join(char for char in text if char in "\n\t" or category(char) != "Cc"))
SCALARS = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
ACTIONS: st.SearchStrategy[Action] = st.one_of(
    st.builds(Launch, TEXTS.filter(str.strip)),
    st.builds(Tap, POINTS, st.none() | TEXTS),
    st.builds(Type, TYPED),
    st.builds(TypeName, TYPED),
    st.builds(Interact, st.none() | TEXTS),
    st.builds(Swipe, POINTS, POINTS),
    st.builds(
        Swipe.toward,
        st.sampled_from(["up", "down", "left", "right"]),
        st.sampled_from([None, "long", "medium", "short"]),
        st.none() | POINTS,
    ),
    st.builds(Note, TEXTS),
    st.builds(CallAPI, TEXTS),
    st.builds(LongPress, POINTS),
    st.builds(DoubleTap, POINTS),
    st.builds(TakeOver, TEXTS),
    st.builds(Wait, st.none() | SCALARS | st.tuples(SCALARS)),
    st.builds(Finish, TEXTS),
    st.sampled_from([Back(), Home()]),
)


@given(ACTIONS)
@settings(max_examples=500)
def test_an_action_survives_its_text(action: Action) -> None:
    assert parse_action(str(action)) == action
    str(action).encode()


@given(ACTIONS, st.sampled_from(["", "\n", ";", "</answer>", "\n```", "\n继续\n", '\n"a"']))
def test_an_action_survives_what_is_around_it(action: Action, behind: str) -> None:
    call = read_action(f"<think>think</think>\n<answer>{action}{behind}")
    assert (call.action, call.thinking, call.warnings) == (action, "think", ())


WORDS = [
    *("do(", "finish(", "do（", 'action="', 'action="Type", text="', 'do(action="Tap", element=[1', "finish", TAP_CALL),
    *(
        "]",
        ")",
        '"',
        "'",
        ",",
        " ",
        "\n",
        '")',
        '", ',
        "clear=True",
        "[",
        "{",
        "}",
        '{"action": "Back"',
        "\\",
        ":",
        "x",
    ),
    *("<think>", "</think>", "<answer>", "</answer>", "<tool_call>", "```", "1", "2.", "-", "None", "（", "“", "”"),
    *("message=", 'do(action="Back")', 'finish(message="ok")', 'do(action="Type", text="a "b" c")'),
]
FRAGMENTS = st.lists(st.sampled_from(WORDS), max_size=16).map("".join)


@given(FRAGMENTS | st.text(max_size=40), st.sampled_from([None, "stop", "length"]))
@settings(max_examples=500)
def test_any_text_is_an_action_or_an_action_error(text: str, finish_reason: str | None) -> None:
    try:
        action = parse_action(text, finish_reason=finish_reason)
    except ActionError as error:
        refused = error
        assert 0 <= refused.position <= len(refused.text)
    else:
        assert parse_action(str(action)) == action


# The scanner


def scanned(text: str, size: int = 1) -> list[Action]:
    scanner = ActionScanner()
    told = [scanner.feed(text[at : at + size]) for at in range(0, len(text), size)]
    return [action for action in told if action is not None]


@pytest.mark.parametrize("row", CORPUS, ids=range(len(CORPUS)))
def test_the_scanner_agrees_with_the_corpus(row: dict[str, Any]) -> None:
    for action in scanned(split_reasoning(row["raw"]).text):
        assert action == parse_action(row["raw"])


@given(FRAGMENTS, st.integers(1, 5))
@settings(max_examples=500)
def test_the_scanner_is_never_contradicted(text: str, size: int) -> None:
    text = split_reasoning(text).text
    for action in scanned(text, size):
        assert action == parse_action(text)


@pytest.mark.parametrize(
    ("text", "told_after"),
    [
        (TAP_CALL, TAP_CALL),
        (f"I see (a button).\n{TAP_CALL}\nmore", f"I see (a button).\n{TAP_CALL}"),
        ('do(action="Launch", app="美团(外卖)")', 'do(action="Launch", app="美团(外卖)")'),
        ('do(action="Tap", message="pay", element=[1,2])', 'do(action="Tap", message="pay", element=[1,2])'),
        ("do（action=“Back”）", "do（action=“Back”）"),
        ('do(\n  action="Back"\n)', 'do(\n  action="Back"\n)'),
        ('do(action="Type", text="a")\n', None),
        ('do(action="Type", text="a")\ndo(action="Back")', 'do(action="Type", text="a")\ndo(action="Back")'),
        (f"I see. {TAP_CALL}", None),
        ('do(action="Fly")', None),
        ('print(1)\n{"action": "Back"} (x)', 'print(1)\n{"action": "Back"} (x)'),
    ],
)
def test_when_the_scanner_tells(text: str, told_after: str | None) -> None:
    scanner = ActionScanner()
    first = next((at for at, char in enumerate(text, 1) if scanner.feed(char)), None)
    assert first == (len(told_after) if told_after else None)


@pytest.mark.parametrize(
    ("text", "action"),
    [('do(action="Type", text="a")', Type("a")), ("prose", None), ('do(action="Tap', None), ("finish()", Finish())],
)
def test_the_end_tells_the_rest(text: str, action: Action | None) -> None:
    scanner = ActionScanner()
    scanner.feed(text)
    assert scanner.close() == action


# Cost

HOSTILE = [
    *(
        '"',
        "'",
        "(",
        "[",
        "\\",
        '")',
        '")\n',
        "“",
        " ",
        "\n",
        '\\"',
        ', text="a"',
        '" ',
        "<think>",
        "<answer>",
        "a",
        "1",
    ),
    *("do(", 'do(action="Type", text="', 'do(action="Tap", element=[', '{"action":"', 'do(text="', "foo(action="),
    *(
        'do(action="Fly", text="a") ',
        'do(action="Back") ',
        "finish() a ",
        'do(action="Type", text="a "b',
        "</tool_call>",
    ),
    *('do(text="a" ', 'do(text="a "b") ', "do(text='"),
    *(', text="x", ', '", clear=1', "(300, 200)", 'do(action="Type", text="a") x"', 'do(action="Tap", element=["'),
]


def cost(work: Any, text: str) -> float:
    began = time.process_time()
    work(text)
    return time.process_time() - began


def read_or_refuse(text: str) -> None:
    with contextlib.suppress(ActionError):
        parse_action(text)


@pytest.mark.parametrize("before", ["", 'x do(action="Type", text="'])
@pytest.mark.parametrize("work", [read_or_refuse, lambda text: scanned(text, 8)], ids=["whole", "pieces"])
def test_hostile_text_costs_no_more_than_its_length(work: Any, before: str) -> None:
    for unit in HOSTILE:
        small, large = (before + unit * (size // len(unit)) + '")' for size in (4_000, 32_000))
        for _ in range(3):  # a busy machine may disturb one measurement, a square disturbs all: 64 times in place of 8
            if cost(work, large) < 24 * cost(work, small) + 0.02:
                break
        else:
            pytest.fail(f"more than linear: {unit!r}")


def test_a_guess_looks_at_no_more_quotes_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying those of the whole text for each of its calls is too quick to show in the time, and still a square."""
    seen: list[int] = []

    class Counted(list[int]):
        def __getitem__(self, at: Any) -> Any:
            seen.append(len(range(*at.indices(len(self)))) if isinstance(at, slice) else 1)
            return super().__getitem__(at)

    ends = Quotes._call_ends
    monkeypatch.setattr(Quotes, "_call_ends", lambda self, mark: Counted(ends(self, mark)))
    assert len(read_action('foo(action="Type", text="a "b" c")\n' * 100).extra_actions) == 99
    assert sum(seen) < 100 * 20


def test_two_hundred_thousand_brackets() -> None:
    assert code_of("do(action=" * 20_000) == "malformed_call"
    assert code_of("(" * 200_000) in {"no_action", "repetition"}


# The nouns


@pytest.mark.parametrize("size", [(1080, 2400), (1, 1), (999, 1000), (4000, 3)])
def test_a_point_is_always_on_the_screen(size: tuple[int, int]) -> None:
    assert Point(0, 0).at(*size) == (0, 0)
    assert Point(999, 999).at(*size) == (size[0] - 1, size[1] - 1)


def test_points_in_pixels() -> None:
    assert Tap(Point(500, 250)).at(1080, 2400) == LongPress(Point(500, 250)).at(1080, 2400) == (540, 600)
    assert DoubleTap(Point(999, 0)).at(1080, 2400) == (1079, 0)
    assert Swipe(Point(0, 0), Point(999, 999)).at(1080, 2400) == ((0, 0), (1079, 2399))
    with pytest.raises(ValueError, match="no points"):
        Point(1, 1).at(0, 100)


@pytest.mark.parametrize("wrong", [(1000, 0), (0, -1)])
def test_a_point_is_in_the_models_scale(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="scale"):
        Point(*wrong)


@pytest.mark.parametrize(
    ("swipe", "end"),
    [
        (Swipe.toward("up"), Point(500, 200)),
        (Swipe.toward("down", "short"), Point(500, 650)),
        (Swipe.toward("left", "long"), Point(50, 500)),
        (Swipe.toward("right", "long", Point(900, 10)), Point(999, 10)),
    ],
)
def test_a_swipe_by_direction_has_both_points(swipe: Swipe, end: Point) -> None:
    assert (swipe.start, swipe.end) == (swipe.element or Point(500, 500), end)
    assert "start" not in swipe.params()


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("2 seconds", 2.0),
        ("1 second", 1.0),
        ("3", 3.0),
        ("0.5s", 0.5),
        ("2秒", 2.0),
        ("500 ms", 0.5),
        ("1 minute", 60.0),
        ("x seconds", 1.0),
        (3, 3.0),
        (2.5, 2.5),
        (-1, 0.0),
        (float("inf"), 1.0),
        (float("nan"), 1.0),
        (10**400, 1.0),
        (-(10**400), 1.0),
        ((3,), 3.0),
        ((), 1.0),
        (None, 1.0),
        ("9" * 5000, 1.0),
    ],
)
def test_seconds(duration: Any, seconds: float) -> None:
    assert Wait(duration).seconds == seconds


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (Tap(Point(500, 320)), 'do(action="Tap", element=[500, 320])'),
        (Finish("ok"), 'finish(message="ok")'),
        (Back(), 'do(action="Back")'),
        (Note('"\\\n\t\x00\x9f<b><think>'), 'do(action="Note", message="\\"\\\\\\n\\t\\x00\\x9f<b>\\x3cthink>")'),
        (Wait(2), 'do(action="Wait", duration=2)'),
        (Wait((float("-inf"),)), 'do(action="Wait", duration=[-1e999])'),
    ],
)
def test_the_canonical_text(action: Action, text: str) -> None:
    assert str(action) == text
    assert pickle.loads(pickle.dumps(action)) == action
    assert len({action, parse_action(text)}) == 1
