"""``ChatAutoGLM``: the model as a LangChain chat model."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils import from_env, secret_from_env
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_protocol.protocol import MessagesData
from pydantic import (
    AliasChoices,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    SkipValidation,
    field_validator,
    model_validator,
)

from .. import AutoGLMError, ConfigurationError, Reply, Timeouts, __version__, defaults
from .answers import Growth
from .clients import Clients
from .convert import ReasoningInHistory, to_wire
from .errors import model_errors
from .messages import ChunkMaker, chat_result
from .metadata import PROVIDER
from .phone import is_phone_tool
from .protocol import ProtocolEvents
from .question import Question, Server, ask, tool_choice
from .structured import METHODS, Method, Schema, answer_parser, call_parser, response_format, tool_name, with_raw

__all__ = ["ChatAutoGLM"]

Tool = dict[str, Any] | type | Callable[..., Any] | BaseTool

_key_of_the_environment = secret_from_env(["AUTOGLM_API_KEY", "PHONE_AGENT_API_KEY"], default=None)
_SENT = (
    *("model", "temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed", "n", "logprobs", "top_logprobs"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "thinking", "extra_body"),
)


class ChatAutoGLM(BaseChatModel):
    """AutoGLM-Phone-9B behind vLLM or any OpenAI-compatible endpoint, wherever LangChain takes a chat model.

    ``ChatAutoGLM().invoke("Open Settings")`` asks a vLLM on this machine; ``base_url``, ``api_key`` and ``model`` are
    read from ``AUTOGLM_BASE_URL``, ``AUTOGLM_API_KEY`` and ``AUTOGLM_MODEL`` when they are not given. The thinking is
    in ``additional_kwargs["reasoning_content"]`` and a ``reasoning`` block of ``content_blocks``.

    Options of a call (``invoke(..., top_k=5)``, ``bind(...)``) are those of :class:`~autoglm_client.ChatOptions`, and
    ``regex=``, ``choice=`` or ``grammar=`` to hold the answer to one. Errors are ours and LangChain's at once.
    """

    model_config = ConfigDict(populate_by_name=True, arbitrary_types_allowed=True, extra="forbid")

    model: str = Field(
        default_factory=from_env(["AUTOGLM_MODEL", "PHONE_AGENT_MODEL"], default=""),
        validation_alias=AliasChoices("model", "model_name"),
    )
    base_url: str = Field(
        default_factory=from_env(["AUTOGLM_BASE_URL", "PHONE_AGENT_BASE_URL"], default=defaults.BASE_URL)
    )
    api_key: SecretStr | None = Field(default_factory=_key_of_the_environment)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | str | None = Field(default=None, validation_alias=AliasChoices("stop", "stop_sequences"))
    n: int | None = None
    """How many answers ``generate`` gives; a stream has one."""
    logprobs: bool | None = None
    top_logprobs: int | None = None
    thinking: bool | None = None
    """Let the model think first, or not."""
    reasoning_in_history: ReasoningInHistory = "tags"
    """How earlier thinking is sent back: within tags, as the model was trained; in vLLM's field; or not at all."""
    tool_calling: Literal["auto", "server", "client"] = "auto"
    """Who reads tool calls: the server's parser, this client (any server will do), or whichever works, asked once."""
    streaming: bool = False
    """Let ``invoke`` stream, too."""
    stream_usage: bool = True
    """Ask for the usage in streams."""
    timeout: SkipValidation[float | Timeouts | None] = Timeouts()
    """Seconds for a whole call, or each clock by itself."""
    max_retries: int = defaults.MAX_ATTEMPTS - 1
    """How often a call is sent again after a failure that may pass."""
    default_headers: Mapping[str, str] = Field(default_factory=dict)
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further options of :class:`~autoglm_client.ChatOptions` for every call."""
    extra_body: dict[str, Any] | None = None
    """Fields of the request that have no name in ``ChatOptions``."""
    http_client: SkipValidation[Any] = Field(default=None, exclude=True)
    """An ``httpx2.Client`` or ``httpx.Client`` of your own."""
    http_async_client: SkipValidation[Any] = Field(default=None, exclude=True)
    """The same for async calls."""

    _connected: Clients = PrivateAttr(default_factory=lambda: Clients({}))

    @field_validator("timeout", mode="before")
    @classmethod
    def _read_timeout(cls, value: object) -> object:
        return Timeouts(**value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check the settings by making the client, which opens no connection; give the model its endpoint's name."""
        self.model = self._clients.client.model
        self._add_version("autoglm-client", __version__)
        return self

    @property
    def _clients(self) -> Clients:
        """The clients of the settings as they are now: fields can be changed, and copies made with other ones."""
        settings = self._client_settings()
        if self._connected.settings != settings:
            self._connected = Clients(settings, self.http_client, self.http_async_client)
        return self._connected

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        left_out = {"api_key": None, "http_client": None, "http_async_client": None}
        return {**state, "__dict__": state["__dict__"] | left_out, "__pydantic_private__": {"_connected": Clients({})}}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.api_key = _key_of_the_environment()  # a pickle holds no key

    @property
    def _llm_type(self) -> str:
        return PROVIDER

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that changes an answer: two models share cached answers only when all of it is equal."""
        how = {name: getattr(self, name) for name in ("base_url", "reasoning_in_history", "tool_calling")}
        return self._sent_options() | how

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Where LangChain finds the key that it leaves out of a serialized model."""
        return {"api_key": "AUTOGLM_API_KEY"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """The clocks in a form that JSON has."""
        return {"timeout": asdict(self.timeout)} if isinstance(self.timeout, Timeouts) else {}

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """``dumps`` writes it; ``loads(..., allowed_objects="all", valid_namespaces=["autoglm_client"])`` reads it."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where it is imported from."""
        return ["autoglm_client", "langchain"]

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
        offered = [convert_to_openai_tool(tool, strict=strict) for tool in tools if not is_phone_tool(tool)]
        if len(offered) < len(tools):
            kwargs["phone_actions"] = True
        if offered:
            kwargs["tools"] = offered  # vLLM refuses an empty list
            kwargs["tool_choice"] = _checked_choice(tool_choice, offered)
        return self.bind(**kwargs)

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
        if method not in METHODS:
            raise ConfigurationError(f"method={method!r}: give one of {', '.join(METHODS)}")
        if schema is None and method != "json_mode":
            raise ConfigurationError(f"method={method!r} needs a schema")
        traced = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        options: dict[str, Any] = {"ls_structured_output_format": traced, **kwargs}
        if schema is not None and method == "function_calling":
            options.setdefault("parallel_tool_calls", False)
            model = self.bind_tools([schema, *tools], tool_choice=tool_name(schema), strict=strict, **options)
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
        """Count a prompt's tokens: exactly by vLLM's ``/tokenize``, pictures too; where it cannot be asked, roughly."""
        offered: list[BaseTool | dict[str, Any]] = [convert_to_openai_tool(tool) for tool in tools or ()]
        shown: dict[str, Any] = {"tools": offered} if offered else {}
        wire = to_wire(messages, reasoning=self.reasoning_in_history)
        try:
            return self._clients.client.tokenize(wire, **shown).count
        except AutoGLMError:
            return count_tokens_approximately(messages, **shown)

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

    # What LangChain wants to know

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        options = self._sent_options() | {name: value for name, value in kwargs.items() if value is not None}
        params = LangSmithParams(ls_provider=PROVIDER, ls_model_name=options["model"], ls_model_type="chat")
        if "temperature" in options:
            params["ls_temperature"] = options["temperature"]
        if "max_tokens" in options:
            params["ls_max_tokens"] = options["max_tokens"]
        if stops := stop or options.get("stop"):
            params["ls_stop"] = [stops] if isinstance(stops, str) else stops
        return params

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        key = {**self._identifying_params, **kwargs, "stop": stop or self.stop}
        return json.dumps(key, sort_keys=True, default=str)

    def _resolve_model_profile(self) -> ModelProfile:
        return ModelProfile(
            max_input_tokens=defaults.CONTEXT,
            text_inputs=True,
            image_inputs=True,
            image_url_inputs=True,
            image_tool_message=True,
            text_outputs=True,
            reasoning_output=True,
            tool_calling=True,
            tool_choice=True,
            structured_output=True,
        )

    # What a call is made of

    def _client_settings(self) -> dict[str, Any]:
        return {
            "base_url": self.base_url,
            "api_key": self.api_key.get_secret_value() if self.api_key else "",
            "model": self.model or None,
            "timeout": self.timeout,
            "max_attempts": self.max_retries + 1,
            "headers": self.default_headers,
        }

    def _sent_options(self) -> dict[str, Any]:
        options = self.model_kwargs | {name: getattr(self, name) for name in _SENT}
        return {name: value for name, value in options.items() if value is not None}

    def _streamed(self, options: dict[str, Any]) -> dict[str, Any]:
        usage = {} if self.stream_usage else {"stream_options": {"include_usage": False}}
        return {**usage, **options, "n": None}

    def _question(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]) -> Question:
        tools = self._clients.takes_tools() if self._must_ask(given) else self.tool_calling == "server"
        return self._put(messages, stop, given, tools)

    async def _aquestion(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any]) -> Question:
        tools = await self._clients.atakes_tools() if self._must_ask(given) else self.tool_calling == "server"
        return self._put(messages, stop, given, tools)

    def _must_ask(self, given: dict[str, Any]) -> bool:
        return self.tool_calling == "auto" and bool(given.get("tools"))

    def _put(self, messages: list[BaseMessage], stop: list[str] | None, given: dict[str, Any], tools: bool) -> Question:
        options = {**self._sent_options(), **given, **({"stop": stop} if stop else {})}
        server = Server(tools=tools, extensions=defaults.endpoint_for(self.base_url).extensions)
        return ask(messages, options, server=server, reasoning=self.reasoning_in_history)


def _checked_choice(choice: object, tools: Sequence[Mapping[str, Any]]) -> str:
    with model_errors():
        return tool_choice(choice, tools)
