"""The soak is kept working: a few seconds of it, and that it notices what is wrong."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import Books, reconcile
from server_stub import ScriptedServer

BOUND = 90
CALL = ["1", "sync", "chat", "reply", "1", "0.0", "1.0"]


def soaked(*arguments: str, folder: Path) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.05", "--json", str(folder / "said.json")]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=BOUND, check=False)
    return ended.returncode, json.loads((folder / "said.json").read_text()), ended.stdout + ended.stderr


def test_a_few_seconds_with_faults(tmp_path: Path) -> None:
    status, said, words = soaked("--streams", "8", "--faults", "0.3", "--pace", "0.002", folder=tmp_path)
    assert status == 0, words
    assert said["calls"] == sum(said["by end"].values()) > 16
    assert said["requests"] > 0
    assert sum(said["faults"].values()) > 0
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
        (Books([], [["1", "a-1", "", "1"]] * 2, [["a-1"]]), "proxy saw a-1 2 times"),
        (Books([CALL], [["1", "a-1", "", "1"]], [["a-1"]] * 2), "server saw a-1 2 times"),
        (Books([CALL], [["1", "a-1", "", "1"]], [["b-1"]]), "the server did not see it"),
        (Books([CALL], [["1", "a-1", "", "1"], ["1", "a-2", "", "1"]], [["a-1"], ["a-2"]]), "says 1 attempts"),
        (Books([CALL], [], []), "1 attempts were not seen"),
        (Books([CALL], [["1", "a-1", "", "0"]], [["a-1"]]), "was not passed on"),
        (Books([], [["1", "a-1", "", "0"]], []), "nobody made call 1"),
    ],
)
def test_books_that_do_not_agree(books: Books, finding: str) -> None:
    assert finding in "\n".join(reconcile(books, {"away": [], "refused": 0, "closed idle": 0}))


def test_books_that_agree() -> None:
    books = Books([CALL], [["1", "a-1", "", "1"]], [["a-1"]])
    assert list(reconcile(books, {"away": [], "refused": 0, "closed idle": 0})) == []
