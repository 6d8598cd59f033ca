"""Time to import this package against its peers, in turn, in one run: ``python -m benchmarks.import_time``."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 9
PAIRS = (("autoglm_client", "openai"), ("autoglm_client.langchain", "langchain_openai"))


def seconds(module: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - started


def main() -> None:
    for pair in PAIRS:
        rounds = [[seconds(module) for module in ("sys", *pair)] for _ in range(ROUNDS)]
        ours, theirs = (statistics.median(row[column] - row[0] for row in rounds) for column in (1, 2))
        print(f"{pair[0]} {ours:.3f} s   {pair[1]} {theirs:.3f} s   ratio {ours / theirs:.3f} (1/{theirs / ours:.1f})")


if __name__ == "__main__":
    main()
