"""Loops are noticed, ordinary text is not, and looking costs little."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from autoglm_client.repetition import RepetitionDetector, is_repetitive

DATA = Path(__file__).parent / "data" / "autoglm_outputs.jsonl"
ROWS = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]

LOOPS = {
    "sentence": "Let me think again about it. " * 40,
    "paragraph": "Wait, I need to check the screen. I see the home screen. I should open the app. Let me look. " * 10,
    "coordinates": "".join(
        f"实际上，我应该点击弹窗外的区域来关闭它，坐标大约在({300 + i * 7}, {200 + i * 13})的位置。" for i in range(40)
    ),
    "no sentences": "the phone and " * 60,
    "one character": "哈" * 800,
    "late": Path(__file__).read_text("utf-8")[:3000] + "I need to interact with the phone. " * 40,
}

ORDINARY = {
    "code": Path(__file__).read_text("utf-8"),
    "more code": (Path(__file__).parent / "test_actions.py").read_text("utf-8"),
    "numbered list": "".join(f"{i}. Open the settings and look for option number {i}.\n" for i in range(1, 60)),
    "Chinese list": "".join(
        f"{i}. 点击屏幕上方的搜索按钮，输入第{i}个商品的名称，查看这个商品的价格。\n" for i in range(30)
    ),
    "table": "".join(
        f"| item {char} | {ord(char) * 13} | {ord(char) * 7 % 50} |\n" for char in "abcdefghijklmnopqrstuvwxyz" * 2
    ),
    "week": "".join(
        f"**周{day}：**\n- 早餐：全麦面包+水煮蛋+牛奶\n- 午餐：糙米饭+西兰花+紫菜蛋花汤\n- 晚餐：杂粮粥+{dish}\n"
        for day, dish in zip("一二三四五六日", ["虾仁", "牛肉", "鸡胸", "香菇", "木耳", "蘑菇", "腊肠"], strict=True)
    ),
    "short": "go on " * 50,
    "empty": "",
}


def detect(text: str, size: int) -> bool:
    detector = RepetitionDetector()
    return any(detector.feed(text[at : at + size]) for at in range(0, len(text), size))


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_loops(name: str, size: int) -> None:
    assert is_repetitive(LOOPS[name])
    assert detect(LOOPS[name], size)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_text(name: str) -> None:
    assert not is_repetitive(ORDINARY[name])
    assert not detect(ORDINARY[name], 4)


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_the_corpus(row: dict[str, str]) -> None:
    assert is_repetitive(row["raw"]) == (row.get("expected_error") == "repetition")


def test_a_loop_that_only_begins_is_not_stopped() -> None:
    beginning = next(row["raw"] for row in ROWS if row.get("expected_error") == "repetition")
    assert is_repetitive(beginning)
    assert not detect(beginning, 4)


def test_what_is_long_gone_is_forgotten() -> None:
    detector = RepetitionDetector()
    assert detector.feed(LOOPS["sentence"])
    assert not [detector.feed(line) for line in ORDINARY["code"].splitlines(keepends=True)][-1]


def test_the_cost_is_linear() -> None:
    def cost(count: int) -> float:
        began = time.process_time()
        detect("abcdefg " * count, 4)
        return time.process_time() - began

    assert any(cost(80_000) < 24 * cost(10_000) + 0.02 for _ in range(3))
