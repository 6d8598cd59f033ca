"""From the text of an answer to its action, or to the reason why there is none."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..errors import ActionError, ActionErrorCode
from ..reasoning import Split, split_reasoning
from ..repetition import is_repetitive
from .grammar import Value
from .search import Found, find_at_end, find_call
from .vocabulary import Action, Finish

__all__ = ["ActionCall", "parse_action", "read_action", "read_split"]

_FILTERED = {"content_filter", "sensitive"}  # OpenAI's word and BigModel's
_MODERATION = re.compile(
    r"系统检测到输入或生成内容可能包含不安全或敏感内容|(?:Input|Output) data may contain inappropriate content", re.I
)
_BARE_FINISH = re.compile(r"(?:\A|\n)[ \t]*finish[ \t]*[;；。.]?[\s`]*\Z", re.I)
_WRAPPER = re.compile(r"(?:```[\w-]{0,16}|`|<tool_call>)\s*\Z")  # what is left in front of a call that stood in it

_MESSAGES: dict[ActionErrorCode, str] = {
    "empty_response": "the answer is empty",
    "content_filtered": "a moderation filter replaced the answer",
    "repetition": "the model repeats itself and never calls an action",
    "truncated": "the answer was cut off before its action",
    "no_action": "the answer calls no action",
}


@dataclass(frozen=True, slots=True)
class ActionCall:
    """An action with everything found around it."""

    action: Action
    thinking: str
    """What the model thought first: its reasoning, and text that stood before the call."""
    source: str
    """The call as the model wrote it."""
    raw: str
    """The whole text that was read."""
    extra: dict[str, Value] = field(default_factory=dict, hash=False)
    """Keywords of the call that the action has no field for, such as ``clear=True``."""
    extra_actions: tuple[Action, ...] = ()
    """Actions that came after the first one, planned for a screen nobody has seen: do not execute them."""
    warnings: tuple[str, ...] = ()
    """What was unusual, and how it was read."""

    def params(self) -> dict[str, object]:
        """The parameters of the action together with the extra ones."""
        return {**self.action.params(), **self.extra}


def parse_action(text: str, *, finish_reason: str | None = None) -> Action:
    """The one action that an answer asks for; raises :class:`ActionError` when there is none.

    ``text`` may hold the model's tags and thinking. The ``finish_reason``, if known, tells a text that was cut off.
    """
    return read_action(text, finish_reason=finish_reason).action


def read_action(text: str, *, reasoning: str = "", finish_reason: str | None = None) -> ActionCall:
    """The action with what was found around it; ``reasoning`` is thinking that the server sent apart from the text.

    Raises only :class:`ActionError`: no error is ever read as ``Finish``, and no half text as a whole one.
    """
    return read_split(split_reasoning(text, reasoning=reasoning), text, finish_reason)


def read_split(split: Split, raw: str, finish_reason: str | None) -> ActionCall:
    """The same, where thinking and answer have been told apart already."""
    try:
        if finish_reason in _FILTERED:
            raise _error("content_filtered")
        return _read(split, raw, finish_reason)
    except ActionError as error:
        error.text = split.text if split.text.strip() else split.reasoning
        raise


def _read(split: Split, raw: str, finish_reason: str | None) -> ActionCall:
    in_answer = bool(split.text.strip())
    searched = split.text if in_answer else split.reasoning
    found = find_call(searched) if in_answer else find_at_end(searched)
    if found is None:
        return _read_without_call(split, raw, finish_reason)
    if finish_reason == "length" and found.call.guessed and found.call.end == len(searched.rstrip()):
        raise ActionError("the answer was cut off, and where its text ends is a guess", code="truncated")
    before = _WRAPPER.sub("", searched[: found.call.head.start].strip()).strip()
    thinking = [split.reasoning, before] if in_answer else [before]
    warnings = found.warnings if in_answer else (*found.warnings, "the call was found in the thinking")
    return _action_call(found, "\n".join(filter(None, thinking)), searched, raw, warnings)


def _action_call(found: Found, thinking: str, searched: str, raw: str, warnings: tuple[str, ...]) -> ActionCall:
    source = searched[found.call.head.start : found.call.end]
    return ActionCall(found.action, thinking, source, raw, found.extra, found.further, warnings)


def _read_without_call(split: Split, raw: str, finish_reason: str | None) -> ActionCall:
    bare = _BARE_FINISH.search(split.text)
    if bare and finish_reason != "length":
        before = _WRAPPER.sub("", split.text[: bare.start()].strip()).strip()
        return ActionCall(Finish(), "\n".join(filter(None, [split.reasoning, before])), bare[0].strip(), raw)
    raise _error(_why_none(split, finish_reason))


def _why_none(split: Split, finish_reason: str | None) -> ActionErrorCode:
    if not (split.text.strip() or split.reasoning.strip()):
        return "empty_response"
    if _MODERATION.search(split.text):
        return "content_filtered"
    if is_repetitive(f"{split.reasoning}\n{split.text}"):
        return "repetition"
    if finish_reason == "length" or (split.open and finish_reason is None):
        return "truncated"
    return "no_action"


def _error(code: ActionErrorCode) -> ActionError:
    return ActionError(_MESSAGES[code], code=code)
