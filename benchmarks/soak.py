"""Many calls at once for a long time, with faults at random: ``python -m benchmarks.soak --minutes 30``.

Half of the streams are threads of one `AutoGLM`, half tasks of one `AsyncAutoGLM`. Every call must end in the right
reply, in one of our errors whose ``partial`` begins the right reply, or in the end that was chosen for it. Afterwards
the client's count is held against the proxy's and the server's, and memory, descriptors, threads and tasks must not
have grown. With ``--url`` it asks a running server, and only the client's side is at fault; the exit status says
whether all was well.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import faulthandler
import gc
import json
import os
import re
import statistics
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from socket import socket
from typing import Any, TextIO
from urllib.parse import urlsplit

from autoglm_client import AsyncAutoGLM, AutoGLM, Timeouts

from .faulty import process, serve_proxy, serve_script, told
from .soak_calls import LATE_SECONDS, SAME_EACH_TIME, Judge, Manner, Plan, ask, ask_async, plan_call, questions

CHOSEN = {"left by break", "left by an error", "cancelled", "task cancelled"}
HARD_TO_COUNT = {"cancelled", "task cancelled", "error: deadline"}
"""These may end a call between its decision to send and the sending."""
LOGS = {"client": "client.csv", "proxy": "proxy.csv", "server": "server.csv"}
TO_END_SECONDS = 5.0
FEW_DIFFER = 0.05
"""A real engine calculates a little differently in company; the scripted server does not, and none may differ."""
LONG_ENOUGH_SECONDS = 120.0
"""A shorter run is all warming up."""
MET = " after a fault"
IN_A_CIRCLE = ("error", "cancelled", "task cancelled")
"""An error and the frames of its traceback refer to each other: what is left of such a call waits for the collector."""
SCRIPT_TIMES = Timeouts(connect=2, send=5, first_token=4, between_tokens=2)
MODEL_TIMES = Timeouts(first_token=90, between_tokens=30, total=120)
DEFAULT_FAULTS = 0.12
SMALL_GROWTH = {
    "rss": (3.0, 0.10),
    "blocks": (0.0, 0.05),
    "descriptors": (8.0, 0.0),
    "threads": (4.0, 0.0),
    "tasks": (8.0, 0.0),
}
"""What each may be larger at the end, absolutely and relatively, the greater counts. ``blocks`` are Python's own: they
do not grow when only the allocator's pages become less tidy, as they do under many threads and show in the RSS."""


@dataclass(slots=True, kw_only=True)
class Soak:
    """One run: what it asks, and what it has seen."""

    manner: Manner
    judge: Judge
    streams: int
    seconds: float
    seed: int
    log: TextIO
    over: threading.Event = field(default_factory=threading.Event)
    wrong: list[str] = field(default_factory=list)
    wrongs: int = 0
    calls: int = 0
    running: int = 0
    samples: list[dict[str, float]] = field(default_factory=list)
    alive: list[str] = field(default_factory=list)
    """Calls of which something was left."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_plan(self, chance: Random) -> Plan:
        """Draw the next call."""
        with self.lock:
            self.calls += 1
            return plan_call(self.calls, self.manner, chance)

    def complain(self, words: str) -> None:
        """Remember that something is wrong."""
        with self.lock:
            self.wrongs += 1
            if len(self.wrong) < 20:
                self.wrong.append(words)

    def note(self, side: str, plan: Plan, outcome: str, started: float) -> None:
        """Write down a call that has ended."""
        seconds = time.monotonic() - started
        ended = plan.ends_after if plan.kind == "cancel" or (plan.kind, side) == ("interrupt", "async") else None
        limit = LATE_SECONDS + min(plan.seconds, plan.seconds if ended is None else ended)
        if seconds > limit:
            self.complain(f"late: {side} {plan.kind} took {seconds:.2f} s of {limit:.2f} s, {outcome}")
        if outcome.startswith("wrong"):
            self.complain(f"{side} {plan.kind} {plan.number}: {outcome[:600]}")
            outcome = "wrong"
        attempts = "" if plan.attempts is None else plan.attempts
        line = f"{plan.number},{side},{plan.kind},{outcome},{attempts},{started:.3f},{seconds:.3f}\n"
        with self.lock:
            self.log.write(line)


def work(soak: Soak, glm: AutoGLM, loop: asyncio.AbstractEventLoop, number: int) -> None:
    """One thread's calls."""
    chance = Random(f"{soak.seed} sync {number}")

    def later(seconds: float, function: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(loop.call_later, seconds, function)

    while not soak.over.is_set():
        plan, started = soak.next_plan(chance), time.monotonic()
        try:
            outcome = ask(glm, plan, soak.manner, soak.judge, later)
        except BaseException:  # noqa: BLE001 - whatever comes out that should not is what is looked for
            outcome = f"wrong: {traceback.format_exc(limit=-3)[-600:]}"
        soak.note("sync", plan, outcome, started)
        soak.over.wait(pause(chance, outcome))


async def work_async(soak: Soak, glm: AsyncAutoGLM, number: int) -> None:
    """One task's calls."""
    chance = Random(f"{soak.seed} async {number}")
    while not soak.over.is_set():
        plan, started = soak.next_plan(chance), time.monotonic()
        try:
            outcome = await ask_async(glm, plan, soak.manner, soak.judge)
        except BaseException:  # noqa: BLE001 - whatever comes out that should not is what is looked for
            outcome = f"wrong: {traceback.format_exc(limit=-3)[-600:]}"
        soak.note("async", plan, outcome, started)
        await asyncio.sleep(pause(chance, outcome))


def pause(chance: Random, outcome: str) -> float:
    """An agent looks at its phone between two calls, sometimes as long as a kept connection lives, or longer."""
    if outcome == "error: connection":
        return 0.5
    return chance.uniform(0, 5) if chance.random() < 0.05 else 0.0


async def run(soak: Soak) -> None:
    """All workers, until the time is over."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: soak.complain(f"event loop: {context}"))
    glm = AutoGLM(soak.manner.url, api_key=soak.manner.api_key)
    async with AsyncAutoGLM(soak.manner.url, api_key=soak.manner.api_key) as async_glm:
        threads = [
            threading.Thread(target=work, args=(soak, glm, loop, number), daemon=True)
            for number in range(soak.streams // 2)
        ]
        for thread in threads:
            thread.start()
        tasks = [asyncio.create_task(work_async(soak, async_glm, number)) for number in range(soak.streams // 2)]
        await watch(soak)
        late = time.monotonic() + (soak.manner.timeouts.total or 0.0) + 2 * LATE_SECONDS
        _, hanging = await asyncio.wait(tasks, timeout=late - time.monotonic())
        for thread in threads:
            await asyncio.to_thread(thread.join, max(0.0, late - time.monotonic()))
        for _ in [*hanging, *(it for it in threads if it.is_alive())]:
            soak.complain("a call hangs")
            faulthandler.dump_traceback()
        await asyncio.sleep(2.0)  # cancellations that come after the end of their calls
        glm.close()


async def watch(soak: Soak) -> None:
    """Take samples until the time is over; at last without the garbage collector, so that circles stay."""
    ends = time.monotonic() + soak.seconds
    warm = ends - soak.seconds + min(60.0, soak.seconds / 5)
    every, uncollected = min(2.0, soak.seconds / 40), min(20.0, soak.seconds / 5)
    while (now := time.monotonic()) < ends:
        if gc.isenabled() and now > ends - uncollected:
            gc.collect()
            gc.disable()
        if now > warm and gc.isenabled():
            soak.samples.append({"minute": now / 60, **sample()})
        await asyncio.sleep(every)
    soak.over.set()


def sample() -> dict[str, float]:
    status = Path("/proc/self/status").read_text()
    found = {name: int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Threads")}  # type: ignore[index]
    return {
        "rss": found["VmRSS"] / 1024,
        "blocks": sys.getallocatedblocks(),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 - names are all that is wanted
        "threads": found["Threads"],
        "tasks": len(asyncio.all_tasks()),
    }


def alive() -> list[str]:
    """The numbers of the calls of which something is left, though no call is."""
    return [
        it.headers["x-soak"]
        for it in gc.get_objects()
        if type(it).__name__ == "Call" and type(it).__module__.startswith("autoglm_client")
    ]


def running_on(url: str) -> float:
    """How many answers the server is generating; it is given a few seconds to notice that nobody reads."""
    metrics = f"{url.removesuffix('/v1')}/metrics"
    until = time.monotonic() + TO_END_SECONDS
    while True:
        with urllib.request.urlopen(metrics) as answer:
            text = answer.read().decode()
        running = sum(float(it) for it in re.findall(r"(?m)^vllm:num_requests_running\b.* ([\d.e+]+)$", text))
        if not running or time.monotonic() > until:
            return running
        time.sleep(0.2)


@dataclass(slots=True)
class Books:
    """The three logs, read."""

    client: list[list[str]]
    proxy: list[list[str]]
    server: list[list[str]]

    @classmethod
    def read(cls, folder: Path) -> Books:
        """Read what was written."""
        return cls(*(_rows(folder / name) for name in LOGS.values()))


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.reader(file))


def reconcile(books: Books, proxy: dict[str, Any]) -> Iterator[str]:
    """Say what does not agree between what the client did and what the others saw."""
    for who, ids in (("proxy", [row[1] for row in books.proxy]), ("server", [row[0] for row in books.server])):
        yield from (f"{who} saw {it} {often} times" for it, often in Counter(ids).items() if often > 1)
    passed_on, arrived = {row[1]: row[0] for row in books.proxy if row[3] == "1"}, {row[0] for row in books.server}
    yield from (f"the server saw {it}, which was not passed on" for it in arrived - passed_on.keys())
    ended = {row[0]: row[3] for row in books.client}
    for it in (passed_on.keys() - arrived) if books.server else ():
        if ended[passed_on[it]] not in CHOSEN | HARD_TO_COUNT:
            yield f"{it} was passed on, the server did not see it, and the call ended in {ended[passed_on[it]]!r}"
    yield from _attempts_that_disagree(books, proxy)


def _attempts_that_disagree(books: Books, proxy: dict[str, Any]) -> Iterator[str]:
    seen = defaultdict[str, list[str]](list)
    for call, attempt, *_ in books.proxy:
        seen[call].append(attempt)
    unseen = 0
    for number, _, kind, outcome, attempts, started, seconds in books.client:
        names = seen.pop(number, [])
        if len({it.rpartition("-")[0] for it in names}) > 1:
            yield f"call {number} has several names: {names}"
        if attempts and any(int(it.rpartition("-")[2]) > int(attempts) for it in names):
            yield f"call {number} ({kind}, {outcome}) says {attempts} attempts, seen were {names}"
        if kind == "nobody" or outcome in HARD_TO_COUNT | CHOSEN or not attempts:
            continue
        begin, end = float(started), float(started) + float(seconds)
        if not any(left < end and begin < back for left, back in proxy["away"]):
            unseen += int(attempts) - len(names)
    yield from (f"nobody made call {number}: {names}" for number, names in seen.items())
    if unseen > proxy["refused"] + proxy["closed idle"]:
        yield f"{unseen} attempts were not seen, of which {proxy['refused']} + {proxy['closed idle']} were refused"


def thirds(samples: list[dict[str, float]], name: str) -> tuple[float, float, float]:
    """The medians of the first and last third, and the slope per minute."""
    values, third = [it[name] for it in samples], max(1, len(samples) // 3)
    slope = statistics.linear_regression([it["minute"] for it in samples], values).slope if len(values) > 1 else 0.0
    return statistics.median(values[:third]), statistics.median(values[-third:]), slope


def growth(samples: list[dict[str, float]]) -> Iterator[str]:
    """Say what has grown."""
    for name, (small, share) in SMALL_GROWTH.items():
        first, last, slope = thirds(samples, name)
        if last > first + max(small, share * first):
            yield f"{name} grew from {first:.1f} to {last:.1f}, {slope:+.2f} a minute"


def report(soak: Soak, books: Books, proxy: dict[str, Any], failed: int, wrong: list[str]) -> dict[str, Any]:
    """Everything that was counted."""
    seconds = sorted(float(row[6]) for row in books.client)
    faults = Counter(row[2] for row in books.proxy if row[2])
    said = {"refused": proxy["refused"], "closed idle": proxy["closed idle"], "away": len(proxy["away"])}
    return {
        "minutes": round(soak.seconds / 60, 1),
        "streams": soak.streams,
        "seed": soak.seed,
        "calls": len(books.client),
        "attempts": sum(int(row[4] or 0) for row in books.client),
        "requests": len(books.proxy),
        "by kind": _counted(row[2] for row in books.client),
        "by end": _counted(row[3] for row in books.client),
        "faults": dict(sorted({**faults, **said, "server said no": failed}.items())),
        "p50": statistics.median(seconds),
        "p99": seconds[int(len(seconds) * 0.99)],
        **{name: thirds(soak.samples, name) for name in SMALL_GROWTH},
        "alive": _ends_of(soak.alive, books),
        "differing": soak.judge.differing,
        "wrong": wrong,
        "ok": not wrong,
    }


def _ends_of(numbers: list[str], books: Books) -> dict[str, int]:
    met = {row[0] for row in books.proxy if row[2]}
    met |= {row[0] for row in books.client if row[4] not in {"", "1"} or row[2] == "cancel"}
    ends = {row[0]: row[3] for row in books.client}
    return _counted(ends[it] + MET * (it in met) for it in numbers)


def _counted(words: Iterator[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def table(said: dict[str, Any]) -> str:
    """The report in Markdown."""

    def listed(name: str) -> str:
        return ", ".join(f"{it} {often}" for it, often in said[name].items() if often) or "none"

    def flat(name: str) -> str:
        first, last, slope = said[name]
        return f"{first:.1f} / {last:.1f} ({slope:+.3f} a minute)"

    rows = {
        "minutes, streams, seed": f"{said['minutes']}, {said['streams']}, {said['seed']}",
        "calls; attempts; requests seen": f"{said['calls']}; {said['attempts']}; {said['requests']}",
        "by kind": listed("by kind"),
        "by end": listed("by end"),
        "faults": listed("faults"),
        "seconds of a call, p50 / p99": f"{said['p50']:.2f} / {said['p99']:.2f}",
        "RSS in MB, first / last third": flat("rss"),
        "Python's memory blocks, first / last third": flat("blocks"),
        "descriptors, first / last third": flat("descriptors"),
        "threads, first / last third": flat("threads"),
        "tasks, first / last third": flat("tasks"),
        "wait for the garbage collector, by end": listed("alive"),
        "verdict": "ok" if said["ok"] else f"failed: {len(said['wrong'])} findings",
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


@contextmanager
def nobody() -> Iterator[str]:
    """A URL where nobody listens, held so that nobody will."""
    with socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unheard.getsockname()[1]}/v1"


async def right_replies(manner: Manner, url: str) -> Judge:
    """Ask every question alone, without faults."""
    async with AsyncAutoGLM(url, api_key=manner.api_key, timeout=MODEL_TIMES) as glm:
        return Judge([await glm.chat(it, **SAME_EACH_TIME) for it in manner.questions])


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=float, help=f"share of answers to spoil ({DEFAULT_FAULTS}; with --url 0)")
    parser.add_argument("--pace", type=float, default=0.03, help="seconds between two tokens of the scripted server")
    parser.add_argument("--url", help="ask this server instead of the scripted one")
    parser.add_argument("--api-key")
    parser.add_argument("--json", type=Path, help="write the report there, too")
    parser.add_argument("--logs", type=Path, help="keep the logs of client, proxy and server there")
    given = parser.parse_args(arguments)
    if given.faults is None:
        given.faults = 0.0 if given.url else DEFAULT_FAULTS
    return given


def soak_with(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start what is needed, run, and report."""
    with ExitStack() as stack:
        url, script, proxy = given.url, None, None
        if url is None:
            script = stack.enter_context(
                process(serve_script, folder / LOGS["server"], given.pace, given.faults, given.seed)
            )
            url = f"http://127.0.0.1:{script.recv()}/v1"
        asked = url
        if given.url is None or given.faults:
            at = urlsplit(url)
            proxy = stack.enter_context(
                process(serve_proxy, folder / LOGS["proxy"], at.hostname, at.port or 80, given.faults, given.seed)
            )
            asked = f"http://127.0.0.1:{proxy.recv()}/v1"
        manner = Manner(
            url=asked,
            nobody=stack.enter_context(nobody()),
            api_key=given.api_key,
            timeouts=MODEL_TIMES if given.url else replace(SCRIPT_TIMES, total=min(20.0, 2 + given.minutes * 60)),
            questions=questions(),
        )
        judge = asyncio.run(right_replies(manner, url))
        judge.exact, judge.faults = given.url is None, bool(given.faults)
        log = stack.enter_context((folder / LOGS["client"]).open("w", buffering=1))
        soak = Soak(
            manner=manner, judge=judge, streams=given.streams, seconds=given.minutes * 60, seed=given.seed, log=log
        )
        listen_for_complaints(soak)
        asyncio.run(run(soak))
        soak.alive = alive()
        gc.enable()
        soak.running = int(running_on(url))
        saw = told(proxy) if proxy else {"refused": 0, "closed idle": 0, "away": []}
        failed = told(script) if script else 0
    books = Books.read(folder)
    return report(soak, books, saw, failed, [*findings(soak, books, saw, through_proxy=proxy is not None)])


def findings(soak: Soak, books: Books, proxy: dict[str, Any], *, through_proxy: bool) -> Iterator[str]:
    """Everything that is not as it should be."""
    yield from soak.wrong
    if soak.wrongs > len(soak.wrong):
        yield f"and {soak.wrongs - len(soak.wrong)} more like these"
    if through_proxy:
        yield from reconcile(books, proxy)
    if soak.calls != len(books.client):
        yield f"{soak.calls} calls were begun, {len(books.client)} ended"
    if soak.judge.differing > FEW_DIFFER * len(books.client):
        yield f"{soak.judge.differing} answers were not what the server says when asked alone"
    if not any(row[3].startswith("reply") for row in books.client):
        yield "no call ended in a reply"
    if soak.seconds >= LONG_ENOUGH_SECONDS:
        yield from growth(soak.samples)
    left = [it for it in _ends_of(soak.alive, books) if not it.startswith(IN_A_CIRCLE) and not it.endswith(MET)]
    if left:
        yield f"calls that met no error wait for the garbage collector: {left}"
    if soak.running:
        yield f"the server is still generating {soak.running} answers"


def listen_for_complaints(soak: Soak) -> None:
    """What Python only prints is wrong, too."""
    warnings.simplefilter("error", ResourceWarning)  # in a destructor, so it becomes unraisable
    sys.unraisablehook = lambda it: soak.complain(f"unraisable: {it.exc_value!r} in {it.object!r}")
    threading.excepthook = lambda it: soak.complain(f"in {it.thread}: {it.exc_value!r}")


def main(arguments: list[str] | None = None) -> int:
    """Soak, and say whether all was well."""
    given = options(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        said = soak_with(given, folder)
    print(table(said))
    for words in said["wrong"]:
        print("\n-", words)
    if given.json:
        given.json.write_text(json.dumps(said, ensure_ascii=False, indent=2))
    return 0 if said["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
