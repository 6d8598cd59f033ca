"""Make random weights say a given text, special tokens included, without a grammar.

A grammar (``structured_outputs``) spells tags in ordinary pieces, and with a reasoning parser it applies only after
``</think>``. Here each token of the text gets a bias, the first the highest, and a repetition penalty that takes every
token out of the race once it was said. So a text can be dictated whose tokens are all different from one another and
from the prompt's; real tag tokens come out, and the server treats them as it would the real model's.
"""

from __future__ import annotations

from typing import TypedDict

from .engine import MODEL, Engine

__all__ = ["Dictated", "dictated"]

_HIGHEST, _LOWEST = 100.0, 10.0  # vLLM's limit for a bias, and what is far above anything the weights say


class Dictated(TypedDict):
    """The options of a call."""

    temperature: float
    max_tokens: int
    logit_bias: dict[str, float]
    repetition_penalty: float


def dictated(engine: Engine, text: str) -> Dictated:
    """The options that make the server answer with ``text``."""
    with engine.http() as http:
        reply = http.post("/tokenize", json={"model": MODEL, "prompt": text, "add_special_tokens": False})
    tokens: list[int] = reply.raise_for_status().json()["tokens"]
    assert len(set(tokens)) == len(tokens), f"a token comes twice in {text!r}: {tokens}"
    step = (_HIGHEST - _LOWEST) / len(tokens)
    return {
        "temperature": 0,
        "max_tokens": len(tokens),
        "logit_bias": {str(token): _HIGHEST - step * index for index, token in enumerate(tokens)},
        "repetition_penalty": 1e6,
    }
