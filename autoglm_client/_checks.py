"""Whether what the caller gave can be used; if not, a :class:`ConfigurationError` says what to give instead."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from difflib import get_close_matches
from math import isfinite
from re import fullmatch, sub
from typing import Any, cast, get_args
from urllib.parse import urlsplit

from . import defaults
from ._secret import Secret
from .errors import ConfigurationError, InsecureConnection
from .wire import ChatOptions, Resume

__all__ = [
    "checked_count",
    "checked_headers",
    "checked_key",
    "checked_options",
    "checked_switch",
    "checked_url",
    "encoded",
    "is_private",
    "warn_of_clear_text",
]

_KNOWN_OPTIONS = frozenset(ChatOptions.__annotations__)
_PRIVATE_NAMES = (".localhost", ".localdomain", ".local", ".internal")
_FRAMING = {"content-length", "transfer-encoding"}
_warned = False
_MAPPINGS = ("extra_headers", "extra_body", "chat_template_kwargs")


def checked_url(url: object) -> str:
    """The base of all routes: a bare host gets ``/v1``, the route of chat completions is cut off."""
    if isinstance(url, str) and "@" in url:  # and the words must show neither
        raise ConfigurationError("base_url holds a name or a password: leave them out and give api_key= instead")
    try:
        parts = urlsplit(url.strip() if isinstance(url, str) else "")
        parts.netloc.encode("idna")
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        shown = sub(r"[?#].*|(?<=:)[^/:]{6,}", "...", url) if isinstance(url, str) else url  # which may be a key
        raise ConfigurationError(f"base_url={shown!r} is not a server's address: give one like {defaults.BASE_URL}")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return f"{parts.scheme}://{parts.netloc}{path or '/v1'}"


def is_private(host: str) -> bool:
    """Whether a host is this machine or one of a network of its own."""
    from ipaddress import ip_address  # not needed to import this package

    host = host.rstrip(".")
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_NAMES) or _is_short_loopback(host)


def _is_short_loopback(host: str) -> bool:
    """``127.1``, and ``0x7f.1``, as inet_aton and so every resolver reads them."""
    return fullmatch(r"(127|0x0*7f|0+177)(\.[0-9a-fx]+){1,3}", host) is not None


def warn_of_clear_text(base_url: str, key: str) -> None:
    """Warn once per process of a key that everybody on the way can read."""
    global _warned
    parts = urlsplit(base_url)
    if key and parts.scheme == "http" and not is_private(parts.hostname or "") and not _warned:
        _warned = True
        words = (
            f"the API key and the screenshots go to {parts.hostname} over plain http, readable on the way: use https"
        )
        warnings.warn(words, InsecureConnection, stacklevel=4)  # where the client is made


def checked_key(key: Secret) -> Secret:
    """An API key that a header can carry."""
    if not isinstance(cast("object", key.value), str) or not _is_header(key.value.strip()):
        raise ConfigurationError("the API key is no text that an HTTP header can carry: was something else pasted?")
    return Secret(key.value.strip())


def _is_header(text: str) -> bool:
    return text.isascii() and text.isprintable()


def checked_count(name: str, value: object) -> int:
    """A whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{name}={value!r}: give a whole number, 1 or more")
    return value


def checked_switch(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):  # "no" and "false" are true, too
        raise ConfigurationError(f"{name}={value!r}: give True or False")
    return value


def checked_headers(headers: object) -> dict[str, str]:
    """Names and values that HTTP can carry, the names in lower case, so that one replaces the other."""
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers: a {type(headers).__name__}: give a mapping of names to values")
    for name, value in headers.items():
        if not isinstance(name, str) or not _is_header(name):
            raise ConfigurationError(f"no HTTP header can be named {name!r}")
        if name.lower() in _FRAMING:
            raise ConfigurationError(f"{name!r} says where the body ends, which is not yours to say: leave it out")
        if not isinstance(value, str) or not _is_header(value):  # which may be a secret
            raise ConfigurationError(f"no HTTP header can carry the value of {name!r}: is there a line break in it?")
    return {name.lower(): value for name, value in headers.items()}


def checked_options(options: object) -> dict[str, Any]:
    """Leave out what is ``None`` (but a timeout may be), refuse names that no server would understand."""
    if not isinstance(options, Mapping):
        raise ConfigurationError(f"options={options!r}: give a mapping of names to values")
    for name in options:
        if name not in _KNOWN_OPTIONS:
            close = get_close_matches(str(name), _KNOWN_OPTIONS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "fields that have no name here go into extra_body="
            raise ConfigurationError(f"unknown option {name!r}: {hint}")
    given = {name: value for name, value in options.items() if value is not None or name == "timeout"}
    for name in _MAPPINGS:
        if not isinstance(given.get(name, {}), Mapping):
            raise ConfigurationError(f"{name}: a {type(given[name]).__name__}: give a mapping of names to values")
    if "n" in given:
        checked_count("n", given["n"])
    if given.get("resume", "never") not in get_args(Resume):
        raise ConfigurationError(f"resume={given['resume']!r}: give one of {', '.join(get_args(Resume))}")
    if "allow_remote_images" in given:
        checked_switch("allow_remote_images", given["allow_remote_images"])
    if "deadline" in given and not _is_time(given["deadline"]):
        raise ConfigurationError(f"deadline={given['deadline']!r}: give a point in time.monotonic()")
    return given


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body of a request."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"the request cannot be written as JSON: {error}") from error
