"""The calls of a soak: what is asked, how a call is ended, and whether what came back is right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from random import Random
from typing import Any

from autoglm_client import (
    AsyncAutoGLM,
    AsyncReplyStream,
    AutoGLM,
    AutoGLMError,
    Cancelled,
    ChatOptions,
    ConnectionFailed,
    Event,
    InvalidReply,
    Messages,
    RateLimited,
    ReasoningDelta,
    Reply,
    ReplyStream,
    ServerFailed,
    TextDelta,
    TextWasReasoning,
    Timeouts,
    first_turn,
    image,
)
from server_stub.screen import draw_screen, place_buttons

KINDS = {
    "stream": 8,
    "chat": 6,
    "break": 4,
    "cancel": 4,
    "interrupt": 4,
    "deadline": 3,
    "picture": 4,
    "fresh": 3,
    "nobody": 1,
    "resume": 4,
}
"""What a call does, and how often.

To its end, streamed or not; left after some events; cancelled from elsewhere; left by an error of the user's, or its
task cancelled; given too little time; with a picture; with a client of its own; where nobody listens; resumed.
"""

SAME_EACH_TIME: ChatOptions = {"temperature": 0.0, "max_tokens": 120}
LATE_SECONDS = 2.0
NORMAL_ERRORS = (ConnectionFailed, RateLimited, ServerFailed, InvalidReply, Cancelled)


def questions() -> list[Messages]:
    """Short and long, and a picture at the end."""
    screen = draw_screen(360, 640, place_buttons(Random(7), 360, 640, ["red", "blue"]))
    texts = ["Open Settings", "打开微信", "Who are you?", "Type hello world", "Swipe up", "Think long about it"]
    return [*texts, [first_turn("Tap the red button", image(screen), {"current_app": "Demo"})]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """What all calls of a soak share."""

    url: str
    nobody: str
    """Where nobody listens."""
    api_key: str | None
    timeouts: Timeouts
    questions: list[Messages]


@dataclass(slots=True, kw_only=True)
class Plan:
    """One call: what it asks, and how it is to end."""

    number: int
    kind: str
    question: int
    messages: Messages
    options: dict[str, Any]
    streamed: bool
    seconds: float
    """How long it may take."""
    leaves_after: int | None = None
    ends_after: float | None = None
    url: str
    fresh: bool
    elsewhere: bool
    """Whether an async call is cancelled by another thread."""
    attempts: int | None = None


def plan_call(number: int, manner: Manner, chance: Random) -> Plan:
    """Draw a call."""
    kind = chance.choices([*KINDS], [*KINDS.values()])[0]
    last = len(manner.questions) - 1
    question = last if kind == "picture" else chance.randrange(last)
    plan = Plan(
        number=number,
        kind=kind,
        question=question,
        messages=manner.questions[question],
        options={**SAME_EACH_TIME, "extra_headers": {"x-soak": str(number)}, "timeout": manner.timeouts},
        streamed=kind not in {"chat"} and chance.random() < 0.8,
        seconds=manner.timeouts.total or 0.0,
        url=manner.nobody if kind == "nobody" else manner.url,
        fresh=kind in {"fresh", "nobody"},
        elsewhere=chance.random() < 0.5,
    )
    _add_end(plan, chance)
    return plan


def _add_end(plan: Plan, chance: Random) -> None:
    if plan.kind in {"break", "cancel", "resume"}:
        plan.streamed = True
    if plan.kind in {"break", "interrupt"}:
        plan.leaves_after = chance.randrange(1, 12)
    if plan.kind in {"cancel", "interrupt"}:
        plan.ends_after = chance.uniform(0, 1.5)
    if plan.kind == "deadline":
        plan.seconds = chance.uniform(0.02, 0.8)
        early = {"deadline": time.monotonic() + plan.seconds} if plan.elsewhere else {"timeout": plan.seconds}
        plan.options |= early
    if plan.kind == "resume":
        plan.options["resume"] = chance.choice(("auto", "always"))


class _LeftError(Exception):
    """The user's own error, in the middle of a stream."""


@dataclass(slots=True)
class _Seen:
    """What the events of a stream add up to."""

    text: str = ""
    reasoning: str = ""
    count: int = 0

    def take(self, event: Event) -> None:
        self.count += 1
        if isinstance(event, TextDelta):
            self.text += event.text
        elif isinstance(event, ReasoningDelta):
            self.reasoning += event.text
        elif isinstance(event, TextWasReasoning):
            self.reasoning += event.text
            self.text = ""


@dataclass(slots=True)
class Judge:
    """Knows the right answers. On a real server an answer may differ by itself; it must not be that of another."""

    right: list[Reply]
    exact: bool = True
    faults: bool = True
    differing: int = 0

    def of_reply(self, plan: Plan, reply: Reply) -> str:
        """Say ``reply``, or what is wrong about it."""
        right = self.right[plan.question]
        if reply == right and reply.raw == right.raw:
            return "reply resumed" if reply.resumed else "reply"
        return self._differs(f"another reply to question {plan.question}", reply)

    def of_part(self, plan: Plan, part: Reply | None) -> str:
        """An empty string when it is the beginning of the right answer."""
        if part is None or _begins(self.right[plan.question], part):
            return ""
        words = self._differs(f"no beginning of the answer to question {plan.question}", part)
        return words if words.startswith("wrong") else ""

    def of_error(self, plan: Plan, error: AutoGLMError) -> str:
        """Name the error, or say what is wrong about it."""
        if plan.attempts not in (None, error.attempts):
            return f"wrong: {error.attempts} attempts, the stream says {plan.attempts}: {type(error).__name__}: {error}"
        plan.attempts = error.attempts
        if not isinstance(error, NORMAL_ERRORS) or (isinstance(error, Cancelled) and plan.kind != "cancel"):
            return f"wrong: {type(error).__name__}: {error}"
        if error.partial is not None and error.partial.complete:
            return f"wrong: {error.category} with a complete answer"
        provoked = self.faults or plan.kind in {"deadline", "nobody", "cancel"}
        bad = "" if provoked else f"wrong: {type(error).__name__} though nothing was broken: {error}"
        word = "cancelled" if isinstance(error, Cancelled) else f"error: {error.category}"
        return self.of_part(plan, error.partial) or bad or word

    def _differs(self, words: str, reply: Reply) -> str:
        another = any(reply.first == it.first for it in self.right)
        if self.exact or another:
            return f"wrong: {words}: {reply.finish_reason} {reply.raw!r}"
        self.differing += 1
        return "reply that differs"


def _begins(whole: Reply, part: Reply) -> bool:
    return all(
        getattr(whole, name).startswith(getattr(part, name)) for name in ("text", "reasoning", "raw") if part.choices
    )


Later = Callable[[float, Callable[[], None]], object]


def ask(glm: AutoGLM, plan: Plan, manner: Manner, judge: Judge, later: Later) -> str:
    """Make one call from a thread."""
    own = AutoGLM(plan.url, api_key=manner.api_key) if plan.fresh else nullcontext(glm)
    try:
        with own as client:
            if not plan.streamed:
                reply = client.chat(plan.messages, **plan.options)
                plan.attempts = reply.attempts
                return judge.of_reply(plan, reply)
            stream = client.stream(plan.messages, **plan.options)
            if plan.kind == "cancel" and plan.ends_after is not None:
                later(plan.ends_after, stream.cancel)
            return _read(stream, plan, judge)
    except _LeftError:
        return "left by an error"
    except AutoGLMError as error:
        return judge.of_error(plan, error)


def _read(stream: ReplyStream, plan: Plan, judge: Judge) -> str:
    seen = _Seen()
    try:
        with stream:
            for event in stream:
                seen.take(event)
                if seen.count == plan.leaves_after:
                    if plan.kind == "interrupt":
                        raise _LeftError
                    break
    finally:
        plan.attempts = stream.partial.attempts
    return _read_result(stream, seen, plan, judge)


def _read_result(stream: ReplyStream | AsyncReplyStream, seen: _Seen, plan: Plan, judge: Judge) -> str:
    if seen.count == plan.leaves_after:
        return judge.of_part(plan, stream.partial) or "left by break"
    reply = stream.reply
    if (seen.text, seen.reasoning) != (reply.text, reply.reasoning):
        return f"wrong: the events say {seen}, the reply {reply}"
    return judge.of_reply(plan, reply)


async def ask_async(glm: AsyncAutoGLM, plan: Plan, manner: Manner, judge: Judge) -> str:
    """Make one call in a task of its own."""
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(_ask_async(glm, plan, manner, judge))
    if plan.kind == "interrupt" and plan.ends_after is not None:
        plan.leaves_after = None
        alarm = loop.call_later(plan.ends_after, task.cancel)
        await asyncio.wait({task})
        alarm.cancel()
        if task.cancelled():
            return "task cancelled"
    return await task


async def _ask_async(glm: AsyncAutoGLM, plan: Plan, manner: Manner, judge: Judge) -> str:
    own = AsyncAutoGLM(plan.url, api_key=manner.api_key) if plan.fresh else nullcontext(glm)
    try:
        async with own as client:
            if not plan.streamed:
                reply = await client.chat(plan.messages, **plan.options)
                plan.attempts = reply.attempts
                return judge.of_reply(plan, reply)
            stream = client.stream(plan.messages, **plan.options)
            if plan.kind == "cancel" and plan.ends_after is not None:
                _cancel_later(plan, plan.ends_after, stream.cancel)
            return await _read_async(stream, plan, judge)
    except AutoGLMError as error:
        return judge.of_error(plan, error)


def _cancel_later(plan: Plan, seconds: float, cancel: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    if plan.elsewhere:
        loop.call_later(seconds, loop.run_in_executor, None, cancel)
    else:
        loop.call_later(seconds, cancel)


async def _read_async(stream: AsyncReplyStream, plan: Plan, judge: Judge) -> str:
    seen = _Seen()
    try:
        async with stream:
            async for event in stream:
                seen.take(event)
                if plan.kind == "break" and seen.count == plan.leaves_after:
                    break
    finally:
        plan.attempts = stream.partial.attempts
    return _read_result(stream, seen, plan, judge)
