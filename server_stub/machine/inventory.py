"""Runs in the engine's environment, as its source: prints as JSON what is installed there, and imports none of it."""

import json
import runpy
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035, the engine's Python may be older than ours

__all__ = ["main"]


def main(distributions: List[str], modules: List[str]) -> None:  # noqa: UP006
    """Print the versions of the distributions, which of the modules are there, and what torch was built for."""
    versions = {name: found for name in distributions if (found := _version(name))}
    print(  # noqa: T201
        json.dumps({"versions": versions, "modules": [name for name in modules if find_spec(name)], **_torch()})
    )


def _version(name: str) -> Optional[str]:  # noqa: UP045
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _torch() -> Dict[str, Any]:  # noqa: UP006
    """The CUDA that torch was built for, from its file of versions: importing torch takes seconds."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return {"torch": None, "cuda": None}
    told = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    return {"torch": told["__version__"], "cuda": told["cuda"]}


if __name__ == "__main__":
    names = sys.argv[1:]
    main(names[: names.index("--")], names[names.index("--") + 1 :])
