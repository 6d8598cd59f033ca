"""One line of a table of checks: what was looked at, what was found, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``FAIL`` stands in the way, ``note`` is worth knowing; ``remedy`` says what to do about either."""

    name: str
    state: Literal["ok", "note", "FAIL"]
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.state:4}  {self.name:13}  {self.detail}"
        return f"{line}\n{'':21}-> {self.remedy}" if self.remedy else line
