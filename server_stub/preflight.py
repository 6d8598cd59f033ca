"""Everything that can be known before the engine is started: what is missing, and what to do about it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .errors import PreflightFailed
from .findings import Finding
from .machine.checkpoint import check_folder, check_gguf
from .machine.device import check_device
from .machine.hub import check_hub
from .machine.installed import Installed, check_engine, check_interpreter, check_ray, check_transformers, look_into
from .machine.ports import check_port
from .machine.storage import check_disk, check_shared_memory
from .options import WEIGHTS, ServeOptions
from .profiles import TINY_WEIGHTS
from .supervisor.records import default_log

__all__ = ["CHECKS", "check_weights", "preflight", "require"]

Check = Callable[[ServeOptions, Installed], Iterator[Finding]]
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def preflight(options: ServeOptions, python: Path, log: Path | None = None) -> list[Finding]:
    """Look at this machine and at what is installed for ``python``; nothing is started or changed."""
    inside = look_into(python, options)

    def check_logs(_options: ServeOptions, _inside: Installed) -> Iterator[Finding]:
        yield from check_disk(log or default_log(options.port))

    return [finding for check in (*CHECKS, check_logs) for finding in _findings(check, options, inside)]


def require(findings: Iterable[Finding]) -> None:
    """Raise PreflightFailed, with what to do, if anything stands in the way."""
    lines = [f"{each.name}: {each.detail}\n  -> {each.remedy}" for each in findings if each.state == "FAIL"]
    if lines:
        raise PreflightFailed("\n".join(["this machine is not ready:", *lines]))


def check_weights(options: ServeOptions, _inside: Installed) -> Iterator[Finding]:
    """The model: a folder, a GGUF file, or an id of the hub."""
    path = options.folder or Path(options.model)
    if path.is_dir():
        yield from check_folder(path, _fetch(path), weights=options.load_format != "dummy")
    elif path.is_file():
        yield from check_gguf(path, options.engine)
    elif HUB_ID.fullmatch(options.model) and path.suffix not in {".gguf", ".safetensors"}:
        yield from check_hub(options)
    else:
        detail = f"{options.model} is not there, and it is no hub id (owner/name)"
        remedy = _fetch(path) if path == TINY_WEIGHTS else f"--model {WEIGHTS}, or the folder of a checkpoint"
        yield Finding("weights", "FAIL", detail, remedy)


def _fetch(folder: Path) -> str:
    if folder == TINY_WEIGHTS:  # they come with this package
        return "pip install --force-reinstall autoglm-client"
    return shlex.join(["hf", "download", WEIGHTS, "--local-dir", str(folder)])


def _findings(check: Check, options: ServeOptions, inside: Installed) -> Iterator[Finding]:
    try:
        yield from check(options, inside)
    except OSError as error:  # a file or folder of somebody else
        name = check.__name__.removeprefix("check_")
        detail = f"{error.filename or 'this machine'} cannot be looked at: {error.strerror}"
        yield Finding(
            name, "FAIL", detail, "serve as the user it belongs to, or chmod -R u+rX it; --force if it is well"
        )


CHECKS: tuple[Check, ...] = (
    check_interpreter,
    check_engine,
    check_transformers,
    check_ray,
    check_device,
    check_weights,
    check_port,
    check_shared_memory,
)
