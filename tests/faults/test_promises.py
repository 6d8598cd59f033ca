"""Every fault of the catalogue, met by our clients; docs/reliability.md has the same for their peers."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from .catalogue import PROMISES, Fault, Outcome, faults
from .compare import BEGIN, END, PAGE, held_by, written
from .drivers import OURS, Driver

FAULTS = faults()
AT_ONCE = 6
PATIENCE = 4.0  # seconds more than a call may take: this machine may be busy, and what is stalled takes 20


Met = dict[str, dict[Driver, Future[Outcome]]]


@pytest.fixture(scope="module")
def met(request: pytest.FixtureRequest) -> Iterator[Met]:
    """The faults that are to be tested, met several at a time: most of what takes time is waiting."""
    chosen = [
        cast("Fault", item.callspec.params["fault"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.function is test_the_promise_is_kept
    ]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(AT_ONCE) as pool:
        patch.setattr(random, "uniform", lambda low, high: high / 10)
        yield {str(fault): {driver: pool.submit(driver.meet, fault) for driver in OURS} for fault in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_promise_is_kept(fault: Fault, met: Met) -> None:
    for driver, future in met[str(fault)].items():
        outcome = future.result()
        assert fault.ideal.complaints(outcome, patience=PATIENCE) == [], driver
        assert outcome.typed or not outcome.error, f"{driver}: {outcome.error} is none of ours"


def test_every_promise_of_the_wire_has_faults() -> None:
    assert {fault.promise for fault in FAULTS} == {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 18, 19, 21}
    assert {fault.promise for fault in FAULTS} <= set(PROMISES)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_the_judge_takes_neither_silence_nor_everything(fault: Fault) -> None:
    """A call that hangs, a raw error and a made-up answer are never ideal."""
    wrong = [
        Outcome(hung=True),
        Outcome(text="invented", finish="stop"),
        Outcome(text="ab"),
        Outcome(error="KeyError", words=fault.ideal.words, asked=9 if fault.promise in {1, 7} else 1),
    ]
    assert all(fault.ideal.complaints(outcome) for outcome in wrong)


def test_the_page_shows_every_promise_and_its_tests() -> None:
    rows = re.findall(r"(?m)^\| P(\d+) \| (.+?) \|.*\| (.*?) \|$", PAGE.read_text())
    assert {int(number): text for number, text, _ in rows} == PROMISES
    for number, _, named in rows:
        assert set(re.findall(r"`(\w+\.py)`", named)) <= {Path(path).name for path in held_by(int(number))}


def test_a_new_table_takes_the_place_of_the_old_one() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert written(page, ["new"]) == page.replace("old", "new")
    assert written(written(page, ["new"]), ["old"]) == page
