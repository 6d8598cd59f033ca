"""Whether what came back is right."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from autoglm_client import AsyncReplyStream, AutoGLMError, Event, Reply, ReplyStream, errors, events

from .plans import LeftError, Plan

NORMAL = (errors.ConnectionFailed, errors.RateLimited, errors.ServerFailed, errors.InvalidReply, errors.Cancelled)
FAILING_KINDS = {"deadline", "nobody", "cancel"}


def added_up(heard: list[Event]) -> tuple[str, str]:
    """The text and the reasoning that the events of a stream add up to."""
    text = reasoning = ""
    for event in heard:
        match event:
            case events.TextDelta(more):
                text += more
            case events.ReasoningDelta(more):
                reasoning += more
            case events.TextWasReasoning(more):
                text, reasoning = "", reasoning + more
    return text, reasoning


@dataclass(slots=True)
class Judge:
    """Knows the right replies, and names the end of a call: "wrong: ..." where it is none that may be."""

    right: list[Reply]
    exact: bool
    """Whether no reply may differ. A real server's may, by itself; but none may be that to another question."""
    faults: bool
    """Whether calls may fail that nobody made fail."""
    differing: int = 0

    def of_stream(self, plan: Plan, stream: ReplyStream | AsyncReplyStream, heard: list[Event]) -> str:
        """Name the end of a stream that raised nothing."""
        if len(heard) == plan.leaves_after:
            return self._of_part(plan, stream.partial) or "left by break"
        if added_up(heard) != (stream.reply.text, stream.reply.reasoning):
            return f"wrong: the events say {added_up(heard)}, the reply {stream.reply}"
        return self.of_reply(plan, stream.reply)

    def of_reply(self, plan: Plan, reply: Reply) -> str:
        """Name the end of a call that returned a reply."""
        plan.attempts = reply.attempts
        right = self.right[plan.question]
        if reply == right and reply.raw == right.raw:
            return "reply resumed" if reply.resumed else "reply"
        return self._differs(f"another reply to question {plan.question}", reply) or "reply that differs"

    def of_error(self, plan: Plan, error: BaseException) -> str:
        """Name the end of a call that raised."""
        if isinstance(error, LeftError):
            return "left by an error"
        if type(error) is TimeoutError and plan.kind == "task cancel":
            return "task cancelled"
        if isinstance(error, NORMAL):
            wrong = self._amiss(plan, error)
            plan.attempts = error.attempts
            if not wrong:
                return self._of_part(plan, error.partial) or f"error: {error.category}"
        else:
            wrong = "no error that should come"
        return f"wrong: {wrong}: {''.join(traceback.format_exception(error, limit=-3))[-600:]}"

    def _amiss(self, plan: Plan, error: AutoGLMError) -> str:
        if plan.attempts not in (None, error.attempts):
            return f"{error.attempts} attempts, the stream says {plan.attempts}"
        if isinstance(error, errors.Cancelled) and plan.kind != "cancel":
            return "nobody cancelled it"
        if not self.faults and plan.kind not in FAILING_KINDS:
            return "nothing was broken"
        return "a complete answer" if error.partial is not None and error.partial.complete else ""

    def _of_part(self, plan: Plan, part: Reply | None) -> str:
        """An empty string when it is the beginning of the right reply."""
        if part is None or not part.choices:
            return ""
        right = self.right[plan.question]
        if all(getattr(right, name).startswith(getattr(part, name)) for name in ("text", "reasoning", "raw")):
            return ""
        return self._differs(f"no beginning of the reply to question {plan.question}", part)

    def _differs(self, words: str, reply: Reply) -> str:
        """An empty string when the server may have said this, by itself."""
        if self.exact or any(reply.first == it.first for it in self.right):
            return f"wrong: {words}: {reply.finish_reason} {reply.raw!r}"
        self.differing += 1
        return ""
