"""Clients of the public package for a running engine: greedy, unless a call says otherwise."""

from __future__ import annotations

import io

from PIL import Image

from autoglm_client import AsyncAutoGLM, AutoGLM, ChatOptions
from server_stub.screen import Button

from .engine import Engine

__all__ = ["async_client", "button", "client", "screenshot"]

_OPTIONS: ChatOptions = {"temperature": 0, "max_tokens": 64}


def client(engine: Engine) -> AutoGLM:
    return AutoGLM(engine.base_url, api_key=engine.api_key, max_attempts=1, options=_OPTIONS)


def async_client(engine: Engine) -> AsyncAutoGLM:
    return AsyncAutoGLM(engine.base_url, api_key=engine.api_key, max_attempts=1, options=_OPTIONS)


def button(size: tuple[int, int]) -> Button:
    """The one on a ``screenshot`` of this size, near its top left."""
    width, height = size
    return Button("red", width // 8, height // 8, width // 2 - width // 8, height // 3 - height // 8)


def screenshot(color: str = "red", size: tuple[int, int] = (720, 1440), kind: str = "PNG") -> bytes:
    """A white screen with one coloured button."""
    _, left, top, width, height = button(size)
    screen = Image.new("RGB", size, "white")
    screen.paste(color, (left, top, left + width, top + height))
    data = io.BytesIO()
    screen.save(data, kind)
    return data.getvalue()
