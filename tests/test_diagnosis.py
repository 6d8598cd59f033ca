"""Real lines of real logs: what they are recognised as, and what they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from server_stub.supervisor.diagnosis import FAILURES, diagnose
from server_stub.supervisor.progress import Progress

DATA = Path(__file__).parent / "data"


def table(name: str) -> list[list[str]]:
    return [line.split("\t") for line in (DATA / name).read_text().splitlines()]


# Where a line is from stands between its name and itself. "ran": vLLM 0.32 (CPU build) said it when that failure was
# provoked; an issue on GitHub; or the library whose source holds the message. They are cut to the telling part.
LINES = {line: name for name, _, line in table("engine_failures.tsv")}
HEALTHY = (DATA / "healthy_vllm.log").read_text().splitlines()  # vLLM 0.32 from its start to its end, on a CPU
WHAT_FOLLOWS = """\
Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for root cause.
(EngineCore pid=9077) ERROR [core.py:315] Worker proc VllmWorker-0 died unexpectedly (exit code: 0), shutting down.
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
""".splitlines()


@pytest.mark.parametrize(("line", "name"), LINES.items(), ids=LINES.values())
def test_a_root_cause_is_found_among_what_is_around_it(line: str, name: str) -> None:
    found = diagnose([*HEALTHY, line, *WHAT_FOLLOWS])
    assert found is not None
    assert found.name == name


def test_every_failure_has_a_line() -> None:
    assert set(LINES.values()) == {failure.name for failure in FAILURES}


def test_nothing_is_made_up() -> None:
    assert diagnose([*HEALTHY, *WHAT_FOLLOWS]) is None


def test_the_cause_wins_over_what_follows_from_it() -> None:
    lines = {name: line for line, name in LINES.items()}
    found = diagnose([lines["engine process killed"], lines["NCCL"], lines["out of GPU memory"], lines["NCCL"]])
    assert found is not None
    assert found.name == "out of GPU memory"


def test_an_explanation_is_one_paragraph_with_something_to_try() -> None:
    for failure in FAILURES:
        assert "\n" not in str(failure)
        assert failure.cause.endswith(".")
        assert failure.remedy.endswith(".")


# vLLM 0.32 on a CPU said those with "CPU" in them and the bar of one shard; the others stand in its source, or are
# SGLang's, from logs that its users published.
STAGES = table("engine_stages.tsv")


@pytest.mark.parametrize(("words", "line"), STAGES, ids=[words for words, _ in STAGES])
def test_a_stage_is_told_once(words: str, line: str) -> None:
    progress = Progress()
    assert [progress.feed(line), progress.feed(line)] == [words, None]
    assert progress.last == words


def test_the_progress_of_a_whole_start() -> None:
    progress = Progress()
    assert [told for line in HEALTHY if (told := progress.feed(line))] == [
        "starting the engine's processes",
        "loading weights",
        "loading weights: 0 of 1 shards, 0 s",
        "loading weights: 1 of 1 shards, 0 s",
        "weights loaded in 0 s",
        "memory for 1,048,576 tokens of cache",
        "serving",
    ]
