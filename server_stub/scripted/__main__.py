"""The scripted server from the command line: ``python -m server_stub --scripted``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence

from .server import ScriptedServer

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; the base URL is printed when the server is ready."""
    options = _parser().parse_args(arguments)
    server = ScriptedServer(
        host=options.host,
        port=options.port,
        pace=options.pace,
        reasoning=options.reasoning,
        api_key=options.api_key,
        record=False,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with server:
            print(server.base_url, flush=True)  # noqa: T201
            while True:
                time.sleep(0.1)  # a signal that comes just before a sleep does not end it: keep them short
    except KeyboardInterrupt:
        return 0
    except (OSError, OverflowError) as error:
        print(f"Cannot listen on {options.host}:{options.port}: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m server_stub --scripted", description="Answer by a script, without a model."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--pace", type=float, default=0.0, metavar="SECONDS", help="time between two tokens")
    parser.add_argument(
        "--reasoning",
        default="tags",
        choices=("tags", "reasoning", "reasoning_content", "stripped"),
        help="where thinking shows (default: %(default)s)",
    )
    parser.add_argument("--api-key", default=os.environ.get("VLLM_API_KEY") or None, help="default: VLLM_API_KEY")
    return parser


if __name__ == "__main__":
    sys.exit(main())
