"""What a chat model's call asks of the client: LangChain's messages and options in the client's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from .. import ChatOptions, ConfigurationError, Message
from .answers import AnswerReader
from .client_tools import ToolChoice, constraint, describe
from .convert import ReasoningInHistory, to_wire
from .structured import response_format

__all__ = ["Question", "Server", "ask", "openai_tool", "tool_choice"]

Options = dict[str, Any]
_CONSTRAINTS = ("regex", "choice", "grammar")
_NOT_SENT = {"stream", "strict", "ls_structured_output_format", "structured_output_format"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What the server takes beyond messages."""

    tools: bool
    """It shows tools to the model and reads its calls."""
    extensions: bool
    """It has vLLM's own options, structured outputs among them."""


@dataclass(frozen=True, slots=True)
class Question:
    """One call of the client, and how its answer is to be read."""

    messages: list[Message]
    options: ChatOptions
    new_reader: Callable[[], AnswerReader]


def ask(
    messages: Sequence[BaseMessage], given: Mapping[str, Any], *, server: Server, reasoning: ReasoningInHistory
) -> Question:
    """Put a call together; ``given`` are the model's options and the call's own, the latter on top."""
    if not messages:
        raise ConfigurationError("there are no messages: give at least a HumanMessage")
    options = {name: value for name, value in given.items() if value is not None and name not in _NOT_SENT}
    phone = options.pop("phone_actions", False)
    _name_constraints(options, server)
    if form := options.pop("response_format", None):
        options["response_format"] = response_format(form)
    tools = [openai_tool(tool) for tool in options.pop("tools", ())]
    choice = tool_choice(options.pop("tool_choice", None), tools)
    native = server.tools and not _undecided(options, tools, choice, phone=phone)
    remote = options.get("allow_remote_images", False)
    wire = to_wire(messages, reasoning=reasoning, native_tools=native, phone=phone, allow_remote_images=remote)
    text_calls = bool(tools) and choice != "none" and not native
    an_object = bool(_schema(options))
    hold_text = server.extensions and options.get("thinking") is not False and not _constrained(options)
    if tools and native:
        _offer(options, tools, choice)
    elif text_calls or (phone and (an_object or choice == "required") and choice != "none"):
        parallel = options.get("parallel_tool_calls", True)
        text = describe(tools, choice, parallel=parallel, schema=_schema(options), phone=phone)
        wire = _with_instructions(wire, text)
        _constrain(options, tools, choice, server, phone=phone)
    reader = partial(
        AnswerReader,
        hold_text=hold_text,
        text_calls=text_calls,
        phone=phone and choice != "none",
        an_object=an_object,
    )
    return Question(wire, cast("ChatOptions", options), reader)


def openai_tool(tool: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """A tool in OpenAI's form, whatever LangChain calls a tool; another provider's own tools are none."""
    try:
        known = convert_to_openai_tool(tool, strict=strict)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{tool!r} cannot be offered as a tool: {error}") from error
    if known.get("type") != "function" or "function" not in known:
        raise ConfigurationError(f"{tool!r} is another provider's tool: give a function, a BaseTool, or a schema")
    return known


def tool_choice(given: object, tools: Sequence[Mapping[str, Any]]) -> ToolChoice:
    """Read the many forms in which LangChain's users say it: ``"any"``, ``True``, a name, OpenAI's dict."""
    said = given
    if isinstance(given, Mapping):
        function = given.get("function")
        said = function.get("name") if isinstance(function, Mapping) else given.get("name") or given.get("type")
    words: dict[object, ToolChoice] = {None: "auto", True: "required", "any": "required", False: "none"}
    choice = words.get(said, said) if said is None or isinstance(said, bool | str) else None
    names = [tool["function"]["name"] for tool in tools]
    if choice in {"auto", "required", "none"} or choice in names:
        return cast("ToolChoice", choice)
    raise ConfigurationError(f"tool_choice={given!r}: give auto, any, none, or one of {', '.join(names) or 'no tools'}")


def _name_constraints(options: Options, server: Server) -> None:
    """Let ``regex=``, ``choice=`` and ``grammar=`` be options like any other."""
    named = {name: options.pop(name) for name in _CONSTRAINTS if name in options}
    if named and not server.extensions:
        raise ConfigurationError(f"{', '.join(named)}: this server has no structured outputs; vLLM has")
    if named:
        options["structured_outputs"] = {**options.get("structured_outputs", {}), **named}


def _constrained(options: Options) -> bool:
    return bool(options.get("structured_outputs") or options.get("response_format"))


def _schema(options: Options) -> Mapping[str, Any] | None:
    form = options.get("response_format")
    if not isinstance(form, Mapping) or form.get("type") != "json_schema":
        return None
    wrapped = form.get("json_schema")
    return cast("Mapping[str, Any]", wrapped.get("schema")) if isinstance(wrapped, Mapping) else None


def _offer(options: Options, tools: Sequence[Mapping[str, Any]], choice: ToolChoice) -> None:
    """Hand the tools to the server; ``strict``, or vLLM holds the arguments to no schema."""
    options["tools"] = [{**tool, "function": {"strict": True, **tool["function"]}} for tool in tools]
    known = choice in {"auto", "required", "none"}
    options["tool_choice"] = choice if known else {"type": "function", "function": {"name": choice}}


def _undecided(options: Options, tools: Sequence[Mapping[str, Any]], choice: ToolChoice, *, phone: bool) -> bool:
    """Whether the answer may take a form that the server would shut out: its schema calls, its calls ``do(...)``."""
    return bool(tools) and bool(_schema(options) or (phone and choice == "required"))


def _constrain(
    options: Options, tools: Sequence[Mapping[str, Any]], choice: ToolChoice, server: Server, *, phone: bool
) -> None:
    """Hold the answer to calls that a tool takes; a server without structured outputs is only told."""
    parallel = options.pop("parallel_tool_calls", True)
    schema = _schema(options) if choice == "auto" else None
    options.pop("response_format", None)  # alone, it would shut out calls
    if server.extensions:
        options["response_format"] = constraint(tools, choice=choice, parallel=parallel, schema=schema, phone=phone)


def _with_instructions(messages: list[Message], text: str) -> list[Message]:
    """Put them behind the system message, or before all others."""
    first = messages[0]
    if first["role"] == "system" and isinstance(content := first.get("content"), str):
        return [{**first, "content": f"{content}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
