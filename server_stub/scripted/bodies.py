"""An answer to the bytes of vLLM: tokens, the plain body, and the chunks of a stream."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from typing import Any, Literal

from .prompt import Prompt, cut, token_id
from .rules import Answer

__all__ = ["Generation", "ReasoningForm", "chunks", "completion", "generate"]

ReasoningForm = Literal["tags", "stripped", "reasoning", "reasoning_content"]
"""Where thinking shows: in the text, nowhere to tell it apart, or in a field of its own."""

_FINGERPRINT = "vllm-0.32.0-scripted"
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@dataclass(frozen=True, slots=True)
class Piece:
    """One token: as the model wrote it, as the client sees it, and where it goes; ``call`` numbers the tool call."""

    token: str
    text: str
    goes: Literal["content", "reasoning", "call", "nowhere", "end"]
    call: int = 0
    starts: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """What was generated for one request, and everything the body needs to tell about it."""

    pieces: tuple[Piece, ...]
    finish_reason: str
    stop_reason: int | str | None
    form: ReasoningForm
    request: dict[str, Any]
    prompt: Prompt
    model: str
    completion_id: str

    @property
    def parsed(self) -> bool:
        """Whether a parser on the server takes the thinking out of the text."""
        return self.form in ("reasoning", "reasoning_content")

    @property
    def choices(self) -> int:
        """How many times the answer was asked for."""
        return self.request.get("n") or 1

    def text_of(self, goes: str, call: int = 0) -> str:
        """Join the text that goes to one place."""
        return "".join(it.text for it in self.pieces if it.goes == goes and it.call == call and not it.starts)


def generate(
    answer: Answer, request: dict[str, Any], prompt: Prompt, *, form: ReasoningForm, budget: int, model: str, name: str
) -> Generation:
    """Cut an answer into tokens and stop where the request says: ``max_tokens``, ``stop``, or the end."""
    end = "</answer>" if "<answer>" in answer.text else "<|user|>"
    answer, thinking = _continued(answer, request)
    show_tags = form != "stripped" and request.get("skip_special_tokens") is False
    parsed = form in ("reasoning", "reasoning_content")
    said = _pieces(answer, parsed=parsed, show_tags=show_tags, thinking=thinking)
    tokens = list(islice(chain(said, [Piece(end, "", "end")]), budget))
    pieces, stop = _stopped(tokens, request)
    ended = bool(pieces) and pieces[-1].goes == "end"
    finish = "stop" if stop is not None or ended else "length"
    if finish == "stop" and answer.tool_calls and not isinstance(request.get("tool_choice"), dict):
        finish = "tool_calls"
    stop_reason = stop if stop is not None else token_id(pieces[-1].token) if ended else None
    return Generation(tuple(pieces), finish, stop_reason, form, request, prompt, model, f"chatcmpl-{name}")


def _continued(answer: Answer, request: dict[str, Any]) -> tuple[Answer, bool]:
    """Take the rest of an answer whose beginning the request gives; tell whether it begins inside the thinking."""
    last = request["messages"][-1]
    prefix = last.get("content")
    if not request.get("continue_final_message") or last["role"] != "assistant" or not isinstance(prefix, str):
        return answer, False
    for text in (answer.text, re.sub("|".join(_TAGS), "", answer.text)):
        if text.startswith(prefix):
            inside = prefix.rfind("<think>") > prefix.rfind("</think>")
            return replace(answer, text=text[len(prefix) :]), inside
    return answer, False


def _pieces(answer: Answer, *, parsed: bool, show_tags: bool, thinking: bool) -> Iterator[Piece]:
    for token in chain(cut(answer.text), cycle(cut(answer.loop)) if answer.loop else ()):
        if token in ("<think>", "</think>"):
            thinking = token == _TAGS[0]
        if token in _TAGS:
            hidden = parsed and "think" in token
            yield Piece(token, token if show_tags and not hidden else "", "nowhere" if hidden else "content")
        else:
            yield Piece(token, token, "reasoning" if thinking and parsed else "content")
    for number, call in enumerate(answer.tool_calls):
        yield Piece(call.name, call.name, "call", number, starts=True)
        for token in cut(call.arguments):
            yield Piece(token, token, "call", number)


def _stopped(pieces: list[Piece], request: dict[str, Any]) -> tuple[list[Piece], str | None]:
    """Cut before the first stop string that is complete; the tokens that spelled it are still counted."""
    stops = request.get("stop") or []
    text = "".join(it.text for it in pieces if it.goes != "call")
    found = [(text.find(it) + len(it), it) for it in ([stops] if isinstance(stops, str) else stops) if it in text]
    if not found:
        return pieces, None
    end, stop = min(found)
    shown = end if request.get("include_stop_str_in_output") else end - len(stop)
    kept, at = list[Piece](), 0
    for piece in pieces:
        if at >= end:
            break
        length = 0 if piece.goes == "call" else len(piece.text)
        kept.append(piece if piece.goes == "call" else replace(piece, text=piece.text[: max(0, shown - at)]))
        at += length
    return kept, stop


def completion(generation: Generation) -> dict[str, Any]:
    """Build the body of a plain answer."""
    choice = {
        "message": _message(generation),
        "logprobs": _logprobs(generation, generation.pieces),
        "finish_reason": generation.finish_reason,
        "stop_reason": generation.stop_reason,
        "token_ids": None,
        "routed_experts": None,
    }
    return {
        "id": generation.completion_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": generation.model,
        "choices": [{"index": index, **choice} for index in range(generation.choices)],
        "service_tier": None,
        "system_fingerprint": _FINGERPRINT,
        "usage": _usage(generation),
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "prompt_text": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
        "metrics": None,
    }


def _message(generation: Generation) -> dict[str, Any]:
    content: str | None = generation.text_of("content")
    calls = [it for it in generation.pieces if it.starts]
    shown = generation.parsed and generation.request.get("include_reasoning") is not False
    message: dict[str, Any] = {
        "role": "assistant",
        "content": content or (None if generation.parsed or calls else ""),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if calls:
        message["tool_calls"] = [
            {
                "id": _call_id(),
                "type": "function",
                "function": {"name": it.token, "arguments": generation.text_of("call", it.call)},
            }
            for it in calls
        ]
    field = "reasoning_content" if generation.form == "reasoning_content" else "reasoning"
    message[field] = (generation.text_of("reasoning") or None) if shown else None
    return message


def chunks(generation: Generation) -> Iterator[dict[str, Any]]:
    """Yield the events of a streamed answer, without the ``[DONE]`` that follows them."""
    options = generation.request.get("stream_options") or {}
    continuous = options.get("include_usage") and options.get("continuous_usage_stats")
    head = {
        "id": generation.completion_id,
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": generation.model,
    }
    for index in range(generation.choices):
        first = {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        usage = {"usage": _running_usage(generation, 0, 0)} if continuous else {}
        yield head | {"choices": [first]} | usage | {"prompt_token_ids": None, "prompt_text": None}
    for count, thought, choice in _choices(generation):
        usage = {"usage": _running_usage(generation, count, thought)} if continuous else {}
        for index in range(generation.choices):
            yield head | {"choices": [{"index": index, **choice}]} | usage
    if options.get("include_usage"):
        yield head | {
            "choices": [],
            "usage": _without_null(_usage(generation)),
            "system_fingerprint": _FINGERPRINT,
        }


def _choices(generation: Generation) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield a choice for each token that no parser holds back, with the tokens and thinking tokens so far."""
    thought = 0
    for count, piece in enumerate(generation.pieces, 1):
        thought += piece.goes == "reasoning"
        delta = _delta(generation, piece)
        logprobs = _logprobs(generation, (piece,))
        last = count == len(generation.pieces)
        if delta is None and logprobs is None and not last:
            continue
        choice: dict[str, Any] = {"delta": delta or {}, "logprobs": logprobs, "finish_reason": None}
        if last:
            choice |= {"finish_reason": generation.finish_reason, "stop_reason": generation.stop_reason}
        yield count, thought, choice | {"token_ids": None}


def _delta(generation: Generation, piece: Piece) -> dict[str, Any] | None:
    silent = generation.request.get("include_reasoning") is False
    match piece.goes:
        case "content" if generation.parsed:
            if not piece.text:
                return None
            return {"content": piece.text, "reasoning": None} if silent else {"content": piece.text}
        case "content":
            return {"content": piece.text}
        case "reasoning":
            return None if silent or not piece.text else {_field(generation): piece.text}
        case "call" if piece.starts:
            function = {"id": _call_id(), "type": "function", "index": piece.call, "function": {"name": piece.token}}
            return {"content": None, "tool_calls": [function]}
        case "call":
            return {"content": None, "tool_calls": [{"index": piece.call, "function": {"arguments": piece.text}}]}
        case "end" if not generation.parsed and generation.finish_reason != "tool_calls":
            return {"content": ""}
        case _:
            return None


def _field(generation: Generation) -> str:
    return "reasoning_content" if generation.form == "reasoning_content" else "reasoning"


def _usage(generation: Generation) -> dict[str, Any]:
    used = len(generation.pieces) * generation.choices
    prompt = len(generation.prompt.tokens)
    pictures = generation.prompt.image_tokens
    details: dict[str, Any] = {"prompt_tokens_details": None, "completion_tokens_details": None}
    if generation.parsed:  # a server started with a parser is one that tells details
        multimodal = {"image": pictures} if pictures else None
        details["prompt_tokens_details"] = {
            "cached_tokens": 0,
            "created_cache_tokens": 0,
            "multimodal_tokens": multimodal,
        }
        thought = sum(it.goes == "reasoning" for it in generation.pieces)
        details["completion_tokens_details"] = {"reasoning_tokens": thought * generation.choices}
    return {"prompt_tokens": prompt, "total_tokens": prompt + used, "completion_tokens": used, **details}


def _running_usage(generation: Generation, count: int, thought: int) -> dict[str, Any]:
    prompt = len(generation.prompt.tokens)
    details = {"reasoning_tokens": thought} if generation.parsed else None
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + count,
        "completion_tokens": count,
        "completion_tokens_details": details,
    }


def _without_null(value: dict[str, Any]) -> dict[str, Any]:
    kept = {key: it for key, it in value.items() if it is not None}
    return {key: _without_null(it) if isinstance(it, dict) else it for key, it in kept.items()}


def _logprobs(generation: Generation, pieces: tuple[Piece, ...]) -> dict[str, Any] | None:
    if not generation.request.get("logprobs"):
        return None
    others = generation.request.get("top_logprobs") or 0
    return {"content": [_logprob(it.token, others) for it in pieces]}


def _logprob(token: str, others: int) -> dict[str, Any]:
    """Make up a probability, always the same; the token itself comes first, the alternatives are less likely."""
    first = _candidate(token, -(token_id(token) % 1000) / 10_000)
    rest = [_candidate(f"{token}{number}", -9.0 - number) for number in range(1, others)]
    return {**first, "top_logprobs": [first, *rest][:others]}


def _candidate(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}


def _call_id() -> str:
    return f"chatcmpl-tool-{secrets.token_hex(8)}"
