"""Let LangChain's ``load`` find the class by itself, as it finds those of its own partners."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import Any

__all__ = ["make_loadable"]


def make_loadable(kind: type[Any]) -> None:
    """Put a class into LangChain's list of known ones, which is private: without it, name it in ``allowed_objects``."""
    with suppress(AttributeError, ImportError):
        load = import_module("langchain_core.load.load")
        path = tuple(kind.lc_id())
        load.ALL_SERIALIZABLE_MAPPINGS[path] = path
        load._default_class_paths_cache.clear()  # noqa: SLF001
