"""Each target of atheris, for a few seconds: libFuzzer looks for bytes that reach new branches."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from .effort import SECONDS

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine, or is not installed"
)

ROOT = Path(__file__).parent.parent.parent
TARGETS = ["events", "stream", "whole", "answer", "action", "picture"] if SECONDS else ["any"]


def fuzz(target: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a target in a process of its own; libFuzzer ends it."""
    corpus = folder / "corpus"
    corpus.mkdir()
    command = [sys.executable, "-m", "tests.fuzz.atheris_targets", target, str(corpus), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=SECONDS + 100)


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_break_a_promise(target: str, tmp_path: Path) -> None:
    options = [f"-max_total_time={round(SECONDS)}"] if SECONDS else ["-runs=2000", "-seed=1"]
    done = fuzz(target, tmp_path, *options)
    assert done.returncode == 0, done.stderr[-5000:]
    assert "DONE" in done.stderr
