"""Keys and headers that show themselves to nobody but the server."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from logging import LogRecord, getLogger
from types import FrameType
from typing import NoReturn

from .errors import AutoGLMError

__all__ = ["Secret", "SecretHeaders", "keep_silent", "sending", "without_secrets"]

_SECRET_NAME = re.compile(r"auth|(?<!idempotency-)key|token|secret|cookie|password|credential|session", re.I)
_LEAST = 4  # characters: what is shorter stands in every text
_LEAST_PART = 8
_CORES = ("httpcore2", "httpcore")
_LIBRARIES = {"autoglm_client", "httpx2", "httpx", "httpcore2", "httpcore", "h11", "anyio", "ssl", "socket", "asyncio"}


class Secret:
    """Keeps a key out of every repr and pickle."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    @classmethod
    def of(cls, given: str | Secret | None) -> Secret | None:
        """Hide what the caller gave, if anything."""
        return given if given is None or isinstance(given, Secret) else cls(given)

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]  # a key is no name for anything

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key cannot be pickled")


class SecretHeaders(Mapping[str, str]):
    """Keeps the headers of a request out of every repr and pickle, and their secrets out of what a server echoes."""

    __slots__ = ("value",)

    def __init__(self, value: Mapping[str, str]) -> None:
        self.value = value

    def __getitem__(self, name: str) -> str:
        return self.value[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __repr__(self) -> str:
        return f"<headers {', '.join(self.value)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("headers cannot be pickled: they may hold a key")

    def hidden(self, text: str) -> str:
        """The text without what is secret here, also where it is escaped, in base64, or cut off at the text's end."""
        for secret in self._secrets():
            text = _without_beginning(re.sub(_written(secret), "***", text), secret)
        return text

    def hide_in(self, error: BaseException) -> None:
        """Take what is secret out of an error's message and, if it is ours, of its attributes."""
        error.args = tuple(self.hidden(value) if isinstance(value, str) else value for value in error.args)
        for name, value in vars(error).items() if isinstance(error, AutoGLMError) else ():
            if isinstance(value, str):
                setattr(error, name, self.hidden(value))

    def _secrets(self) -> list[str]:
        """The longest first, as one may hold another: ``Bearer sk-1`` does."""
        values = [value for name, value in self.value.items() if _SECRET_NAME.search(name)]
        found = {part for value in values for part in (value, value.partition(" ")[2]) if len(part) >= _LEAST}
        found |= {part for value in values for part in re.split(r"[\s;,=]+", value) if len(part) >= _LEAST_PART}
        return sorted(found, key=len, reverse=True)


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that may be written down."""
    return {name: value for name, value in headers.items() if not _SECRET_NAME.search(name)}


_sent: ContextVar[SecretHeaders] = ContextVar("autoglm_headers")


def sending(headers: SecretHeaders) -> None:
    """From here on, what the HTTP libraries log of an answer is shown without these: its status line, its headers."""
    _sent.set(headers)
    _watch_loggers()


@cache
def _watch_loggers() -> None:
    beneath = [f"{library}.{name}" for library in _CORES for name in ("connection", "http11", "http2", "proxy")]
    for name in ("httpx2", "httpx", *beneath):
        getLogger(name).addFilter(_without_secrets)


def _without_secrets(record: LogRecord) -> bool:
    if (headers := _sent.get(None)) is not None:
        said = record.getMessage()
        if (hidden := headers.hidden(said)) != said:
            record.msg, record.args = hidden, None
    return True


def keep_silent(error: BaseException | None) -> Iterator[BaseException]:
    """Make an error and its causes drop what they hold beside their words: requests, and the locals of the libraries.

    A reporter that shows locals would show the headers, and the bytes that were sent. The lines of the traceback stay.
    Gives the errors themselves; what the user's own code was about before is none of them.
    """
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if _is_library(trace.tb_frame):
                with suppress(RuntimeError):  # it runs still
                    trace.tb_frame.clear()
            trace = trace.tb_next
        if getattr(error, "_request", None) is not None:
            error.request = None  # type: ignore[attr-defined]
        yield error
        error = error.__cause__ or error.__context__
        error = error if error is not None and _is_beneath(error) else None


def _is_beneath(error: BaseException) -> bool:
    return error.__traceback__ is None or _is_library(error.__traceback__.tb_frame)


def _is_library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _LIBRARIES


def _written(secret: str) -> str:
    """A pattern for every way in which a server may write it: plain, escaped as in JSON or a URL, within base64."""
    return "|".join("".join(map(_unit, re.findall(r"\\+|.", text))) for text in (secret, *_in_base64(secret)))


def _unit(text: str) -> str:
    """A character, or backslashes in a row: JSON within JSON puts more of them before it. Bounds keep this linear."""
    if text[0] == "\\":
        return r"(?:\\{1,7}+u005[cC]|\\|%5[cC]){1,64}+"
    code = f"{ord(text):02x}"
    return rf"(?:\\{{0,7}}+(?:{re.escape(text)}|u00(?i:{code}))|%(?i:{code}))"


def _in_base64(secret: str) -> Iterator[str]:
    """What stands for all of it in base64, wherever in a longer text it begins."""
    for before in range(3):
        size = before + len(secret)
        stretch = b64encode(bytes(before) + secret.encode())[(before * 8 + 5) // 6 : size * 8 // 6].decode()
        if len(stretch) >= _LEAST_PART:
            yield from {stretch, stretch.replace("+", "-").replace("/", "_")}


def _without_beginning(text: str, secret: str) -> str:
    """A message that was cut to its length may end in the midst of it."""
    for start in range(max(0, len(text) - len(secret)), len(text) - _LEAST + 1):
        if secret.startswith(text[start:]):
            return f"{text[:start]}***"
    return text
