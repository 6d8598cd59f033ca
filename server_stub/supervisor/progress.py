"""Lines of an engine's log to lines of progress for people."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["Progress"]

Words = Callable[[re.Match[str]], str]


def _seconds(clock: str) -> int:
    """``01:02`` or ``1:01:02`` as a progress bar writes it."""
    total = 0
    for part in clock.split(":"):
        total = total * 60 + int(part)
    return total


def _shards(match: re.Match[str]) -> str:
    return f"loading weights: {match['done']} of {match['all']} shards, {_seconds(match['clock'])} s"


_BAR = r"(?P<done>\d+)/(?P<all>\d+) \[(?P<clock>[\d:]+)<"

# The messages of vLLM 0.32, older ones of its releases since 0.12, and those of SGLang 0.5.
_STAGES: tuple[tuple[re.Pattern[str], Words], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (rf"Loading \S+ checkpoint shards.*Completed \| {_BAR}", _shards),
        (r"Resolved architecture: ", lambda _: "starting the engine's processes"),
        (r"Starting to load model |Load weight begin", lambda _: "loading weights"),
        (r"Loading weights took ([\d.]+) seconds", lambda it: f"weights loaded in {float(it[1]):.0f} s"),
        (r"Model loading took ([\d.]+) GiB", lambda it: f"weights loaded: {float(it[1]):.1f} GiB"),
        (r"Starting torch\.compile|Dynamo bytecode transform time|Compiling a graph for", lambda _: "compiling"),
        (r"KV cache size: ([\d,]+) tokens", lambda it: f"memory for {it[1]} tokens of cache"),
        (r"KV Cache is allocated\..*#tokens: (\d+)", lambda it: f"memory for {int(it[1]):,} tokens of cache"),
        (rf"Capturing CUDA graphs.*\| {_BAR}", lambda it: f"capturing CUDA graphs: {it['done']} of {it['all']}"),
        (r"Capture cuda graph begin", lambda _: "capturing CUDA graphs"),
        (r"Starting vLLM (API )?server|Application startup complete|The server is fired up", lambda _: "serving"),
    )
)


class Progress:
    """Feed it the lines; it tells what is new in them."""

    def __init__(self) -> None:
        self.last = "starting"
        """What was told last."""

    def feed(self, line: str) -> str | None:
        """What the line tells, if it tells something that was not told before it."""
        for pattern, words in _STAGES:
            if match := pattern.search(line):
                told, self.last = self.last, words(match)
                return self.last if self.last != told else None
        return None
