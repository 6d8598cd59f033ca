"""Write client.py from async_client.py; ``--check`` only compares them, whole syntax trees.

A rule that no longer matches anything is an error: it would hide a change that nobody translated.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "autoglm_client"
SOURCE, TARGET = PACKAGE / "async_client.py", PACKAGE / "client.py"

RULES = [
    (r'"""The async client: send', '"""The sync client: send'),
    (
        r"``client\.py`` is derived from this file by ``scripts/derive_sync\.py``: change this one and run it\.",
        "Derived from ``async_client.py`` by ``scripts/derive_sync.py``: change that one.",
    ),
    (r"AsyncByteStream", "SyncByteStream"),
    (r"AsyncGenerator\[bytes, None\]", "Generator[bytes, None, None]"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\b(_?)Async(?=[A-Z])", r"\1"),
    (r"\basync_(attempts|map|sleep)\b", r"sync_\1"),
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\banext\(", "next("),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\baclose\(", "close("),
]


def derive(source: str) -> str:
    """Translate the async source into the sync one."""
    for pattern, replacement in RULES:
        source, matches = re.subn(pattern, replacement, source)
        if not matches:
            sys.exit(f"derive_sync: the rule {pattern!r} matches nothing any more: change or remove it")
    return ruff("format", ruff("check", source, "--select", "I", "--fix", "--quiet"))  # other names sort otherwise


def ruff(command: str, source: str, *options: str) -> str:
    """Let ruff rewrite a source."""
    run = [sys.executable, "-m", "ruff", command, *options, "--stdin-filename", str(TARGET), "-"]
    return subprocess.run(run, input=source, capture_output=True, text=True, check=True).stdout


def main() -> None:
    derived = derive(SOURCE.read_text())
    if "--check" in sys.argv[1:]:
        if ast.dump(ast.parse(derived)) != ast.dump(ast.parse(TARGET.read_text())):
            sys.exit("derive_sync: client.py is not what async_client.py gives: run scripts/derive_sync.py")
    else:
        TARGET.write_text(derived)


if __name__ == "__main__":
    main()
