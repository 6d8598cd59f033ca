"""LangChain's ``"provider:model"`` names: what ``init_chat_model`` and ``create_agent`` take in place of a model."""

from __future__ import annotations

from typing import Any

from .. import ConfigurationError
from .chat_model import ChatAutoGLM
from .metadata import PROVIDER

__all__ = ["register"]


def register() -> None:
    """Let ``init_chat_model("autoglm:autoglm-phone-9b")`` and ``create_agent("autoglm:...")`` find `ChatAutoGLM`.

    Call it once, before them; again does no harm. LangChain has no public way to add a provider, so this adds to its
    table. Raises `ConfigurationError` when LangChain is not installed, or has no such table any more: then give
    ``create_agent`` a `ChatAutoGLM` itself, which needs no name.
    """
    try:
        from langchain.chat_models import base
    except ImportError as error:
        raise ConfigurationError(
            f'register() needs LangChain: pip install "autoglm-client[agents]" ({error})'
        ) from error
    providers: Any = getattr(base, "_BUILTIN_PROVIDERS", None)
    if not _is_known(providers):
        raise ConfigurationError(
            "register() does not know this version of LangChain: pass ChatAutoGLM() itself instead of a name"
        )
    providers[PROVIDER] = (ChatAutoGLM.__module__, ChatAutoGLM.__name__, _new)


def _is_known(providers: object) -> bool:
    """Whether the table has the rows that it had when this was written."""
    return isinstance(providers, dict) and any(
        isinstance(row, tuple) and len(row) == 3 and callable(row[2]) for row in providers.values()
    )


def _new(cls: type[ChatAutoGLM], **settings: Any) -> ChatAutoGLM:
    return cls(**settings)
