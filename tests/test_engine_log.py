"""What an engine says: without secrets, in files of limited size, and read while it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from server_stub.supervisor.engine_log import EngineLog
from server_stub.supervisor.guard import Redactor, RotatedLog


@pytest.mark.parametrize("cut", range(len("a key: SECRET, SECRETS.") + 1))
def test_secrets_are_redacted_however_they_are_cut(cut: int) -> None:
    redactor = Redactor([b"SECRET"])
    data = b"a key: SECRET, SECRETS."
    assert redactor.feed(data[:cut]) + redactor.feed(data[cut:]) + redactor.close() == b"a key: ***, ***S."


def test_nothing_is_lost_that_only_begins_as_a_secret() -> None:
    redactor = Redactor([b"SECRET"])
    assert redactor.feed(b"no SEC") == b"no "
    assert redactor.feed(b"OND; SECRE") == b"SECOND; "
    assert redactor.close() == b"SECRE"


def test_a_log_is_followed_through_its_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log, reader = RotatedLog(path, limit=100), EngineLog(path)
    numbers = []
    for number in range(50):
        log.write(b"line %d\n" % number)
        if number % 3 == 0:
            numbers += reader.lines()
    assert numbers + reader.rest() == [f"line {number}" for number in range(50)]
    assert sorted(it.name for it in tmp_path.glob("log*")) == ["log", "log.1", "log.2"]
    assert all(it.stat().st_size <= 100 for it in tmp_path.glob("log*"))
    RotatedLog(path)  # another start
    assert path.stat().st_size == 0
    reader.close()


def test_the_noise_of_an_exit_hides_nothing(tmp_path: Path) -> None:
    noise = [" - leaked function", "nanobind: this is likely caused by a reference counting issue"] * 30
    (tmp_path / "log").write_text("\n".join(["ValueError: the reason", "INFO:     Shutting down", *noise, ""]))
    log = EngineLog(tmp_path / "log")
    assert len(log.rest()) == 62
    assert (log.tail, log.last_line, log.last_error) == (
        "ValueError: the reason\nINFO:     Shutting down",
        "INFO:     Shutting down",
        "ValueError: the reason",
    )
    log.close()


def test_a_full_disk_stops_nothing() -> None:
    RotatedLog(Path("/dev/full")).write(b"a line that is lost")


def test_a_line_is_given_when_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"one\r 50%\r100%\nthe be")
    log = EngineLog(tmp_path / "log")
    assert log.lines() == ["one", " 50%", "100%"]
    assert log.lines() == []
    assert log.rest() == ["the be"]
    assert log.last_line == "the be"
    log.close()


def test_a_line_without_end_hides_nothing_and_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * (3 << 20) + b"\nCUDA out of memory\n")
    reader = EngineLog(path)
    assert reader.rest()[-1] == "CUDA out of memory"
    reader.close()
    assert sum(map(len, reader.kept)) < 100_000
