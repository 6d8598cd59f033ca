"""The system prompt: complete, dated when called, and a user's own left as it is."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from autoglm_client.errors import ConfigurationError
from autoglm_client.prompts import Language, system_prompt

DAY = date(2026, 11, 21)
CALLS = [
    'do(action="Launch", app="',
    'do(action="Tap", element=[x, y])',
    'do(action="Tap", element=[x, y], message="',
    'do(action="Type", text="',
    'do(action="Type_Name", text="',
    'do(action="Interact")',
    'do(action="Swipe", start=[x1, y1], end=[x2, y2])',
    'do(action="Note", message="True")',
    'do(action="Call_API", instruction="',
    'do(action="Long Press", element=[x, y])',
    'do(action="Double Tap", element=[x, y])',
    'do(action="Take_over", message="',
    'do(action="Back")',
    'do(action="Home")',
    'do(action="Wait", duration="x seconds")',
    'finish(message="',
]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_action_is_explained_once(language: Language) -> None:
    lines = system_prompt(language).splitlines()
    for call in CALLS:
        assert len([line for line in lines if line.startswith(f"- {call}")]) == 1, call
    assert len([line for line in lines if line.startswith(("- do(", "- finish("))]) == len(CALLS)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_form_and_coordinates(language: Language) -> None:
    text = system_prompt(language)
    assert "\n<think>" in text
    assert "</think><answer>" in text
    assert "[0, 0]" in text
    assert "[999, 999]" in text


@pytest.mark.parametrize(
    ("language", "day", "line"),
    [
        ("zh", DAY, "今天的日期是: 2026年11月21日 星期六"),
        ("zh", date(2027, 1, 3), "今天的日期是: 2027年01月03日 星期日"),
        ("en", DAY, "The current date: 2026-11-21, Saturday"),
        ("en", datetime(2027, 1, 4, 12, tzinfo=UTC), "The current date: 2027-01-04, Monday"),
    ],
)
def test_the_date_stands_first(language: Language, day: date, line: str) -> None:
    assert system_prompt(language, today=day).splitlines()[0] == line


def test_the_date_is_taken_when_called() -> None:
    today = datetime.now().astimezone().date()
    days = (today, today + timedelta(days=1))  # midnight may pass
    assert system_prompt() in [system_prompt(today=day) for day in days]


def test_a_prompt_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text("你好\n", encoding="utf-8")
    assert system_prompt("zh", source=path) == system_prompt("zh", source="你好\n") == "你好\n"
    assert system_prompt("zh", source=path, today=DAY) == "今天的日期是: 2026年11月21日 星期六\n你好\n"


def test_what_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe9")
    language: Any = "de"
    with pytest.raises(ConfigurationError, match="language='de': there are en and zh"):
        system_prompt(language)
    for name in ("missing", "latin"):
        with pytest.raises(ConfigurationError, match=f"the system prompt '.*{name}' cannot be read"):
            system_prompt(source=tmp_path / name)
