"""Where a server sends a request on to, and whether the request may go there."""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit

__all__ = ["followed", "redirection"]

_KEEPS_METHOD_AND_BODY = {307, 308}
_MAX_ADDRESS = 8192  # characters, more than servers take
_PORTS = {"http": 80, "https": 443}


def followed(url: str, status: int, location: str | None) -> str | None:
    """The next address of a request: on the same origin and with the same method, or ``None``."""
    if status not in _KEEPS_METHOD_AND_BODY or not location:
        return None
    try:
        target = urlsplit(urljoin(url, location))
        same = target.username is None and _origin(target) == _origin(urlsplit(url))
    except ValueError:
        return None
    address = target._replace(fragment="").geturl()
    return address if same and address.isprintable() and len(address) <= _MAX_ADDRESS else None


def redirection(location: str | None) -> str:
    """Words for where a server sends to: the origin alone, as a path may hold what is nobody's business."""
    try:
        target = urlsplit(location or "")
        scheme, host, port = _origin(target)
    except ValueError:
        return "to an address that is none"
    return f"to {scheme}://{host}:{port}" if host else "to another path of its own"


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
