"""Going on with an answer that was cut: whether that can be exact, and what to ask for.

The model gets its own words back as the beginning of its turn and writes the rest. That is the answer which the cut one
would have been only where nothing else of the first request is lost with it: no grammar, no count of what was said.
The server itself tells whether it read the words back as it had written them: it counts as many tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import InvalidReply

if TYPE_CHECKING:
    from .wire import Chunk

__all__ = ["CONTINUATION", "Beginning", "continuation", "obstacles"]

CONTINUATION = {"continue_final_message": True, "add_generation_prompt": False}

_MIN_TOKENS = 64
"""What has to be lost before ``"auto"`` goes on: below, asking anew costs less than it puts at risk."""

_SPECIAL = re.compile(r"<\|[^|<>\s]+\|>|\[gMASK\]|<sop>|<tool_call>|\ufffd")

_OFF: dict[str, tuple[Any, ...]] = {"frequency_penalty": (0,), "presence_penalty": (0,), "repetition_penalty": (1,)}
_LIMITS = ("max_tokens", "max_completion_tokens")
_STATEFUL = ("min_tokens", "logprobs", "stop", "thinking_token_budget", "repetition_detection")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What had come of an answer when it was cut."""

    words: str
    """As the model wrote them, its tags included."""
    answers: int
    """How many answers were coming."""
    thought: bool
    """Whether its thinking was over."""
    calls_tools: bool
    tokens: int
    """By the server's count, or else the events that brought something."""
    prompt_tokens: int | None
    """Of the first request and the answer together, if the server counts while it writes."""
    model: str | None
    system_fingerprint: str | None

    def check(self, chunk: Chunk) -> None:
        """Raise :class:`InvalidReply` when this is not the beginning of the rest, but of something else."""
        usage = chunk.get("usage") or {}
        for name, before, now in (
            ("model", self.model, chunk.get("model")),
            ("system_fingerprint", self.system_fingerprint, chunk.get("system_fingerprint")),
            ("number of prompt tokens", self.prompt_tokens, usage.get("prompt_tokens")),
        ):
            if before is not None and now is not None and before != now:
                raise InvalidReply(f"the server read the answer's beginning differently: its {name} is {now!r}")


def obstacles(mode: str, body: Mapping[str, Any], beginning: Beginning) -> Iterator[str]:
    """Why this answer cannot be gone on with, if there is anything; the first is enough."""
    if beginning.calls_tools:
        yield "it calls tools"
    if beginning.answers != 1 or (body.get("n") or 1) != 1:
        yield "it has several answers"
    if not beginning.words:
        yield "nothing of it had come"
    if found := _SPECIAL.search(beginning.words):
        yield f"{found.group()!r} in it would not be read as it was written"
    if mode == "auto" and beginning.tokens < _MIN_TOKENS:
        yield f"it had fewer than {_MIN_TOKENS} tokens"
    if (limit := _limit(body)) is not None and limit <= beginning.tokens:
        yield "it had all the tokens that it may have"
    yield from _lost_with_the_request(body)


def _lost_with_the_request(body: Mapping[str, Any]) -> Iterator[str]:
    if _is_constrained(body):
        yield "its form is given, and a grammar begins anew"
    for name, off in _OFF.items():
        if body.get(name) is not None and body[name] not in off:
            yield f"{name} counts what was said, and would begin anew"
    for name in _STATEFUL:
        if body.get(name):
            yield f"{name} would begin anew"
    if body.get("include_reasoning") is False:
        yield "its thinking was left out"
    if "skip_special_tokens" not in body:
        yield "this server is not known to go on with a beginning"
    elif body["skip_special_tokens"] is not False:
        yield "its tags were left out"
    if any(name in body for name in CONTINUATION):
        yield "the request says itself how the prompt ends"


def _is_constrained(body: Mapping[str, Any]) -> bool:
    form = body.get("response_format")
    if isinstance(form, Mapping) and form.get("type") != "text":
        return True
    if body.get("structured_outputs") or any(name.startswith("guided_") for name in body):
        return True
    return body.get("tool_choice") not in (None, "auto", "none")


def continuation(body: Mapping[str, Any], beginning: Beginning) -> dict[str, Any]:
    """The request for the rest of an answer."""
    rest = {name: value for name, value in body.items() if name != "request_id"}  # it named the first request
    rest["messages"] = [*body["messages"], {"role": "assistant", "content": beginning.words}]
    for name in _LIMITS:
        if isinstance(body.get(name), int):
            rest[name] = body[name] - beginning.tokens
    if isinstance(body.get("seed"), int):
        rest["seed"] = body["seed"] + 1  # the same one would repeat the same random numbers
    return rest | CONTINUATION


def _limit(body: Mapping[str, Any]) -> int | None:
    limits = [body[name] for name in _LIMITS if isinstance(body.get(name), int)]
    return min(limits, default=None)
