"""``chat_openai``: the model for code that insists on LangChain's ``ChatOpenAI``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import ConfigurationError, defaults
from .chat_model import ChatAutoGLM

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

__all__ = ["chat_openai"]

NO_KEY = "EMPTY"
"""What OpenAI's client sends where there is no key, and vLLM ignores; it must be something."""

_OTHER_NAMES = {
    "model_name": "model",
    "openai_api_base": "base_url",
    "openai_api_key": "api_key",
    "request_timeout": "timeout",
}


def chat_openai(**options: Any) -> ChatOpenAI:
    """Make a ``ChatOpenAI`` that asks the AutoGLM server; ``options`` are its own, and win.

    ``base_url``, ``api_key`` and ``model`` default to what `ChatAutoGLM` would use; ``OPENAI_API_KEY`` and
    ``OPENAI_BASE_URL`` are not read, so that no key of OpenAI's goes to another server.

    A vLLM is asked to leave the tags in the answer (``skip_special_tokens``): without them thinking and action run
    together, and nobody could part them; with them `ActionOutputParser` and `parse_action` read the answer. On a server
    with ``--reasoning-parser``, which sends the thinking in a field of its own, give ``extra_body={}``; vLLM's streams
    have an ``<answer>`` even then.

    What ``ChatOpenAI`` cannot, this cannot either; take `ChatAutoGLM` where you can choose:

    - a picture named by an http(s) URL is passed on without being asked, and the server fetches it;
    - thinking in a field of its own is lost, and thinking in tags is part of the text;
    - tools need a server with ``--tool-call-parser``; ``bind_tools([])``, and so an agent without tools, is refused;
    - in a stream, a tool call that was cut off is a valid one with half of its arguments;
    - a stream that breaks off is an answer like any other; ``timeout`` is that of each read, not of the whole call;
    - a prompt that is too long raises ``ModelInvalidRequestError``, not ``ContextOverflowError``;
    - async calls work in one event loop: a second ``asyncio.run`` fails;
    - ``get_num_tokens_from_messages`` downloads a tokenizer, and then raises ``NotImplementedError``.

    Raises `ConfigurationError` where langchain-openai is not installed.
    """
    try:
        from langchain_openai import ChatOpenAI
    except ImportError as error:
        raise ConfigurationError(
            f'chat_openai() makes a ChatOpenAI: pip install "autoglm-client[openai]" ({error})'
        ) from error
    given = {_OTHER_NAMES.get(name, name): value for name, value in options.items()}
    ours = ChatAutoGLM(**_ours_of(given))
    server = {"base_url": ours.base_url, "model": ours.model, "api_key": _key(given.get("api_key"), ours)}
    return ChatOpenAI(**{**_our_defaults(ours), **given, **server})


def _ours_of(given: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: given[name] for name in ("base_url", "model") if given.get(name)}
    key = given.get("api_key")
    return named if key is None or callable(key) else {**named, "api_key": key}


def _key(given: object, ours: ChatAutoGLM) -> object:
    """The key as the client reads it; a function, which ``ChatOpenAI`` takes too, stays one."""
    if callable(given):
        return given
    return (ours.api_key.get_secret_value().strip() if ours.api_key else "") or NO_KEY


def _our_defaults(ours: ChatAutoGLM) -> dict[str, Any]:
    endpoint = defaults.endpoint_for(ours.base_url)
    return {
        "timeout": defaults.TOTAL_SECONDS,
        "max_retries": ours.max_retries,
        "stream_usage": endpoint.stream_usage,
        "use_responses_api": False,
        "extra_body": {"skip_special_tokens": False} if endpoint.extensions else None,
    }
