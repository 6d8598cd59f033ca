"""What the launcher must know of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from ..command import Command
from ..errors import ServeError
from ..options import ServeOptions

__all__ = ["Engine", "refuse", "without_effect"]


@dataclass(frozen=True)
class Engine:
    """``command(options, python)`` makes the command line; ``python`` is the interpreter that has the engine."""

    title: str
    module: str
    """The import name, which tells whether the engine is installed."""
    distributions: tuple[str, ...]
    """The names it may have been installed by; the first that is there tells the version."""
    install: str
    """What to tell somebody who does not have it."""
    command: Callable[[ServeOptions, Path], Command]
    health: str = "/health"
    """Answers 200 when the engine says that it is up."""


def refuse(title: str, options: ServeOptions, reasons: dict[str, str]) -> None:
    """Raise for the first option that was set although this engine cannot do it."""
    defaults = {field.name: field.default for field in fields(ServeOptions)}
    for name, reason in reasons.items():
        if getattr(options, name) != defaults[name]:
            raise ServeError(f"{title}: {name} {reason}; leave it out, or take the engine vllm")


def without_effect(title: str, names: Iterable[str]) -> str:
    """One note on the options that this engine does not know; what they say is not held."""
    return f"{title} takes no {', '.join(names)}: what these options say has no effect"
