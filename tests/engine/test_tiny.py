"""The tiny checkpoint: the same files every time, and ways of failing that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from .engine import Engine, EngineFailed, build_checkpoint


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_is_built_the_same_byte_for_byte(checkpoint: Path, tmp_path: Path) -> None:
    build_checkpoint(tmp_path)
    assert files(tmp_path) == files(checkpoint)
    assert sum(map(len, files(checkpoint).values())) < 10_000_000


def test_a_missing_environment_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_ENGINE_PYTHON", str(tmp_path / "python"))
    with pytest.raises(EngineFailed, match="install-engine"):
        build_checkpoint(tmp_path)


def test_a_server_that_ends_shows_the_end_of_its_log(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "no-such-model", tmp_path / "log")
    engine.start()
    try:
        with pytest.raises(EngineFailed, match=r"exit code 1:(.|\n)*no-such-model"):
            engine.wait(120)
    finally:
        engine.stop()
