"""Options to an engine's command line and environment, as data: nothing is started here."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["SECRETS", "Command", "FlagValue", "flags"]

SECRETS = frozenset({"VLLM_API_KEY", "AUTOGLM_API_KEY", "HF_TOKEN"})

FlagValue = str | int | float | tuple[str, ...] | None


@dataclass(frozen=True)
class Command:
    """One process to start: its arguments, and what its environment has beyond ours."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Holds whatever the user's own environment says: safety depends on it."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Holds where the user's own environment says nothing."""
    notes: tuple[str, ...] = ()
    """What this engine will not do of what the options say, in words for people."""

    def __str__(self) -> str:
        """The command as a shell would take it."""
        return shlex.join(self.argv)

    def full_environment(self) -> dict[str, str]:
        """Our environment with the additions: what the process is started with."""
        return {**self.defaults, **os.environ, **self.environment}

    def shown_environment(self) -> list[str]:
        """The additions as ``NAME=value`` lines for people, as they will hold; secrets are not shown."""
        full = self.full_environment()
        return [
            f"{name}={'***' if name in SECRETS else shlex.quote(full[name])}"
            for name in sorted({*self.defaults, *self.environment})
        ]


def flags(table: Mapping[str, FlagValue]) -> list[str]:
    """A table of flags as arguments: ``True`` is the flag alone, a tuple many values, ``None`` and ``False`` nothing.

    >>> flags({"--port": 8000, "--eager": True, "--revision": None, "--names": ("a", "b")})
    ['--port', '8000', '--eager', '--names', 'a', 'b']
    """
    arguments: list[str] = []
    for name, value in table.items():
        if value is None or value is False:
            continue
        arguments.append(name)
        if isinstance(value, tuple):
            arguments += value
        elif value is not True:
            arguments.append(str(value))
    return arguments
