"""The table of docs/reliability.md, measured: ``python -m tests.faults.compare`` takes some minutes.

Every fault of the catalogue and every probe is met by our clients and their peers in the same run. ``--details`` says
why something counts as not kept.
"""

from __future__ import annotations

import argparse
import logging
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import version
from pathlib import Path

import autoglm_client

from .catalogue import PROMISES, Fault, faults, nothing_wrong
from .drivers import OURS, PEERS, Driver, Library
from .probes import PROBES, SUBJECTS, Probe, Subject

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- begin: python -m tests.faults.compare -->", "<!-- end -->"
LIBRARIES: tuple[Library, ...] = ("ours", "openai", "ChatOpenAI")
AT_ONCE = 6
NOT_OFFERED = "not offered"
HELD_BY = {
    "tests/faults/test_every_byte.py": (1, 2, 3, 16),
    "tests/test_sse.py": (16,),
    "tests/test_inflate.py": (18,),
    "tests/test_media.py": (23,),
    "tests/test_actions.py": (24,),
    "tests/test_launch_commands.py": (25,),
}
"""Files whose tests carry no number of a promise in their names."""


class Score:
    """How often a promise was kept, by each way to ask."""

    def __init__(self) -> None:
        self._kept: dict[bool, list[bool]] = defaultdict(list)

    def count(self, kept: bool, *, asynchronous: bool = False) -> None:
        """One result."""
        self._kept[asynchronous].append(kept)

    def __str__(self) -> str:
        sync, later = self._kept[False], self._kept[True]
        if not sync:
            return NOT_OFFERED
        text = f"{sum(sync)} of {len(sync)}"
        return text if not later or sum(later) == sum(sync) else f"{text}, async {sum(later)}"


Scores = dict[tuple[int, Library], Score]


def measure(*, details: bool = False) -> Scores:
    """Meet everything."""
    warnings.simplefilter("ignore")  # of peers whose connections are left open
    logging.disable(logging.ERROR)
    scores: Scores = defaultdict(Score)
    jobs = [(driver, fault) for fault in faults() for driver in (*OURS, *PEERS) if _is_offered(driver, fault)]
    _warm_up()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (driver, fault), complaints in zip(jobs, pool.map(_meet, jobs), strict=True):
            scores[fault.promise, driver.library].count(not complaints, asynchronous=driver.asynchronous)
            if details and complaints:
                print(driver, fault, *complaints, sep=" | ")
    logging.disable(logging.NOTSET)
    for probe in PROBES:
        for subject in SUBJECTS if not probe.ours_alone else SUBJECTS[:1]:
            kept = _run(probe, subject)
            scores[probe.promise, subject.library].count(kept)
            if details and not kept:
                print(subject.library, probe, sep=" | ")
    return scores


def _is_offered(driver: Driver, fault: Fault) -> bool:
    return driver.library == "ours" or fault.promise != 3


def _meet(job: tuple[Driver, Fault]) -> list[str]:
    driver, fault = job
    return fault.ideal.complaints(driver.meet(fault))


def _warm_up() -> None:
    """Nothing goes wrong, and all are right; the first call of a library takes seconds of imports, too."""
    patience = 30.0
    for driver in (*OURS, *PEERS):
        for fault in nothing_wrong():
            complaints = fault.ideal.complaints(driver.meet(fault), patience)
            if complaints:
                raise RuntimeError(f"{driver} fails where nothing is wrong: {complaints}")


def _run(probe: Probe, subject: Subject) -> bool:
    try:
        return probe.run(subject)
    except Exception:  # whatever comes out, the promise was not kept
        return False


def held_by(promise: int) -> list[str]:
    """The test files of a promise: those whose tests carry its number, and those that are known."""
    files = {path for path, promises in HELD_BY.items() if promise in promises and (ROOT / path).exists()}
    for path in (ROOT / "tests").rglob("test_*.py"):
        if re.search(rf"def test_p{promise:02}_", path.read_text()):
            files.add(str(path.relative_to(ROOT)))
    if promise in _of_the_catalogue():
        files.add("tests/faults/test_promises.py")
    return sorted(files)


@cache
def _of_the_catalogue() -> set[int]:
    return {fault.promise for fault in faults()}


def table(scores: Scores) -> Iterator[str]:
    """The lines of the table."""
    titles = (
        f"autoglm-client {autoglm_client.__version__}",
        f"openai-python {version('openai')}",
        f"ChatOpenAI (langchain-openai {version('langchain-openai')})",
    )
    yield f"| | promise | {' | '.join(titles)} | tests |"
    yield "|---|---|---|---|---|---|"
    for number, text in PROMISES.items():
        cells = [str(scores.get((number, library), NOT_OFFERED)) for library in LIBRARIES]
        files = ", ".join(f"`{Path(path).name}`" for path in held_by(number))
        yield f"| P{number} | {text} | {' | '.join(cells)} | {files} |"


def written(page: str, lines: list[str]) -> str:
    """The page with a new table."""
    head, _, rest = page.partition(BEGIN)
    return "\n".join([f"{head}{BEGIN}", *lines, f"{END}{rest.partition(END)[2]}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--details", action="store_true")
    lines = list(table(measure(details=parser.parse_args().details)))
    PAGE.write_text(written(PAGE.read_text(), lines))
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
