"""The phone action of an answer as an output parser: ``model | ActionOutputParser()``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import BaseTransformOutputParser
from langchain_core.outputs import ChatGeneration, Generation

from .. import Action, ActionError, read_action
from ..actions import ActionScanner
from ..prompts import ACTIONS_EN
from ..reasoning import ReasoningSplitter

__all__ = ["ActionOutputParser"]

_INSTRUCTIONS = f"Answer with one action, written exactly like one of these.\n\n{ACTIONS_EN}"


class ActionOutputParser(BaseTransformOutputParser[Action]):
    """Read the answer's phone action, a `Tap`, a `Launch` or another: ``match`` on its class.

    It takes messages, of `ChatAutoGLM` or of any model that writes such actions, and strings, with the model's tags or
    without. In a stream the action comes once, as soon as nothing that may follow can change it. An action is never
    read from thinking that an answer follows, nor from a part of an answer that was cut off.

    Raises ``OutputParserException`` when there is no action: its message begins with the ``code`` of the `ActionError`
    that is its cause, and its ``observation`` tells the model what to write instead.
    """

    def parse(self, text: str) -> Action:
        """Read the action of an answer."""
        return self.parse_result([Generation(text=text)])

    def parse_result(self, result: list[Generation], *, partial: bool = False) -> Action:
        """Read the action of the first of the answers; of a ``partial`` one, ``None`` while it is not certain."""
        first, reader = result[0], _Reader()
        action = reader.take(first.message if isinstance(first, ChatGeneration) else first.text)
        return action if partial else reader.close()  # type: ignore[return-value]  # as in LangChain's own parsers

    async def aparse_result(self, result: list[Generation], *, partial: bool = False) -> Action:
        """Do the same; there is nothing to wait for."""
        return self.parse_result(result, partial=partial)

    def get_format_instructions(self) -> str:
        """Say how an action is written. A phone's agent is told more by `system_prompt`; this is for other prompts."""
        return _INSTRUCTIONS

    def _transform(self, input: Iterator[str | BaseMessage]) -> Iterator[Action]:  # noqa: A002 - LangChain's name
        reader = _Reader()
        for piece in input:  # to its end, so that the model's run ends as it should
            if action := reader.news(piece):
                yield action
        if not reader.told:
            yield reader.close()

    async def _atransform(self, input: AsyncIterator[str | BaseMessage]) -> AsyncIterator[Action]:  # noqa: A002
        reader = _Reader()
        async for piece in input:
            if action := reader.news(piece):
                yield action
        if not reader.told:
            yield reader.close()

    @property
    def _type(self) -> str:
        return "autoglm_action"


class _Reader:
    """One answer in the making: give it the pieces as they come, then close it."""

    def __init__(self) -> None:
        self._splitter = ReasoningSplitter()
        self._scanner = ActionScanner()
        self._action: Action | None = None
        self._reasoning: list[str] = []
        self._text: list[str] = []
        self._finish_reason: str | None = None
        self.told = False

    def news(self, piece: str | BaseMessage) -> Action | None:
        """Take the next piece; the action when it is certain for the first time."""
        action = None if self.told else self.take(piece)
        self.told = self.told or action is not None
        return action

    def take(self, piece: str | BaseMessage) -> Action | None:
        """Take the next piece; the action once it is certain."""
        if isinstance(piece, BaseMessage):
            self._finish_reason = piece.response_metadata.get("finish_reason") or self._finish_reason
        for text, is_reasoning in _texts(piece):
            (self._reasoning if is_reasoning else self._text).append(text)
            self._scan(text, is_reasoning)
        return self._action if self._splitter.announced else None  # else it may still turn out to be thinking

    def close(self) -> Action:
        """The answer has ended: its action."""
        reasoning, text = "".join(self._reasoning), "".join(self._text)
        try:
            return read_action(text, reasoning=reasoning, finish_reason=self._finish_reason).action
        except ActionError as error:
            raise OutputParserException(
                f"{error.code}: {error}",
                observation=f"This is no action ({error}). {_INSTRUCTIONS}",
                llm_output=text or reasoning,
                send_to_llm=True,
            ) from error

    def _scan(self, text: str, is_reasoning: bool) -> None:
        for kind, piece in self._splitter.feed(text, reasoning=is_reasoning):
            if kind == "was_reasoning":
                self._scanner, self._action = ActionScanner(), None
            elif kind == "text":
                self._action = self._scanner.feed(piece) or self._action


def _texts(piece: str | BaseMessage) -> Sequence[tuple[str, bool]]:
    """What a piece says, and whether it is thinking."""
    if isinstance(piece, str):
        return [(piece, False)]
    if isinstance(piece.content, str):
        return [(piece.additional_kwargs.get("reasoning_content") or "", True), (piece.content, False)]
    return [
        (block["text"], False) if block["type"] == "text" else (block.get("reasoning", ""), True)
        for block in piece.content_blocks
        if block["type"] == "text" or block["type"] == "reasoning"
    ]
