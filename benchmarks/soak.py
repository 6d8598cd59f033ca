"""Many calls at once for a long time, with faults at random: ``python -m benchmarks.soak --minutes 30``.

Half of the streams are threads of one `AutoGLM`, half tasks of one `AsyncAutoGLM`. Every call must end in the right
reply, in one of our errors whose ``partial`` begins the right reply, or in the end that was chosen for it. Afterwards
the client's count is held against the proxy's and the server's, memory, descriptors, threads and tasks must not have
grown, and nothing may be left for the garbage collector. With ``--url`` it asks a running server, and only the client's
side is at fault; the exit status says whether all was well.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import statistics
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoglm_client import AutoGLM, Reply, Timeouts

from .soaking.books import CLIENT, PROXY, SERVER, Books, reconcile
from .soaking.growth import SMALL_GROWTH, calls_left, growth, thirds
from .soaking.judge import Judge
from .soaking.plans import SAME_EACH_TIME, Setup, questions
from .soaking.servers import beside, serve_proxy, serve_script
from .soaking.workers import Soak

SCRIPT_TIMES = Timeouts(connect=2, send=5, first_token=4, between_tokens=2)
MODEL_TIMES = Timeouts(first_token=90, between_tokens=30)
MODEL_TOTAL_SECONDS = 120.0
DEFAULT_FAULTS = 0.12
FEW_DIFFER = 0.05
"""A real engine calculates a little differently in company; the scripted server does not, and none may differ."""
LONG_ENOUGH_SECONDS = 120.0
"""A shorter run is all warming up."""


def main(arguments: list[str] | None = None) -> int:
    """Soak, and say whether all was well."""
    given = options(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        said = soak(given, folder)
    print(table(said))
    if given.json:
        given.json.write_text(json.dumps(said, ensure_ascii=False, indent=2))
    return 1 if said["findings"] else 0


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


def soak(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start what is needed, run, and report."""
    with ExitStack() as stack:
        url = given.url or stack.enter_context(beside(serve_script, folder / SERVER, given.pace))
        through_proxy = given.faults or not given.url
        proxy = beside(serve_proxy, folder / PROXY, url, given.faults, given.seed)
        asked = stack.enter_context(proxy) if through_proxy else url
        setup = set_up(given, asked)
        judge = Judge(right_replies(setup, url), exact=not given.url, faults=bool(given.faults))
        log = stack.enter_context((folder / CLIENT).open("w", buffering=1, newline=""))
        run = Soak(setup, judge, given.streams, given.minutes * 60, given.seed, log)
        run.listen_for_complaints()
        asyncio.run(run.run())
        left = calls_left()
        gc.enable()
        running = running_on(url)
    books = Books.read(folder)
    ends = {it.call: it.end for it in books.client}
    left_by_end = counted(ends.get(it, "none") for it in left)
    findings = [*run.findings, *findings_in(run, books), *(reconcile(books) if through_proxy else ())]
    if left:
        findings.append(f"calls wait for the garbage collector, by their end: {left_by_end}")
    if running:
        findings.append(f"the server is still generating {running:.0f} answers")
    return report(run, books, left_by_end, findings)


def set_up(given: argparse.Namespace, url: str) -> Setup:
    """What all calls share; on the scripted server a call of a short run is short."""
    times, total = (MODEL_TIMES, MODEL_TOTAL_SECONDS) if given.url else (SCRIPT_TIMES, min(20, 2 + given.minutes * 60))
    client = {"base_url": url, "api_key": given.api_key, "timeout": replace(times, total=total)}
    return Setup(client=client, total=total, questions=questions())


def right_replies(setup: Setup, url: str) -> list[Reply]:
    """Ask every question alone, without faults."""
    with AutoGLM(**setup.client | {"base_url": url}) as glm:
        return [glm.chat(it, **SAME_EACH_TIME) for it in setup.questions]


def running_on(url: str) -> float:
    """How many answers the server is generating."""
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics") as answer:
        text = answer.read().decode()
    return sum(float(it) for it in re.findall(r"(?m)^vllm:num_requests_running\b.* ([\d.e+]+)$", text))


def findings_in(run: Soak, books: Books) -> Iterator[str]:
    """What is not as it should be in a run as a whole."""
    if run.begun != len(books.client):
        yield f"{run.begun} calls were begun, {len(books.client)} ended"
    if run.judge.differing > FEW_DIFFER * len(books.client):
        yield f"{run.judge.differing} answers were not what the server says when asked alone"
    if not any(it.end.startswith("reply") for it in books.client):
        yield "no call ended in a reply"
    if run.seconds >= LONG_ENOUGH_SECONDS:
        yield from growth(run.samples)


def report(run: Soak, books: Books, left: dict[str, int], findings: list[str]) -> dict[str, Any]:
    """Everything that was counted."""
    seconds = sorted(float(it.seconds) for it in books.client)
    return {
        "minutes": round(run.seconds / 60, 1),
        "streams": run.streams,
        "seed": run.seed,
        "calls": len(books.client),
        "attempts": sum(int(it.attempts or 0) for it in books.client),
        "requests": len(books.requests),
        "by kind": counted(it.kind for it in books.client),
        "by end": counted(it.end for it in books.client),
        "faults drawn": counted(it.fault for it in books.proxy if it.fault),
        "seconds of a call, p50 / p99": (statistics.median(seconds), seconds[int(len(seconds) * 0.99)]),
        "seconds that the machine took from it, at once and in all": (
            max((lost for _, lost in run.pulse.lost), default=0.0),
            sum(lost for _, lost in run.pulse.lost),
        ),
        **{f"{name}, first / last third": thirds(run.samples, name) for name in SMALL_GROWTH},
        "differing": run.judge.differing,
        "wait for the garbage collector": left,
        "verdict": "failed" if findings else "ok",
        "findings": findings,
    }


def counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def table(said: dict[str, Any]) -> str:
    """The report in Markdown."""
    rows = [f"| {name} | {in_words(value)} |" for name, value in said.items() if name != "findings"]
    return "\n".join(["| | |", "|---|---|", *rows, *(f"\n- {it}" for it in said["findings"])])


def in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {often}" for name, often in value.items()) or "none"
    return " / ".join(f"{it:.2f}" for it in value) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    sys.exit(main())
