"""The tiny model's files: the scripts make them, the same every time."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server_stub.process import engine_python
from server_stub.profiles import TINY_WEIGHTS

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from pathlib import Path; from server_stub.tiny.build import build; build(Path(sys.argv[1]))"


def run(*arguments: object) -> str:
    """Run the engine's Python, which has the libraries; returns what it said."""
    command = [str(engine_python()), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tensors(checkpoint: dict[str, bytes]) -> dict[str, Any]:
    """Names, types, shapes and places of the weights."""
    data = checkpoint["model.safetensors"]
    return dict(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]))


@pytest.fixture(scope="module")
def shipped() -> dict[str, bytes]:
    return files(TINY_WEIGHTS)


def test_it_is_built_the_same_byte_for_byte(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run("-c", BUILD, tmp_path / name)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_training_makes_the_files_that_are_shipped(tmp_path: Path, shipped: dict[str, bytes]) -> None:
    """The weights themselves take all of its steps: here are three."""
    run("-m", "server_stub.tiny.train", tmp_path, "--steps", 3)
    trained = files(tmp_path)
    assert tensors(trained) == tensors(shipped)
    weights = "model.safetensors"
    assert {**trained, weights: b""} == {**shipped, weights: b""}
    assert len(trained[weights]) == len(shipped[weights])
    assert sum(map(len, shipped.values())) < 5_000_000
