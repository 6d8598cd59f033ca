"""The finished answer: one object, the same whether it was streamed or not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from .actions import Action, ActionCall
from .actions.reading import read_split
from .errors import ActionError, InvalidReply
from .reasoning import Split
from .wire import ToolCallDict, UsageCounts

__all__ = ["Choice", "Reply", "Timing", "ToolCall", "Usage"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A native tool call."""

    id: str = field(compare=False)
    name: str
    arguments: str
    """JSON, as the model wrote it."""

    def parsed(self) -> dict[str, Any]:
        """Decode the arguments; :class:`InvalidReply` when they are not a JSON object."""
        try:
            value = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise InvalidReply(f"the arguments of tool call {self.name!r} are not JSON: {error}") from error
        if not isinstance(value, dict):
            raise InvalidReply(f"the arguments of tool call {self.name!r} are not a JSON object: {self.arguments[:80]}")
        return value

    def to_dict(self) -> ToolCallDict:
        """The call as a message of the history carries it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that a call has cost, as the server counts them; what it does not say is 0."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    """Tokens of the prompt that were in the prefix cache; vLLM says it with ``--enable-prompt-tokens-details``."""
    reasoning_tokens: int = 0
    """Tokens of the answer that were thinking; vLLM says it when it has a reasoning parser."""

    @classmethod
    def of(cls, counts: UsageCounts) -> Usage:
        """Read the server's count."""
        return cls(
            prompt_tokens=counts.get("prompt_tokens") or 0,
            completion_tokens=counts.get("completion_tokens") or 0,
            total_tokens=counts.get("total_tokens") or 0,
            cached_tokens=(counts.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            reasoning_tokens=(counts.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0,
        )

    def __add__(self, other: Usage) -> Usage:
        """What two requests have cost together."""
        return Usage(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from the start of the call, as the client saw them."""

    total: float = 0.0
    first_token: float | None = None
    """Until the first event of a stream; ``None`` for a plain call."""


@dataclass(frozen=True)
class Choice:
    """One answer; a reply has several when ``n`` asked for them."""

    index: int = 0
    text: str = ""
    """The answer, without the thinking and without tags."""
    reasoning: str = ""
    """The thinking, without tags; empty when the server sent none or stripped the tags from it."""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    """``stop``, ``length``, ``tool_calls``, ``content_filter``, …; ``None`` means that the answer is not complete."""
    stop_reason: int | str | None = None
    """vLLM: the token id or the string that ended the answer."""
    raw: str = field(default="", compare=False)
    """The content as the server sent it, tags and all; vLLM's parsers leave more of them in a stream."""
    refusal: str | None = None
    logprobs: dict[str, Any] | None = field(default=None, repr=False)
    token_ids: tuple[int, ...] | None = field(default=None, repr=False)
    reasoning_open: bool = field(default=False, repr=False)
    """The thinking began and never ended."""

    @property
    def complete(self) -> bool:
        """Whether the server said that the answer has ended."""
        return self.finish_reason is not None

    @cached_property
    def _reading(self) -> ActionCall | ActionError:
        if not self.complete:
            return ActionError("the answer is not complete: an action is never read from a part", code="truncated")
        try:
            split = Split(self.reasoning, self.text, self.reasoning_open)
            return read_split(split, self.raw or self.text, self.finish_reason)
        except ActionError as error:
            return error.with_traceback(None)  # it holds the frames of the call, and so all its screenshots

    @property
    def action(self) -> Action | None:
        """The phone action, or ``None`` when the answer holds no valid one; :attr:`action_error` then says why."""
        return self._reading.action if isinstance(self._reading, ActionCall) else None

    @property
    def action_call(self) -> ActionCall | None:
        """The action with what was found around it: thinking, further actions, warnings."""
        return self._reading if isinstance(self._reading, ActionCall) else None

    @property
    def action_error(self) -> ActionError | None:
        """Why there is no action; ``None`` when there is one."""
        return self._reading if isinstance(self._reading, ActionError) else None

    def expect_action(self) -> Action:
        """The phone action; raises :class:`ActionError` when there is none."""
        if isinstance(self._reading, ActionError):
            raise self._reading
        return self._reading.action


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A chat completion. Most users ask for one answer: its fields can be read from the reply itself."""

    choices: tuple[Choice, ...]
    usage: Usage | None = field(default=None, compare=False)
    """What the server counted; the same question twice finds another part of its prompt in the cache."""
    model: str = ""
    id: str = field(default="", compare=False)
    created: int | None = field(default=None, compare=False, repr=False)
    system_fingerprint: str | None = field(default=None, compare=False, repr=False)
    timing: Timing = field(default=Timing(), compare=False)
    attempts: int = field(default=1, compare=False)
    """How many times the request was sent."""
    resumed: bool = field(default=False, compare=False)
    """The answer was cut and gone on with (``resume=``); ``usage`` is of both requests then."""

    def __str__(self) -> str:
        return self.text

    @property
    def first(self) -> Choice:
        """The answer with the lowest index; an empty one when nothing has arrived."""
        return self.choices[0] if self.choices else Choice()

    @property
    def complete(self) -> bool:
        """Whether every answer has ended; only then does a call return."""
        return bool(self.choices) and all(choice.complete for choice in self.choices)

    @property
    def text(self) -> str:
        """The answer, without the thinking and without tags."""
        return self.first.text

    @property
    def reasoning(self) -> str:
        """The thinking, without tags."""
        return self.first.reasoning

    @property
    def action(self) -> Action | None:
        """The phone action, or ``None`` when the answer holds no valid one; :attr:`action_error` then says why."""
        return self.first.action

    @property
    def action_call(self) -> ActionCall | None:
        """The action with what was found around it: thinking, further actions, warnings."""
        return self.first.action_call

    @property
    def action_error(self) -> ActionError | None:
        """Why there is no action; ``None`` when there is one."""
        return self.first.action_error

    def expect_action(self) -> Action:
        """The phone action; raises :class:`ActionError` when there is none."""
        return self.first.expect_action()

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The native tool calls."""
        return self.first.tool_calls

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, in the server's word: ``stop``, ``length``, ``tool_calls`` or another."""
        return self.first.finish_reason

    @property
    def logprobs(self) -> dict[str, Any] | None:
        """Log probabilities as the server sent them, when asked for."""
        return self.first.logprobs

    @property
    def raw(self) -> str:
        """The content as the server sent it, tags and all."""
        return self.first.raw
