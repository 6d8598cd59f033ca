"""Bytes in, events out, a reply at the end: what a stream means, without any I/O.

A plain completion goes through the same hands as a stream of one chunk, so both give equal replies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from . import defaults
from ._sse import SSEDecoder
from ._status import status_error
from .actions import Action, ActionScanner
from .errors import InvalidReply, StreamInterrupted
from .events import (
    ActionReady,
    Event,
    Finished,
    ReasoningDelta,
    RepetitionDetected,
    TextDelta,
    TextWasReasoning,
    ToolCallDelta,
)
from .reasoning import Piece, ReasoningSplitter
from .reply import Choice, Reply, Timing, ToolCall
from .repetition import RepetitionDetector
from .wire import Chunk, ChunkChoice, Delta, ToolCallPart, Usage

__all__ = ["Assembler"]

REPETITION = "repetition"
"""The ``finish_reason`` of an answer that this client ended because it repeated itself."""


class Assembler:
    """Reads one answer: feed it the bytes of the body as they come, then close it.

    ``complete`` turns true with the last ``finish_reason``: from then on nothing can turn the answer into an error.
    """

    def __init__(
        self, *, n: int = 1, stop_on_repetition: bool = False, max_event_bytes: int = defaults.MAX_EVENT_BYTES
    ) -> None:
        self._n = n
        self._stop_on_repetition = stop_on_repetition
        self._sse = SSEDecoder(max_event_bytes)
        self._choices: dict[int, _ChoiceBuilder] = {}
        self._last = Chunk()
        self._usage: Usage | None = None
        self.chunks = 0
        """How many chunks have come; a keep-alive is none."""
        self.started = False
        """Whether anything of the answer has arrived; the role alone is nothing."""
        self.ended = False
        """Whether the server said that nothing more will come."""

    @property
    def stopped(self) -> bool:
        """Whether the answer was ended here, while the server would go on."""
        return self.complete and any(choice.finish_reason == REPETITION for choice in self._choices.values())

    @property
    def complete(self) -> bool:
        """Whether every answer that was asked for has a ``finish_reason``."""
        finished = sum(choice.finish_reason is not None for choice in self._choices.values())
        return finished >= self._n and finished == len(self._choices)

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes of a stream, yield what they mean; raises when they hold an error or no completion."""
        for text in self._sse.feed(data):
            if text.strip() == "[DONE]":
                self.ended = True
            elif text.strip() and not self.ended:
                yield from self.add(_decode(text))

    def add(self, chunk: Chunk) -> Iterator[Event]:
        """Take a decoded chunk."""
        self.chunks += 1
        if chunk.error or chunk.object == "error":
            raise status_error(0, chunk.model_dump(include={"error", "message", "type", "code"}))
        if chunk.id or chunk.model:
            self._last = chunk
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            builder = self._choices.get(choice.index)
            if builder is None:
                builder = self._choices[choice.index] = _ChoiceBuilder(choice.index, self._stop_on_repetition)
            for event in builder.add(choice):
                self.started = True
                yield event

    def feed_whole(self, body: bytes) -> Iterator[Event]:
        """Take a completion that came in one piece."""
        chunk = _decode(body)
        yield from self.add(chunk)
        if chunk.choices is None:
            raise InvalidReply(f"the server's answer is not a chat completion: {_excerpt(body)}")

    def close(self) -> None:
        """The body has ended; :class:`StreamInterrupted` when the answer has not."""
        if not self.complete:
            raise StreamInterrupted(
                "the answer ended before it was complete (no finish_reason came); "
                "what had arrived is in the error's `partial`"
            )

    def reply(self, timing: Timing | None = None, attempts: int = 1) -> Reply:
        """All that has arrived, complete or not."""
        return Reply(
            choices=tuple(self._choices[index].build() for index in sorted(self._choices)),
            usage=self._usage,
            model=self._last.model or "",
            id=self._last.id or "",
            created=self._last.created,
            system_fingerprint=self._last.system_fingerprint,
            timing=timing or Timing(),
            attempts=attempts,
        )


def _decode(text: bytes | str) -> Chunk:
    try:
        return Chunk.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the body"
        raise InvalidReply(f"the server sent no chat completion: {where}: {problem['msg']}: {_excerpt(text)}") from None


def _excerpt(text: bytes | str) -> str:
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return text[:200].strip() or "(empty)"


class _ChoiceBuilder:
    """One answer in the making."""

    def __init__(self, index: int, stop_on_repetition: bool) -> None:
        self._index = index
        self._stop_on_repetition = stop_on_repetition
        self._splitter = ReasoningSplitter()
        self._scanner = ActionScanner()
        self._detector = RepetitionDetector()
        self._repeats = False
        self._action: Action | None = None
        self._action_told = False
        self._raw: list[str] = []
        self._refusal: list[str] = []
        self._tool_calls: dict[int, _ToolCallBuilder] = {}
        self._logprobs: dict[str, Any] = {}
        self._token_ids: list[int] = []
        self._stop_reason: int | str | None = None
        self.finish_reason: str | None = None

    def add(self, choice: ChunkChoice) -> Iterator[Event]:
        if self.finish_reason is not None:
            return
        delta = choice.message if choice.delta is None else choice.delta
        self._keep_details(choice, delta)
        if delta is not None:
            yield from self._add_delta(delta)
        if self._repeats and self._stop_on_repetition:
            yield from self._finish(REPETITION)
        elif choice.finish_reason:
            yield from self._finish(choice.finish_reason)

    def build(self) -> Choice:
        split = self._splitter.split()
        return Choice(
            index=self._index,
            text=split.text,
            reasoning=split.reasoning,
            tool_calls=tuple(self._tool_calls[index].build() for index in sorted(self._tool_calls)),
            finish_reason=self.finish_reason,
            stop_reason=self._stop_reason,
            raw="".join(self._raw),
            refusal="".join(self._refusal) or None,
            logprobs=self._logprobs or None,
            token_ids=tuple(self._token_ids) or None,
            reasoning_open=split.open,
        )

    def _keep_details(self, choice: ChunkChoice, delta: Delta | None) -> None:
        if choice.stop_reason is not None:
            self._stop_reason = choice.stop_reason
        for key, value in (choice.logprobs or {}).items():
            if isinstance(value, list):
                self._logprobs.setdefault(key, []).extend(value)
        self._token_ids += choice.token_ids or ()
        if delta is not None and delta.refusal:
            self._refusal.append(delta.refusal)

    def _add_delta(self, delta: Delta) -> Iterator[Event]:
        reasoning = delta.reasoning or delta.reasoning_content  # vLLM's name, and the one of older servers
        if reasoning:
            yield from self._events(self._splitter.feed(reasoning, reasoning=True))
        if delta.content:
            self._raw.append(delta.content)
            yield from self._events(self._splitter.feed(delta.content))
        for position, part in enumerate(delta.tool_calls or ()):
            yield self._add_tool_call(part, position)

    def _events(self, pieces: list[Piece]) -> Iterator[Event]:
        for kind, text in pieces:
            if kind == "text":
                yield TextDelta(text, self._index)
                self._action = self._scanner.feed(text) or self._action
            elif kind == "reasoning":
                yield ReasoningDelta(text, self._index)
            else:
                self._scanner = ActionScanner()
                self._action = None
                yield TextWasReasoning(text, self._index)
                continue
            if not self._repeats and self._detector.feed(text):
                self._repeats = True
                yield RepetitionDetected(text, self._index)
        if self._splitter.announced:  # before that, an orphan tag may still turn the call into thinking
            yield from self._tell(self._action)

    def _tell(self, action: Action | None) -> Iterator[ActionReady]:
        if action is not None and not self._action_told:
            self._action_told = True
            yield ActionReady(action, self._index)

    def _add_tool_call(self, part: ToolCallPart, position: int) -> ToolCallDelta:
        index = position if part.index is None else part.index
        call = self._tool_calls.setdefault(index, _ToolCallBuilder())
        name = part.function.name if part.function else None
        arguments = (part.function.arguments if part.function else None) or ""
        call.add(part.id, name, arguments)
        return ToolCallDelta(index, part.id, name, arguments, self._index)

    def _finish(self, reason: str) -> Iterator[Event]:
        yield from self._events(self._splitter.close())
        self.finish_reason = reason
        if not self._action_told:
            yield from self._tell(self.build().action)
        yield Finished(reason, self._index)


class _ToolCallBuilder:
    """One tool call in the making."""

    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []

    def add(self, call_id: str | None, name: str | None, arguments: str) -> None:
        self._id = self._id or call_id or ""
        self._name = self._name or name or ""
        self._arguments.append(arguments)

    def build(self) -> ToolCall:
        return ToolCall(self._id, self._name, "".join(self._arguments))
