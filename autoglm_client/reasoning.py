"""Tell the thinking from the answer, in one pass, however the text is cut.

The same model answers in many shapes: ``<think>…</think><answer>…</answer>``, with tags missing, doubled or stripped,
with the thinking in a field of its own (``reasoning``, ``reasoning_content``), or with the tags inside that field. All
of them are read by one small machine with four sections:

======== ============================================== =================
section  entered by                                     what is in it
======== ============================================== =================
start    the first character                            text, so far
think    ``<think>``, or the server's reasoning field   reasoning
after    ``</think>``, or the end of that field         text
answer   ``<answer>`` or ``<ans>``                      text
======== ============================================== =================

"So far": when ``</think>`` or ``<answer>`` turns up behind text that nothing had announced, that text was the thinking.
What was already given out cannot be taken back, so a piece of the kind ``"was_reasoning"`` says it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Piece", "ReasoningSplitter", "Split", "split_reasoning"]

_ANSWER_OPEN = ("<answer>", "<ans>")
_ANSWER_CLOSE = ("</answer>", "</ans>")
_DROPPED = (
    "<|begin_of_box|>",
    "<|end_of_box|>",
    "<|endoftext|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|system|>",
)
_TAGS = ("<think>", "</think>", *_ANSWER_OPEN, *_ANSWER_CLOSE, *_DROPPED)
_TAG = re.compile("|".join(map(re.escape, _TAGS)))
_UNFINISHED = frozenset(tag[:size] for tag in _TAGS for size in range(1, len(tag)))
_LONGEST = max(map(len, _TAGS))
_BLANK = " \t\r\n"  # not str.isspace: an ideographic space indents Chinese paragraphs


class Piece(NamedTuple):
    """Something new: more reasoning, more text, or that all text so far ``was_reasoning``.

    ``text`` is what to append to the one or the other, so that the pieces add up to the whole.
    """

    kind: Literal["reasoning", "text", "was_reasoning"]
    text: str


@dataclass(frozen=True, slots=True)
class Split:
    """A whole answer, taken apart."""

    reasoning: str
    text: str
    open: bool
    """The thinking began and never ended."""


class ReasoningSplitter:
    """The incremental form: feed it any cuts of an answer, then close it.

    Blanks next to a tag belong to the layout and are dropped; elsewhere every character is kept. A tag that is cut in
    two is held back until the rest of it comes.

    With ``json``, an answer that begins as a JSON document outside of ``<answer>`` is kept as it is: what looks like a
    tag in its strings is none.
    """

    def __init__(self, *, json: bool = False) -> None:
        self._json = json
        self._in_json = False
        self._section: Literal["start", "think", "after", "answer"] = "start"
        self._in_field = False
        self._field_split = False  # a tag inside the server's reasoning field ended the thinking
        self._held = ""
        self._blanks: list[str] = []
        self._boundary = False
        self._reasoning: list[str] = []
        self._text: list[str] = []

    def feed(self, text: str, *, reasoning: bool = False) -> list[Piece]:
        """Take the next cut; ``reasoning`` when it came in the server's own field for that."""
        pieces: list[Piece] = []
        if not text:
            return pieces
        if reasoning is not self._in_field:
            self._change_field(reasoning, pieces)
        if self._held:
            text, self._held = self._held + text, ""
        if "<" in text or self._json:
            text = self._read_tags(text, pieces)
        self._emit(text, pieces)
        return pieces

    def close(self) -> list[Piece]:
        """Give out what was held back; blanks at the end are kept only where no tag was seen."""
        pieces: list[Piece] = []
        held, self._held = self._held, ""
        self._emit(held, pieces)
        blanks = "".join(self._blanks)
        self._blanks.clear()
        if blanks and self._section == "start":
            self._append("text", blanks, pieces)
        return pieces

    @property
    def announced(self) -> bool:
        """Whether a tag or a field has told thinking from answer: from then on text stays text."""
        return self._section in {"after", "answer"}

    def split(self) -> Split:
        """All that was given out so far."""
        return Split("".join(self._reasoning), "".join(self._text), open=self._section == "think")

    def _change_field(self, reasoning: bool, pieces: list[Piece]) -> None:
        held, self._held = self._held, ""
        self._emit(held, pieces)
        self._in_field = reasoning
        if reasoning and not self._field_split:
            self._enter("think")
        elif not reasoning and self._section == "think":
            self._enter("after")

    def _read_tags(self, text: str, pieces: list[Piece]) -> str:
        """Act on every whole tag, hold back one that may be unfinished, return the rest."""
        position = 0
        for match in _TAG.finditer(text):
            between = text[position : match.start()]
            if self._is_json(between):
                return text[position:]
            self._emit(between, pieces)
            self._act_on(match.group(), pieces)
            position = match.end()
        if self._is_json(text[position:]):
            return text[position:]
        cut = text.rfind("<", max(position, len(text) - _LONGEST))
        if cut >= 0 and text[cut:] in _UNFINISHED:
            self._held = text[cut:]
            return text[position:cut]
        return text[position:]

    def _is_json(self, text: str) -> bool:
        """Whether a JSON document has begun, now or before."""
        if self._json and not self._text and self._section in {"start", "after"}:
            self._in_json = text.lstrip(_BLANK).startswith(("{", "["))
        return self._in_json

    def _act_on(self, tag: str, pieces: list[Piece]) -> None:
        if tag == "<think>":
            self._enter("think")
        elif tag == "</think>":
            self._end_thinking(pieces)
        elif tag in _ANSWER_OPEN:
            self._reclassify(pieces)
            self._enter("answer")
        elif tag in _ANSWER_CLOSE and self._section == "answer":
            self._blanks.clear()
            self._boundary = True  # what follows is not part of the call
        self._field_split = self._field_split or (self._in_field and self.announced)

    def _end_thinking(self, pieces: list[Piece]) -> None:
        if self._section in {"start", "think"}:
            self._reclassify(pieces)
            self._enter("after")

    def _reclassify(self, pieces: list[Piece]) -> None:
        if self._section == "start" and self._text:
            text = "".join(self._text)
            self._text.clear()
            self._append("was_reasoning", text, pieces)

    def _enter(self, section: Literal["think", "after", "answer"]) -> None:
        if section != self._section:
            self._section = section
            self._blanks.clear()
            self._boundary = True

    def _emit(self, text: str, pieces: list[Piece]) -> None:
        if self._boundary:
            text = text.lstrip(_BLANK)
        body = text.rstrip(_BLANK)
        if body:
            blanks = "".join(self._blanks)
            self._blanks.clear()
            self._append("reasoning" if self._section == "think" else "text", blanks + body, pieces)
        if len(body) < len(text):
            self._blanks.append(text[len(body) :])

    def _append(self, kind: Literal["reasoning", "text", "was_reasoning"], text: str, pieces: list[Piece]) -> None:
        whole = self._text if kind == "text" else self._reasoning
        if self._boundary and whole and kind == "text":
            text = "\n" + text  # a second answer: its call starts a line of its own
        self._boundary = False
        whole.append(text)
        pieces.append(Piece(kind, text))


def split_reasoning(text: str, *, reasoning: str = "") -> Split:
    """Take a whole answer apart; ``reasoning`` is what the server sent in its own field for that, if anything."""
    splitter = ReasoningSplitter()
    if reasoning:
        splitter.feed(reasoning, reasoning=True)
    splitter.feed(text)
    splitter.close()
    return splitter.split()
