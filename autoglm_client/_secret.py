"""An API key that shows itself to nobody but the server."""

from __future__ import annotations

import json
from typing import NoReturn

from .errors import AutoGLMError

__all__ = ["Secret"]


class Secret:
    """Keeps a key out of every repr and pickle, and takes it out of what a server echoes."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key cannot be pickled")

    def hidden(self, text: str) -> str:
        """The text without the key, also where it is escaped as in JSON."""
        if self.value:
            for written in (self.value, json.dumps(self.value)[1:-1], self.value.replace("/", "\\/")):
                text = text.replace(written, "***")
        return text

    def hide_in(self, error: AutoGLMError) -> None:
        """Take the key out of an error's message and of its attributes."""
        error.args = tuple(self.hidden(value) if isinstance(value, str) else value for value in error.args)
        for name, value in vars(error).items():
            if isinstance(value, str):
                setattr(error, name, self.hidden(value))
