"""``python -m server_stub``: serve the model; with ``--scripted``, a server without any."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .scripted.__main__ import main as scripted
from .serve import add_arguments

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, serve, and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--scripted" in given:
        return scripted([argument for argument in given if argument != "--scripted"])
    parser = argparse.ArgumentParser(prog="python -m server_stub")
    add_arguments(parser)
    options = parser.parse_args(given)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
