"""The soak is kept working: a few seconds of it, and that it notices what is wrong."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autoglm_client import AutoGLM
from benchmarks.soaking.books import Books, Ended, Passed, reconcile
from benchmarks.soaking.growth import SMALL_GROWTH, calls_left, growth
from benchmarks.soaking.pulse import Pulse
from server_stub import ScriptedServer

BOUND = 90
CALL = Ended(call="1", side="sync", kind="whole", end="reply", attempts="1", seconds="0.5")
FIRST, SECOND = Passed("1", "a-1", ""), Passed("1", "a-2", "")
LEVEL = dict.fromkeys(SMALL_GROWTH, 1000.0)


def soaked(*arguments: str, folder: Path) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.05", "--json", str(folder / "said.json")]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=BOUND, check=False)
    return ended.returncode, json.loads((folder / "said.json").read_text()), ended.stdout + ended.stderr


def test_a_few_seconds_with_faults(tmp_path: Path) -> None:
    status, said, words = soaked("--streams", "8", "--faults", "0.3", "--pace", "0.002", folder=tmp_path)
    assert status == 0, words
    assert said["calls"] == sum(said["by end"].values()) > 16
    assert said["requests"] > 0
    assert sum(said["faults drawn"].values()) > 0
    assert "| verdict | ok |" in words


def test_a_server_of_your_own(tmp_path: Path) -> None:
    with ScriptedServer(api_key="sesame", record=False) as server:
        arguments = ("--streams", "4", "--url", server.base_url, "--api-key", "sesame")
        status, said, words = soaked(*arguments, folder=tmp_path)
    assert status == 0, words
    assert said["requests"] == 0  # nobody stands between


def test_it_notices_the_answer_to_another_question(tmp_path: Path) -> None:
    numbers = itertools.count()
    with ScriptedServer(answer=lambda _: f"<answer>{next(numbers) % 7}", record=False) as server:
        status, said, words = soaked("--streams", "4", "--url", server.base_url, folder=tmp_path)
    assert status == 1
    assert "another reply to question" in words
    assert said["by end"]["wrong"] > 0


def test_it_notices_an_answer_that_nobody_gives_alone(tmp_path: Path) -> None:
    numbers = itertools.count()
    with ScriptedServer(answer=lambda _: f"<answer>{next(numbers)}", record=False) as server:
        status, said, words = soaked("--streams", "4", "--url", server.base_url, folder=tmp_path)
    assert status == 1
    assert f"{said['differing']} answers were not what the server says" in words


@pytest.mark.parametrize(
    ("books", "finding"),
    [
        (Books([CALL], [FIRST, FIRST], ["a-1"]), "proxy saw a-1 2 times"),
        (Books([CALL], [FIRST], ["a-1", "a-1"]), "server saw a-1 2 times"),
        (Books([CALL], [FIRST], ["b-1"]), "the server did not see it"),
        (Books([CALL], [Passed("1", "a-1", "mute")], ["a-1"]), "the server saw a-1, which was not passed on"),
        (Books([CALL], [FIRST, SECOND], ["a-1", "a-2"]), "says 1 attempts"),
        (Books([CALL], [FIRST, Passed("1", "b-1", "")], ["a-1", "b-1"]), "call 1 has several names"),
        (Books([CALL], [], []), "1 attempts were not seen"),
        (Books([], [FIRST], []), "nobody made call 1"),
    ],
)
def test_books_that_do_not_agree(books: Books, finding: str) -> None:
    assert finding in "\n".join(reconcile(books))


def test_books_that_agree() -> None:
    assert list(reconcile(Books([CALL], [FIRST], ["a-1"]))) == []
    assert list(reconcile(Books([CALL], [Passed("", "", "refused")], []))) == []


@pytest.mark.parametrize("name", SMALL_GROWTH)
def test_growth_is_noticed(name: str) -> None:
    grown = LEVEL | {name: 1200.0}
    assert list(growth([LEVEL, LEVEL, grown])) == [f"{name} grew from 1000.0 to 1200.0"]


def test_a_call_that_is_left_is_noticed() -> None:
    with AutoGLM("http://127.0.0.1:1/v1") as glm:
        stream = glm.stream("Open Settings", extra_headers={"x-soak": "seventh"})
        assert "seventh" in calls_left()
        del stream
    assert "seventh" not in calls_left()


def test_time_that_the_machine_took_is_known() -> None:
    pulse = Pulse()
    pulse.lost += [(100.0, 2.0), (200.0, 4.0)]
    assert pulse.lost_since(50) >= 6.0
    assert 4.0 <= pulse.lost_since(203.0) < 6.0
    assert pulse.lost_since(300) < 4.0
