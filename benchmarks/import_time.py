"""Time to import this package against openai-python, in turn, in one run: ``python -m benchmarks.import_time``."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

ROUNDS = 9


def seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def main() -> None:
    rounds = [[seconds(f"import {name}") for name in ("sys", "autoglm_client", "openai")] for _ in range(ROUNDS)]
    ours, theirs = (statistics.median(row[column] - row[0] for row in rounds) for column in (1, 2))
    print(f"autoglm {ours:.3f} s   openai {theirs:.3f} s   ratio {ours / theirs:.3f} (1/{theirs / ours:.1f})")


if __name__ == "__main__":
    main()
