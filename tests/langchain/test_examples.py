"""The examples for LangChain are run, on servers that send the thinking in either way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server_stub import ScriptedServer

EXAMPLES = Path(__file__).parents[2] / "examples"
LAUNCH = 'do(action="Launch", app="Settings")'
THINKING = "I need the app Settings."
OUTPUTS: dict[str, list[str]] = {
    "langchain_agent.py": ["reasoning: The answer", "tool_call_chunk: count_letters", "text: 10", "The tool says: 10"],
    "langchain_chain.py": ["launch Settings\nlaunch Maps"],
    "langchain_fallbacks.py": ["True, may pass: True", LAUNCH],
    "langchain_from_chat_openai.py": ["before: thinking [],", f"after: thinking ['{THINKING}'], answer '{LAUNCH}'"],
    "langchain_phone.py": [
        'Tap the red button: finish(message="The task is done.")',
        "the agent asks (take_over): Please log in.",
        'Log in: finish(message="The task is done.")',
        "[('tap', 100, 200, 1, 0.0)]",
    ],
    "langchain_streaming.py": [f"{THINKING}\n> {LAUNCH}\n", " tokens"],
    "langchain_structured.py": ["city='Lisbon' passengers=2 cabin='economy'\nyes\n00:00"],
}


@pytest.fixture(params=["tags", "reasoning"])
def address(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with ScriptedServer(reasoning=request.param, tool_parser=False) as server:
        monkeypatch.setenv("AUTOGLM_BASE_URL", server.base_url)
        yield


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.usefixtures("address")
def test_it_prints_what_it_says(name: str) -> None:
    run = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    for output in OUTPUTS[name]:
        assert output in run.stdout


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("langchain*.py")} == set(OUTPUTS)
