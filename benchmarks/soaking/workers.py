"""Many calls at once: half of the streams are threads of one client, half tasks of another."""

from __future__ import annotations

import asyncio
import csv
import faulthandler
import gc
import sys
import threading
import time
import warnings
from random import Random
from typing import TextIO

from autoglm_client import AsyncAutoGLM, AutoGLM

from .calls import ask, ask_async
from .growth import Sample, sample
from .judge import Judge
from .plans import LATE_SECONDS, Plan, Setup, Side, draw_plan
from .pulse import Pulse

ENOUGH_FINDINGS = 20
WARM_UP_SECONDS = 60.0
UNCOLLECTED_SECONDS = 20.0
END_SECONDS = 5.0
"""For cancellations that come after the end of their calls, and for the server to notice that nobody reads."""


class Soak:
    """One run: its calls, and what was found."""

    def __init__(self, setup: Setup, judge: Judge, streams: int, seconds: float, seed: int, log: TextIO) -> None:
        self.setup = setup
        self.judge = judge
        self.streams, self.seconds, self.seed = streams, seconds, seed
        self.begun = self.ended = 0
        self.findings: list[str] = []
        self.samples: list[Sample] = []
        self.pulse = Pulse()
        self._log = csv.writer(log)
        self._lock = threading.Lock()
        self._over = False

    async def run(self) -> None:
        """All workers, until the time is over; the garbage collector is off at the end, so that circles stay."""
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.complain(f"event loop: {context}"))
        setup, each = self.setup, range(self.streams // 2)
        async with AsyncAutoGLM(**setup.client) as async_glm:
            with AutoGLM(**setup.client) as glm:
                tasks = [asyncio.create_task(self._work_async(async_glm, number)) for number in each]
                for number in each:
                    threading.Thread(target=self._work, args=(glm, number), daemon=True).start()
                await self._watch()
                await self._end()
            for task in tasks:
                task.cancel()  # those that pause; asyncio says what the others died of

    async def _watch(self) -> None:
        warm_up, uncollected = min(WARM_UP_SECONDS, self.seconds / 5), min(UNCOLLECTED_SECONDS, self.seconds / 5)
        await asyncio.sleep(warm_up)
        every = min(2.0, self.seconds / 40)
        for _ in range(int((self.seconds - warm_up - uncollected) / every)):
            self.samples.append(sample())
            await asyncio.sleep(every)
        gc.collect()
        gc.disable()
        await asyncio.sleep(uncollected)

    async def _end(self) -> None:
        with self._lock:
            self._over = True
        for _ in range(int((self.setup.total + 2 * LATE_SECONDS) / 0.1)):
            if self.ended < self.begun:
                await asyncio.sleep(0.1)
        if self.ended < self.begun:
            self.complain(f"{self.begun - self.ended} calls hang")
            faulthandler.dump_traceback()
        await asyncio.sleep(END_SECONDS)

    def _work(self, glm: AutoGLM, number: int) -> None:
        chance = Random(f"{self.seed} sync {number}")
        while plan := self._begin("sync", chance):
            end = ask(glm, plan, self.judge)
            self._note(plan, end)
            time.sleep(pause(chance, end))

    async def _work_async(self, glm: AsyncAutoGLM, number: int) -> None:
        chance = Random(f"{self.seed} async {number}")
        while plan := self._begin("async", chance):
            end = await ask_async(glm, plan, self.judge)
            self._note(plan, end)
            await asyncio.sleep(pause(chance, end))

    def _begin(self, side: Side, chance: Random) -> Plan | None:
        with self._lock:
            if self._over:
                return None
            self.begun += 1
            return draw_plan(self.begun, side, self.setup, chance)

    def _note(self, plan: Plan, end: str) -> None:
        seconds = time.monotonic() - plan.started
        limit = plan.seconds + LATE_SECONDS + self.pulse.lost_since(plan.started)
        if seconds > limit:
            self.complain(f"late: {plan.side} {plan.kind} took {seconds:.2f} s of {limit:.2f} s, {end}")
        if end.startswith("wrong"):
            self.complain(f"{plan.side} {plan.kind} {plan.number}: {end[:600]}")
            end = "wrong"
        with self._lock:
            self._log.writerow((plan.number, plan.side, plan.kind, end, plan.attempts, f"{seconds:.3f}"))  # an `Ended`
            self.ended += 1

    def complain(self, words: str) -> None:
        """Remember that something is wrong."""
        if len(self.findings) < ENOUGH_FINDINGS:
            self.findings.append(words)

    def listen_for_complaints(self) -> None:
        """What Python only prints is wrong, too."""
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: self.complain(f"warning: {message!r}")
        sys.unraisablehook = lambda it: self.complain(f"unraisable: {it.exc_value!r} in {it.object!r}")
        threading.excepthook = lambda it: self.complain(f"in {it.thread}: {it.exc_value!r}")


def pause(chance: Random, end: str) -> float:
    """An agent looks at its phone between two calls, sometimes as long as a kept connection lives, or longer."""
    if end == "error: connection":
        return 0.5
    return chance.uniform(0, 5) if chance.random() < 0.05 else 0.0
