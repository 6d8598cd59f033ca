"""What vLLM refuses before it generates, in its words; fields it does not know are accepted and ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .prompt import Prompt
from .refusal import Refusal, invalid_field
from .structure import check_structure, structure_of

__all__ = ["check_form", "check_length", "check_model", "check_request", "token_budget"]

_NUMBERS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
_INTEGERS = ("top_logprobs", "max_tokens", "max_completion_tokens", "n", "top_k", "seed", "min_tokens")
_BOOLEANS = ("stream", "logprobs", "include_reasoning", "skip_special_tokens", "continue_final_message")
_FORMS: list[tuple[tuple[str, ...], tuple[type, ...], str, str]] = [
    (_NUMBERS, (int, float), "float_type", "Input should be a valid number"),
    (_INTEGERS, (int,), "int_type", "Input should be a valid integer"),
    (_BOOLEANS, (bool,), "bool_type", "Input should be a valid boolean"),
    (("model",), (str,), "string_type", "Input should be a valid string"),
    (("messages", "tools"), (list,), "list_type", "Input should be a valid list"),
    (("response_format", "structured_outputs", "stream_options"), (dict,), "dict_type", "Input should be an object"),
]
_CONSTRAINTS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
_TOOL_CHOICE_USAGE = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`'


_NOT_COMPATIBLE = (
    "continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when you want the "
    "model to continue the final message, and add_generation_prompt when you want to add a header that will prompt it "
    "to start a new assistant message instead."
)
_RANGES: list[tuple[str, Callable[[float], bool], str]] = [
    ("n", lambda it: it >= 1, "must be at least 1"),
    ("presence_penalty", lambda it: -2 <= it <= 2, "must be in [-2, 2]"),
    ("frequency_penalty", lambda it: -2 <= it <= 2, "must be in [-2, 2]"),
    ("repetition_penalty", lambda it: it > 0, "must be greater than zero"),
    ("temperature", lambda it: it >= 0, "must be non-negative"),
    ("temperature", lambda it: it <= 2, "must be in [0, 2]"),
    ("top_p", lambda it: 0 < it <= 1, "must be in (0, 1]"),
    ("top_k", lambda it: it >= -1, "must be 0 (disable), or at least 1"),
    ("min_p", lambda it: 0 <= it <= 1, "must be in [0, 1]"),
    ("max_tokens", lambda it: it >= 1, "must be at least 1"),
]
_TOLD = ("temperature", "top_p", "max_tokens")  # the fields that the error names in ``param``


def check_request(request: dict[str, Any], models: Sequence[str], *, tool_parser: bool) -> None:
    """Raise the `Refusal` that vLLM would answer to this chat request, if any."""
    check_form(request)
    _check_options(request)
    _check_tools(request)
    check_model(request, models)
    if not tool_parser:
        _check_tool_parser(request)
    _check_sampling(request)
    if not request["messages"]:
        raise Refusal("Cannot apply chat template to an empty conversation. Provide at least one message.")


def check_model(request: dict[str, Any], models: Sequence[str]) -> None:
    """Refuse a model that is not served; no model at all means the only one there is."""
    name = request.get("model")
    if name and name not in models:
        aliases = ", ".join(models)
        raise Refusal(f"The model `{name}` does not exist. Valid aliases: {aliases}.", status=404, param="model")


def check_length(prompt: Prompt, request: dict[str, Any], max_model_len: int) -> None:
    """Refuse a prompt that leaves no room: vLLM has one text for long messages and another for large pictures."""
    length = len(prompt.tokens)
    if length - prompt.image_tokens > max_model_len:
        # The server stops counting one token past the limit.
        raise Refusal(
            f"This model's maximum context length is {max_model_len} tokens. However, your prompt contains at least "
            f"{max_model_len + 1} input tokens, which exceeds this limit even without any output tokens. "
            "Please reduce the length of the input prompt.",
            param="input_tokens",
            value=max_model_len + 1,
        )
    if length > max_model_len:
        raise Refusal(
            f"The decoder prompt (length {length}) is longer than the maximum model length of {max_model_len}. "
            "Make sure that `max_model_len` is no smaller than the number of text tokens plus multimodal tokens. For "
            "image inputs, the number of image tokens depends on the number of images, and possibly their aspect "
            "ratios as well."
        )
    if length == max_model_len:
        raise Refusal(
            f"The decoder prompt (length {length}) plus the number of requested output tokens (at least 1) is longer "
            f"than the maximum model length of {max_model_len}. Make sure that `max_model_len` is no smaller than the "
            "number of text tokens (prompt + requested output tokens)."
        )
    name, wanted = _max_tokens(request)
    if wanted is not None and wanted > max_model_len:
        raise Refusal(
            f"{name}={wanted} cannot be greater than max_model_len={max_model_len}. "
            "Please request fewer output tokens.",
            param=name,
            value=wanted,
        )


def token_budget(prompt: Prompt, request: dict[str, Any], max_model_len: int) -> int:
    """How many tokens the answer may have: what was asked for, and never more than the context has room for."""
    _, wanted = _max_tokens(request)
    room = max_model_len - len(prompt.tokens)
    return room if wanted is None else min(wanted, room)


def _max_tokens(request: dict[str, Any]) -> tuple[str, int | None]:
    if (wanted := request.get("max_completion_tokens")) is not None:
        return "max_completion_tokens", wanted
    return "max_tokens", request.get("max_tokens")


def check_form(request: dict[str, Any]) -> None:
    """Refuse fields of the wrong type, as pydantic does."""
    for names, types, kind, message in _FORMS:
        for name in names:
            value = request.get(name)
            if value is not None and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
                raise invalid_field(f"body.{name}", kind, message, value)
    if request.get("messages") is None:
        raise invalid_field("body.messages", "missing", "Field required", request)
    for number, message in enumerate(request["messages"]):
        if not isinstance(message, dict) or "role" not in message:
            raise invalid_field(f"body.messages.{number}.role", "missing", "Field required", message)
    for number, tool in enumerate(request.get("tools") or ()):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise invalid_field(f"body.tools.{number}.function.name", "missing", "Field required", tool)


def _check_options(request: dict[str, Any]) -> None:
    for message, param in _option_faults(request):
        raise Refusal(message, param=param)


def _option_faults(request: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    if request.get("stream_options") and not request.get("stream"):
        yield "Stream options can only be defined when `stream=True`.", "stream_options"
    if request.get("top_logprobs") and not request.get("logprobs"):
        yield "when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs"
    response_format = request.get("response_format") or {}
    if response_format.get("type") == "json_schema" and not response_format.get("json_schema"):
        yield (
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
            "response_format",
        )
    constraints = request.get("structured_outputs") or {}
    if sum(constraints.get(name) is not None for name in ("json", "regex", "choice")) > 1:
        yield (
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice').",
            None,
        )
    if constraints and isinstance(request.get("tool_choice"), dict):
        yield "You can only either use constraints for structured outputs or tools, not both.", None
    yield from _structure_faults(request)
    if request.get("continue_final_message") and request.get("add_generation_prompt", True):
        explicit = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
        yield explicit if "add_generation_prompt" in request else _NOT_COMPATIBLE, None


def _structure_faults(request: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    asked = (request.get("response_format") or {}).get("type") == "structural_tag"
    constraints = request.get("structured_outputs") or {}
    param = "response_format" if asked else "structured_outputs"
    try:
        form = structure_of(request)
        if form is not None:
            check_structure(form)
    except (ValueError, TypeError):
        yield f"Invalid {param} structural_tag specification.", param
    kinds = {name for name in _CONSTRAINTS if constraints.get(name) is not None}
    if len(kinds | ({"structural_tag"} if asked else set())) > 1:
        message = "You can only use one kind of structured outputs constraint but multiple are specified"
        yield f"{message}: {constraints}", None


def _check_tools(request: dict[str, Any]) -> None:
    tools, choice = request.get("tools"), request.get("tool_choice")
    if tools == []:
        raise Refusal(
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.",
            param="tools",
        )
    if choice in (None, "none"):
        return
    if tools is None:
        raise Refusal("When using `tool_choice`, `tools` must be set.", param="tool_choice")
    if isinstance(choice, dict):
        _check_named_tool(tools, choice.get("function"))
    elif choice not in ("auto", "required"):
        supported = 'Only named tools, "none", "auto" or "required" are supported.'
        raise Refusal(f"Invalid value for `tool_choice`: {choice}! {supported}", param="tool_choice")


def _check_named_tool(tools: list[dict[str, Any]], function: object) -> None:
    if not isinstance(function, dict):
        raise Refusal(
            f"Invalid value for `function`: `{function}` in `tool_choice`! {_TOOL_CHOICE_USAGE}",
            param="tool_choice.function",
        )
    if "name" not in function:
        raise Refusal(
            f"Expected field `name` in `function` in `tool_choice`! {_TOOL_CHOICE_USAGE}",
            param="tool_choice.function.name",
        )
    if function["name"] not in [tool["function"]["name"] for tool in tools]:
        raise Refusal(
            "The tool specified in `tool_choice` does not match any of the specified `tools`", param="tool_choice"
        )


def _check_tool_parser(request: dict[str, Any]) -> None:
    choice = request.get("tool_choice", "auto" if request.get("tools") else None)
    if choice == "auto":
        raise Refusal('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    if choice not in (None, "none"):
        what = f'function "{choice["function"]["name"]}"' if isinstance(choice, dict) else f'"{choice}"'
        raise Refusal(f"tool_choice={what} requires --tool-call-parser to be set")


def _check_sampling(request: dict[str, Any]) -> None:
    given = {**request, "max_tokens": _max_tokens(request)[1]}
    for name, allowed, rule in _RANGES:
        value = given.get(name)
        if value is None:
            continue
        value = float(value) if name in _NUMBERS else value
        if not allowed(value):
            told = name in _TOLD
            raise Refusal(f"{name} {rule}, got {value}.", param=name if told else None, value=value if told else None)
    if "" in _listed(request.get("stop")):
        raise Refusal("stop cannot contain an empty string.")
    if request.get("temperature") == 0 and (request.get("n") or 1) > 1:
        raise Refusal(f"n must be 1 when using greedy sampling, got {request['n']}.")
    if (top := request.get("top_logprobs") or 0) > 20:
        raise Refusal(f"Requested sample logprobs of {top}, which is greater than max allowed: 20")


def _listed(value: object) -> list[object]:
    if isinstance(value, list):
        return value
    return [] if value is None else [value]
