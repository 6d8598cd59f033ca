"""Bytes in, events out, a reply at the end: what a stream means, without any I/O.

A plain completion goes through the same hands as a stream of one chunk, so both give equal replies.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

from . import defaults
from ._resume import Beginning
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
from .repetition import RepetitionDetector
from .reply import Choice, Reply, Timing, ToolCall, Usage
from .wire import Chunk, ChunkChoice, Delta, ToolCallPart, UsageCounts, memory_for, reader

__all__ = ["Assembler"]

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape in JSON; in the group, half a character."""
_MENDABLE = 1024 * 1024  # characters; mending took 17 times as much memory
_PIECE = 32  # bytes

REPETITION = "repetition"
"""The ``finish_reason`` of an answer that this client ended because it repeated itself."""


_BROKEN_OFF = {"abort", "error", "network_error"}
"""What vLLM says of a request that it has aborted, or that failed inside; the last is BigModel's word."""


class Assembler:
    """Reads one answer: feed it the bytes of the body as they come, then close it.

    What they mean is appended to ``events``, for the caller to take from there. ``complete`` turns true with the last
    ``finish_reason``: from then on nothing can turn the answer into an error.
    """

    def __init__(
        self,
        *,
        n: int = 1,
        json: bool = False,
        stop_on_repetition: bool = False,
        max_event_bytes: int = defaults.MAX_EVENT_BYTES,
    ) -> None:
        self._n = n
        self._json = json
        self._stop_on_repetition = stop_on_repetition
        self._max_event_bytes = max_event_bytes
        self._sse = SSEDecoder(max_event_bytes)
        self._choices: dict[int, _ChoiceBuilder] = {}
        self._head: Chunk = {}
        self._begun = False
        self._usage: UsageCounts | None = None
        self._beginning: Beginning | None = None
        self._earlier_usage: Usage | None = None
        self._logprobs_bytes = 0
        self.events: deque[Event] = deque()
        self.ended = False
        """Whether the server itself has said that nothing more comes."""
        self.started = False
        """Whether anything of the answer has arrived; the role alone is nothing."""
        self._finished = 0
        self.tokens = 0
        """How many chunks have brought something; a keep-alive and the role alone bring nothing."""

    @property
    def stopped(self) -> bool:
        """Whether the answer was ended here, while the server would go on."""
        return (
            self._stop_on_repetition
            and self.complete
            and any(choice.finish_reason == REPETITION for choice in self._choices.values())
        )

    def feed(self, data: bytes) -> None:
        """Take the next bytes of a stream; raises when they hold an error, or no completion."""
        for text in self._sse.feed(data):
            if self.ended or not text:
                continue
            if text.startswith("[DONE]"):
                self.ended = True
                self.close()  # nothing else will come
            else:
                self._add(_decode(text), text)

    def feed_whole(self, body: bytes) -> None:
        """Take a completion that came in one piece."""
        chunk = _decode(body)
        self._add(chunk, body)
        if chunk.get("choices") is None:
            raise InvalidReply(f"the server's answer is not a chat completion: {_excerpt(body)}")

    def close(self) -> None:
        """The body has ended; :class:`StreamInterrupted` when the answer has not."""
        if not self.complete:
            raise StreamInterrupted(
                "the answer ended before it was complete (no finish_reason came); "
                "what had arrived is in the error's `partial`"
            )

    def beginning(self) -> Beginning:
        """What has come of an answer that was cut."""
        usage = self._usage or {}
        prompt, tokens = usage.get("prompt_tokens"), usage.get("completion_tokens") or self.tokens
        return Beginning(
            words="".join(choice.words for choice in self._choices.values()),
            answers=len(self._choices),
            thought=all(choice.thought for choice in self._choices.values()),
            calls_tools=any(choice.calls_tools for choice in self._choices.values()),
            tokens=tokens,
            prompt_tokens=prompt and prompt + tokens,
            model=self._head.get("model"),
            system_fingerprint=self._head.get("system_fingerprint"),
        )

    def go_on(self) -> None:
        """What is fed from now on is the rest of the answer, from a request of its own."""
        self._beginning = self.beginning()
        self._sse = SSEDecoder(self._max_event_bytes)
        self._begun = self.ended = False
        self._earlier_usage, self._usage = self._counted(), None

    def reply(self, timing: Timing | None = None, attempts: int = 1) -> Reply:
        """All that has arrived, complete or not."""
        return Reply(
            choices=tuple(choice.build() for _, choice in sorted(self._choices.items()) if self._is_asked_for(choice)),
            usage=self._counted(),
            resumed=self._beginning is not None,
            model=self._head.get("model") or "",
            id=self._head.get("id") or "",
            created=self._head.get("created"),
            system_fingerprint=self._head.get("system_fingerprint"),
            timing=timing or Timing(),
            attempts=attempts,
        )

    def _add(self, chunk: Chunk, text: bytes | str) -> None:
        if chunk.get("error") or chunk.get("object") == "error":
            raise status_error(0, chunk, text=_start(text, defaults.MAX_ERROR_BYTES))
        if not self._begun and chunk.get("id"):
            self._begin(chunk)
        if (usage := chunk.get("usage")) is not None:
            self._usage = usage
        logprobs = False
        for choice in chunk.get("choices") or ():
            index = choice.get("index") or 0
            builder = self._choices.get(index)
            if builder is None:
                if self.complete:  # one that nobody asked for, too late to make the answer incomplete
                    continue
                _check(len(self._choices), max(self._n, defaults.MAX_PARTS), "choices")
                splitter = ReasoningSplitter(json=self._json)
                builder = _ChoiceBuilder(index, splitter, self._stop_on_repetition, self.events.append)
                self._choices[index] = builder
            if builder.finish_reason is None:
                logprobs = logprobs or bool(choice.get("logprobs"))
                if choice.get("finish_reason") in _BROKEN_OFF:
                    self._break_off(builder, choice)
                self.tokens += builder.add(choice)
                self._finished += builder.finish_reason is not None
        if logprobs:
            self._logprobs_bytes += memory_for(text)
            _check(self._logprobs_bytes, defaults.MAX_TREE_BYTES, "bytes of logprobs")
        self.started = self.started or self.tokens > 0

    def _break_off(self, builder: _ChoiceBuilder, choice: ChunkChoice) -> NoReturn:
        self.tokens += builder.add({**choice, "finish_reason": None})
        self.started, self.ended = self.started or self.tokens > 0, True
        raise StreamInterrupted(f"the server broke the answer off (finish_reason {choice.get('finish_reason')!r})")

    def _begin(self, chunk: Chunk) -> None:
        if self._beginning is not None:
            self._beginning.check(chunk)
        self._begun = True
        self._head = self._head or chunk

    def _counted(self) -> Usage | None:
        usage = None if self._usage is None else Usage.of(self._usage)
        if usage and self._beginning and self._beginning.thought:
            usage = replace(usage, reasoning_tokens=0)  # vLLM's parser takes the rest of an answer for thinking
        return usage + self._earlier_usage if usage and self._earlier_usage else usage or self._earlier_usage

    @property
    def complete(self) -> bool:
        """Whether every answer that was asked for has a ``finish_reason``."""
        return self._finished >= self._n and (self._finished == len(self._choices) or self._only_first)

    @property
    def _only_first(self) -> bool:
        """Whether the one answer that was asked for is there, whatever others there are."""
        return self._n == 1 and 0 in self._choices and self._choices[0].finish_reason is not None

    def _is_asked_for(self, choice: _ChoiceBuilder) -> bool:
        return choice.finish_reason is not None or not self.complete


def _decode(text: bytes | str) -> Chunk:
    try:
        chunk: Chunk = reader(Chunk)(text)
    except ValueError as error:
        chunk = _decode_mended(text, error)
    return chunk


def _decode_mended(text: bytes | str, error: ValueError) -> Chunk:
    """Servers that count in UTF-16 cut a character in two: its halves are no JSON, but no reason to lose the rest."""
    if len(text) <= _MENDABLE:
        data = text.encode() if isinstance(text, str) else text
        mended = _ESCAPE.sub(lambda match: rb"\ufffd" if match[1] else match[0], data)
        with suppress(ValueError):
            chunk: Chunk = reader(Chunk)(mended)
            return chunk
    raise InvalidReply(f"the server sent no chat completion: {_problem(error)}: {_excerpt(text)}") from None


def _problem(error: ValueError) -> str:
    from pydantic import ValidationError  # which has been imported by now

    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, [".".join(map(str, problem["loc"])), problem["msg"]]))


def _check(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise InvalidReply(f"the server's answer has more than {limit} {what}")


def _excerpt(text: bytes | str) -> str:
    return _start(text, 200).strip() or "(empty)"


def _start(text: bytes | str, size: int) -> str:
    return text[:size] if isinstance(text, str) else text[:size].decode("utf-8", "replace")


class _ChoiceBuilder:
    """One answer in the making."""

    def __init__(
        self, index: int, splitter: ReasoningSplitter, stop_on_repetition: bool, emit: Callable[[Event], None]
    ) -> None:
        self._index = index
        self._splitter = splitter
        self._stop_on_repetition = stop_on_repetition
        self._emit = emit
        self._scanner = ActionScanner()
        self._detector = RepetitionDetector()
        self._repeats = False
        self._action: Action | None = None
        self._action_told = False
        self._raw: list[str] = []
        self._raw_reasoning: list[str] = []
        self._refusal: list[str] = []
        self._tool_calls: dict[int, _ToolCallBuilder] = {}
        self._tool_call_places: dict[int, int] = {}
        self._logprobs: dict[str, Any] = {}
        self._token_ids: list[int] = []
        self._stop_reason: int | str | None = None
        self._size = 0
        self.finish_reason: str | None = None

    def add(self, choice: ChunkChoice) -> bool:
        """Take a chunk; false when it brings nothing."""
        delta = choice.get("delta") or choice.get("message") or {}
        self._keep_details(choice, delta)
        if reasoning := delta.get("reasoning") or delta.get("reasoning_content"):  # vLLM's name, and an older one
            self._raw_reasoning.append(reasoning)
            pieces = self._splitter.feed(reasoning, reasoning=True)
            self._count(reasoning, len(pieces))
            self._add_pieces(pieces)
        if content := delta.get("content"):
            self._raw.append(content)
            pieces = self._splitter.feed(content)
            self._count(content, len(pieces))
            self._add_pieces(pieces)
        for position, part in enumerate(delta.get("tool_calls") or ()):
            self._add_tool_call(part, position)
        if self._repeats and self._stop_on_repetition:
            self._finish(REPETITION)
        elif reason := choice.get("finish_reason"):
            self._finish(reason)
        return bool(reasoning or content or delta.get("tool_calls") or self.finish_reason)

    @property
    def words(self) -> str:
        """What the model wrote, also where the server has taken the thinking out."""
        reasoning, text = "".join(self._raw_reasoning), "".join(self._raw)
        if not reasoning:
            return text
        return f"<think>{reasoning.removeprefix('<think>')}" + (
            f"</think>{text.removeprefix('</think>')}" if text else ""
        )

    @property
    def thought(self) -> bool:
        """Whether the thinking is over."""
        return self._splitter.announced

    @property
    def calls_tools(self) -> bool:
        """Whether a native tool call has begun."""
        return bool(self._tool_calls)

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

    def _keep_details(self, choice: ChunkChoice, delta: Delta) -> None:
        if (stop_reason := choice.get("stop_reason")) is not None:
            self._stop_reason = stop_reason
        for key, value in (choice.get("logprobs") or {}).items():
            if isinstance(value, list):
                self._logprobs.setdefault(key, []).extend(value)
        if token_ids := choice.get("token_ids"):
            self._count("", len(token_ids))
            self._token_ids += token_ids
        if refusal := delta.get("refusal"):
            self._refusal.append(refusal)

    def _add_pieces(self, pieces: list[Piece]) -> None:
        for kind, text in pieces:
            if kind == "was_reasoning":
                self._scanner = ActionScanner()
                self._action = None
                self._emit(TextWasReasoning(text, self._index))
                continue
            if kind == "text":
                self._emit(TextDelta(text, self._index))
                self._action = self._scanner.feed(text) or self._action
            else:
                self._emit(ReasoningDelta(text, self._index))
            if not self._repeats and self._detector.feed(text):
                self._repeats = True
                self._emit(RepetitionDetected(text, self._index))
        if self._action is not None and self._splitter.announced:  # else an orphan tag may still make it thinking
            self._tell(self._action)

    def _tell(self, action: Action | None) -> None:
        if action is not None and not self._action_told:
            self._action_told = True
            self._emit(ActionReady(action, self._index))

    def _add_tool_call(self, part: ToolCallPart, position: int) -> None:
        function = part.get("function") or {}
        arguments = function.get("arguments") or ""
        index = self._tool_call_place(part, position, named=bool(function.get("name")))
        self._count(arguments, 1)
        _check(len(self._tool_calls), defaults.MAX_PARTS, "tool calls")
        call = self._tool_calls.setdefault(index, _ToolCallBuilder())
        call.add(part.get("id"), function.get("name"), arguments)
        self._emit(ToolCallDelta(index, part.get("id"), function.get("name"), arguments, self._index))

    def _tool_call_place(self, part: ToolCallPart, position: int, *, named: bool) -> int:
        """Some servers give no index, or every call the same one: a name with another id is of another call, too."""
        index = part.get("index")
        index = position if index is None else index
        place = self._tool_call_places.get(index)
        if place is None or (named and self._tool_calls[place].is_not(part.get("id"))):
            place = index if index not in self._tool_calls else max(self._tool_calls) + 1
            self._tool_call_places[index] = place
        return place

    def _count(self, text: str, pieces: int) -> None:
        """Refuse what no model says, by the memory that it takes: a token costs more than its characters."""
        self._size += text.__sizeof__() + _PIECE * pieces
        _check(self._size, defaults.MAX_TEXT_BYTES, "bytes of text")

    def _finish(self, reason: str) -> None:
        self._add_pieces(self._splitter.close())
        self.finish_reason = reason
        if not self._action_told:
            self._tell(self.build().action)
        self._emit(Finished(reason, self._index))


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

    def is_not(self, call_id: str | None) -> bool:
        return bool(self._id and call_id and self._id != call_id)

    def build(self) -> ToolCall:
        return ToolCall(self._id, self._name, "".join(self._arguments))
