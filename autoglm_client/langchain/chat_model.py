"""``ChatAutoGLM``: the model as a LangChain chat model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_protocol.protocol import MessagesData

from .. import AutoGLMError, ConfigurationError, Reply, Timeouts, defaults
from .answers import Growth
from .errors import model_errors
from .messages import ChunkMaker, chat_result
from .metadata import PROVIDER
from .phone import is_phone_tool
from .protocol import ProtocolEvents
from .question import Question, Server, ask, openai_tool, tool_choice
from .settings import Settings
from .structured import METHODS, Method, Schema, answer_parser, call_parser, response_format, tool_name, with_raw

__all__ = ["ChatAutoGLM"]

Tool = dict[str, Any] | type | Callable[..., Any] | BaseTool


class ChatAutoGLM(Settings):
    """AutoGLM-Phone-9B behind vLLM or any OpenAI-compatible endpoint, wherever LangChain takes a chat model.

    ``ChatAutoGLM().invoke("Open Settings")`` asks a vLLM on this machine; ``base_url``, ``api_key`` and ``model`` are
    read from ``AUTOGLM_BASE_URL``, ``AUTOGLM_API_KEY`` and ``AUTOGLM_MODEL`` when they are not given. The thinking is
    in ``additional_kwargs["reasoning_content"]`` and a ``reasoning`` block of ``content_blocks``.

    Options of a call (``invoke(..., top_k=5)``, ``bind(...)``) are those of :class:`~autoglm_client.ChatOptions`, and
    ``regex=``, ``choice=`` or ``grammar=`` to hold the answer to one. Errors are ours and LangChain's at once.
    """

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    # Asking

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with model_errors():
            question = self._question(messages, stop, kwargs)
            reply = self._clients.client.chat(question.messages, **question.options)
        return chat_result(reply, question.new_reader)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with model_errors():
            question = await self._aquestion(messages, stop, kwargs)
            reply = await self._clients.async_client.chat(question.messages, **question.options)
        return chat_result(reply, question.new_reader)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        make = ChunkMaker(v1=self.output_version == "v1")
        for item in self._listen(messages, stop, kwargs):
            chunk = make.chunk(item)
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        make = ChunkMaker(v1=self.output_version == "v1")
        async with aclosing(self._alisten(messages, stop, kwargs)) as answer:
            async for item in answer:
                chunk = make.chunk(item)
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _stream_chat_model_events(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[MessagesData]:
        """LangChain's hook for ``stream_events(version="v3")``: its events without the detour of chunks."""
        make = ProtocolEvents(run_manager)
        for item in self._listen(messages, stop, kwargs):
            yield from make.events(item)

    async def _astream_chat_model_events(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[MessagesData]:
        """The same for ``astream_events(version="v3")``."""
        make = ProtocolEvents(run_manager)
        async with aclosing(self._alisten(messages, stop, kwargs)) as answer:
            async for item in answer:
                for event in make.events(item):
                    yield event

    def _listen(
        self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
    ) -> Iterator[Growth | Reply]:
        """What the message grows by, and at last the whole reply."""
        with model_errors():
            question = self._question(messages, stop, self._streamed(given))
            read = question.new_reader().feed
            with self._clients.client.stream(question.messages, **question.options) as stream:
                for event in stream:
                    yield from read(event)
                yield stream.reply

    async def _alisten(
        self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]
    ) -> AsyncGenerator[Growth | Reply, None]:
        with model_errors():
            question = await self._aquestion(messages, stop, self._streamed(given))
            read = question.new_reader().feed
            async with self._clients.async_client.stream(question.messages, **question.options) as stream:
                async for event in stream:
                    for growth in read(event):
                        yield growth
                yield stream.reply

    # Tools and forms of answers

    def bind_tools(
        self,
        tools: Sequence[Tool],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools: functions, pydantic classes, ``BaseTool``, OpenAI's or Anthropic's dictionaries.

        ``tool_choice`` is ``"auto"``, ``"any"``, ``"none"`` or a tool's name. The tools of a phone
        (:func:`phone_tools`) are not described to the model: it knows its actions, and ``do(...)`` becomes a tool call.
        """
        with model_errors():
            return self.bind(**_offered(tools, tool_choice, strict), **kwargs)

    def with_structured_output(
        self,
        schema: Schema | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        tools: Sequence[Tool] = (),
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answer in the form of a schema: a pydantic class, a TypedDict, or JSON schema.

        ``json_schema`` holds the answer to it on any vLLM; ``function_calling`` asks for it as a tool call;
        ``json_mode`` asks for any JSON, which the prompt must describe. ``include_raw`` gives a dictionary of ``raw``,
        ``parsed`` and ``parsing_error``. An answer that was cut is refused, never completed.
        """
        with model_errors():
            if method not in METHODS:
                raise ConfigurationError(f"method={method!r}: give one of {', '.join(METHODS)}")
            if schema is None and method != "json_mode":
                raise ConfigurationError(f"method={method!r} needs a schema")
            traced = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
            options: dict[str, Any] = {"ls_structured_output_format": traced, **kwargs}
            if schema is not None and method == "function_calling":
                options |= {"tool_choice": tool_name(schema), "parallel_tool_calls": False}
                model = self.bind_tools([schema, *tools], strict=strict, **options)
                parser = call_parser(schema)
            else:
                form = {"type": "json_object"} if schema is None else response_format(schema, strict=strict)
                options["response_format"] = {"type": "json_object"} if method == "json_mode" else form
                model = self.bind_tools(tools, strict=strict, **options)
                parser = answer_parser(schema)
        return with_raw(model, parser) if include_raw else model | parser

    # Tokens

    def get_num_tokens_from_messages(
        self, messages: Sequence[BaseMessage], tools: Sequence[Tool] | None = None, **kwargs: Any
    ) -> int:
        """Count a prompt's tokens: exactly by vLLM's ``/tokenize``, pictures too; where it cannot be asked, roughly.

        Give the ``tools`` that the model will have: on a stock server they are part of the prompt's text, and with
        those of a phone only the last picture is sent.
        """
        offered = _offered(tools or (), None, None)
        try:
            question = self._question(list(messages), None, offered)
            shown: dict[str, Any] = {"tools": question.options["tools"]} if "tools" in question.options else {}
            return self._clients.client.tokenize(question.messages, **shown).count
        except AutoGLMError:
            return count_tokens_approximately(messages, tools=offered.get("tools"))

    def get_token_ids(self, text: str) -> list[int]:
        """The tokens of a text, from vLLM's ``/tokenize``; raises our error where the server has no such route."""
        with model_errors():
            return self._clients.client.tokenize(text, template=False).tokens

    def get_num_tokens(self, text: str) -> int:
        """Count a text's tokens: exactly by vLLM's ``/tokenize``; where it cannot be asked, as four letters each."""
        try:
            return len(self.get_token_ids(text))
        except AutoGLMError:
            return -(-len(text) // 4)

    # What a call is made of

    def _streamed(self, options: dict[str, Any]) -> dict[str, Any]:
        usage = {} if self.stream_usage else {"stream_options": {"include_usage": False}}
        return {**usage, **options, "n": None}

    def _question(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]) -> Question:
        tools = self.tool_calling == "server"
        if self._must_ask(given):
            given = self._with_deadline(given)
            tools = self._clients.takes_tools(given.get("deadline"))
        return self._put(messages, stop, given, tools)

    async def _aquestion(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]) -> Question:
        tools = self.tool_calling == "server"
        if self._must_ask(given):
            given = self._with_deadline(given)
            tools = await self._clients.atakes_tools(given.get("deadline"))
        return self._put(messages, stop, given, tools)

    def _must_ask(self, given: dict[str, Any]) -> bool:
        return self.tool_calling == "auto" and bool(given.get("tools"))

    def _with_deadline(self, given: dict[str, Any]) -> dict[str, Any]:
        """What is asked before the call counts as part of it: both end when the call's total time is over."""
        total = Timeouts.of(given.get("timeout", self.timeout)).total
        ends = [end for end in (given.get("deadline"), total and monotonic() + total) if end is not None]
        return {**given, "deadline": min(ends)} if ends else given

    def _put(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any], tools: bool) -> Question:
        options = {**self._sent_options(), **given, **({"stop": stop} if stop else {})}
        server = Server(tools=tools, extensions=defaults.endpoint_for(self.base_url).extensions)
        return ask(messages, options, server=server, reasoning=self.reasoning_in_history)


def _offered(tools: Iterable[Tool], choice: object, strict: bool | None) -> dict[str, Any]:
    """The options that offer tools. Those of a phone are not described: the model knows its actions."""
    given = list(tools)
    offered = [openai_tool(tool, strict=strict) for tool in given if not is_phone_tool(tool)]
    options: dict[str, Any] = {"phone_actions": True} if len(offered) < len(given) else {}
    if offered:  # vLLM refuses an empty list
        options["tools"] = offered
    if given:
        options["tool_choice"] = tool_choice(choice, offered)
    return options
