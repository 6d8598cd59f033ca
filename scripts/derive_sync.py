"""Write the sync files from the async ones; ``--check`` only compares them, whole syntax trees.

A rule that no longer matches anything is an error: it would hide a change that nobody translated.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "autoglm_client"
PAIRS = {"async_client.py": "client.py", "async_stream.py": "stream.py"}

RULES = [
    (r'"""The async client:', '"""The sync client:'),
    (r'"""An async answer', '"""An answer'),
    (
        r"``(\w+)\.py`` is derived from this file by ``scripts/derive_sync\.py``: change this one and run it\.",
        r"Derived from ``async_\1.py`` by ``scripts/derive_sync.py``: change that one.",
    ),
    (r"from \.async_stream import", "from .stream import"),
    (r"AsyncByteStream", "SyncByteStream"),
    (r"AsyncGenerator\[bytes, None\]", "Generator[bytes, None, None]"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b(_?)Async(?=[A-Z])", r"\1"),
    (r"\basync_(is_well|map|pause|read|retried)\b", r"sync_\1"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\banext\(", "next("),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\baclose\(", "close("),
]


def derive(sources: dict[str, str]) -> dict[str, str]:
    """Translate the async sources, by the names of their sync files."""
    derived = {PAIRS[name]: source for name, source in sources.items()}
    for pattern, replacement in RULES:
        if not any(re.search(pattern, source) for source in derived.values()):
            sys.exit(f"derive_sync: the rule {pattern!r} matches nothing any more: change or remove it")
        derived = {name: re.sub(pattern, replacement, source) for name, source in derived.items()}
    return {name: tidy(source, name) for name, source in derived.items()}


def tidy(source: str, name: str) -> str:
    """Sort the imports, as other names sort otherwise, and format."""
    return ruff("format", ruff("check", source, name, "--select", "I", "--fix", "--quiet"), name)


def ruff(command: str, source: str, name: str, *options: str) -> str:
    """Let ruff rewrite a source."""
    run = [sys.executable, "-m", "ruff", command, *options, "--stdin-filename", str(PACKAGE / name), "-"]
    return subprocess.run(run, input=source, capture_output=True, text=True, check=True).stdout


def main() -> None:
    for name, derived in derive({name: (PACKAGE / name).read_text() for name in PAIRS}).items():
        target = PACKAGE / name
        if "--check" not in sys.argv[1:]:
            target.write_text(derived)
        elif ast.dump(ast.parse(derived)) != ast.dump(ast.parse(target.read_text())):
            sys.exit(f"derive_sync: {name} is not what async_{name} gives: run scripts/derive_sync.py")


if __name__ == "__main__":
    main()
