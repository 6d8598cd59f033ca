"""What a stream tells while it runs: frozen, tagged events to ``match`` on.

``choice`` is the index of the answer when several were asked for (``n=2``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .actions import Action

__all__ = [
    "ActionReady",
    "Event",
    "Finished",
    "ReasoningDelta",
    "RepetitionDetected",
    "TextDelta",
    "TextWasReasoning",
    "ToolCallDelta",
]


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the thinking."""

    text: str
    choice: int = 0
    type: Literal["reasoning"] = "reasoning"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer."""

    text: str
    choice: int = 0
    type: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class TextWasReasoning:
    """All the text so far was thinking: a closing tag came whose opening tag had not.

    ``text`` is what the reasoning grows by; the answer begins anew.
    """

    text: str
    choice: int = 0
    type: Literal["text_was_reasoning"] = "text_was_reasoning"


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a native tool call; ``id`` and ``name`` come with its first fragment."""

    index: int
    id: str | None
    name: str | None
    arguments: str
    choice: int = 0
    type: Literal["tool_call"] = "tool_call"


@dataclass(frozen=True, slots=True)
class ActionReady:
    """The phone action is complete; what follows in the stream cannot change it, only a content filter withdraw it."""

    action: Action
    choice: int = 0
    type: Literal["action"] = "action"


@dataclass(frozen=True, slots=True)
class RepetitionDetected:
    """The model repeats itself; ``text`` is the end of what it said. It comes once for each answer."""

    text: str
    choice: int = 0
    type: Literal["repetition"] = "repetition"


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete; ``reason`` is the server's word for why: ``stop``, ``length``, ``tool_calls``."""

    reason: str
    choice: int = 0
    type: Literal["finished"] = "finished"


Event = ReasoningDelta | TextDelta | TextWasReasoning | ToolCallDelta | ActionReady | RepetitionDetected | Finished
