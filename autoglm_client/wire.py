"""The shapes on the wire: the options of a request, and what comes back in one piece or in chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from typing_extensions import TypedDict  # pydantic brings it, and reads typing's own from Python 3.12 on only

from . import defaults
from .timeouts import Timeouts

__all__ = [
    "SAMPLING",
    "ChatOptions",
    "Chunk",
    "ChunkChoice",
    "Delta",
    "ModelCard",
    "ModelList",
    "Resume",
    "Tokens",
    "ToolCallDict",
    "UsageCounts",
    "memory_for",
    "reader",
]

Json = dict[str, Any]
Resume = Literal["auto", "always", "never"]
Shape = TypeVar("Shape")

_LARGE = 64 * 1024
_MAX_ITEMS = 16384  # as many answers as vLLM gives at most
_MEMORY = {",": 40, "[": 80, "{": 100, ":": 45, '"': 18}
"""Bytes that decoded JSON takes for each of these, measured with CPython 3.11 and pydantic 2.14."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """Has pydantic leave a list at the first item that is wrong: it would make an error of a kilobyte for each."""

    most: int | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Json]) -> Json:
        schema = handler(source)
        limit = {} if self.most is None else {"max_length": self.most}
        return {**schema, **limit, "fail_fast": True}


class _IfReadable:
    """Has pydantic leave out a field that it cannot read: a detail is no reason to lose the answer."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Json]) -> Json:
        return {"type": "default", "schema": handler(source), "on_error": "omit"}


IfReadable = Annotated[Shape, _IfReadable()]
Items = Annotated[list[Shape], _Listed(_MAX_ITEMS)]
Numbers = Annotated[list[int], _Listed()]


class ChatOptions(TypedDict, total=False):
    """Everything a call can be given; what is not given is not sent.

    The first group is OpenAI's, the second vLLM's (checked on 0.32; hosted endpoints may refuse these), the third is
    for this client alone.
    """

    model: str
    max_tokens: int
    max_completion_tokens: int
    temperature: float
    top_p: float
    frequency_penalty: float
    presence_penalty: float
    seed: int
    stop: str | Sequence[str]
    n: int
    logprobs: bool
    top_logprobs: int
    logit_bias: Mapping[str, float]
    response_format: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    reasoning_effort: str
    stream_options: Mapping[str, Any]
    user: str

    top_k: int
    min_p: float
    repetition_penalty: float
    min_tokens: int
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    include_stop_str_in_output: bool
    skip_special_tokens: bool
    structured_outputs: Mapping[str, Any]
    include_reasoning: bool
    thinking_token_budget: int
    chat_template_kwargs: Mapping[str, Any]
    mm_processor_kwargs: Mapping[str, Any]
    add_generation_prompt: bool
    continue_final_message: bool
    repetition_detection: Mapping[str, Any]
    priority: int
    request_id: str
    cache_salt: str
    return_token_ids: bool

    thinking: bool
    """Let the model think first, or not; becomes ``enable_thinking`` in the chat template and ``include_reasoning``."""
    stop_on_repetition: bool
    """End a stream as soon as the model repeats itself."""
    resume: Resume
    """After a cut, ask for the rest of the answer, where that can be exact; ``auto`` does so from 64 tokens on."""
    allow_remote_images: bool
    """Let the server fetch what a message names by an http(s) URL: pictures, and other models' sounds and films."""
    timeout: float | Timeouts | None
    """Seconds for the whole call, or each clock by itself; instead of the client's."""
    deadline: float
    """A point in ``time.monotonic()`` after which the call must not go on; an agent loop hands its own down."""
    extra_headers: Mapping[str, str]
    extra_body: Mapping[str, Any]
    """Fields that have no name here; they win over the others."""


SAMPLING: ChatOptions = {"temperature": 0.0, "top_p": 0.85, "frequency_penalty": 0.2, "max_tokens": 3000}
"""What Open-AutoGLM's own client sends; ``**SAMPLING``, or ``options=SAMPLING`` for a client, asks in the same way."""

CLIENT_OPTIONS = frozenset(
    {
        *("thinking", "stop_on_repetition", "resume", "allow_remote_images", "timeout", "deadline"),
        *("extra_headers", "extra_body"),
    }
)


class PromptTokensDetails(TypedDict, total=False):
    """Where the tokens of the prompt came from."""

    cached_tokens: IfReadable[int | None]


class CompletionTokensDetails(TypedDict, total=False):
    """What the tokens of the answer were spent on."""

    reasoning_tokens: IfReadable[int | None]


class UsageCounts(TypedDict, total=False):
    """The server's count of tokens."""

    prompt_tokens: IfReadable[int | None]
    completion_tokens: IfReadable[int | None]
    total_tokens: IfReadable[int | None]
    prompt_tokens_details: IfReadable[PromptTokensDetails | None]
    completion_tokens_details: IfReadable[CompletionTokensDetails | None]


class FunctionPart(TypedDict, total=False):
    """The function of a tool call, or a fragment of it."""

    name: str | None
    arguments: str | None


class ToolCallPart(TypedDict, total=False):
    """A tool call, or a fragment of it."""

    index: int | None
    id: str | None
    function: FunctionPart | None


class Delta(TypedDict, total=False):
    """A message, or what it grows by."""

    content: str | None
    reasoning: str | None
    reasoning_content: str | None
    tool_calls: Items[ToolCallPart] | None
    refusal: str | None


class ChunkChoice(TypedDict, total=False):
    """One of the answers: a plain one has a ``message``, a streamed one a ``delta``."""

    index: int | None
    delta: Delta | None
    message: Delta | None
    finish_reason: str | None
    stop_reason: IfReadable[int | str | None]
    logprobs: IfReadable[Json | None]
    token_ids: Numbers | None


class Chunk(TypedDict, total=False):
    """A chat completion, or one event of a stream, or an error in its place: in ``error``, or at the top as of old.

    Dictionaries, because a stream has thousands of these: reading one takes a third of the time that instances do.
    """

    object: IfReadable[str | None]
    id: IfReadable[str | None]
    model: IfReadable[str | None]
    created: IfReadable[int | None]
    system_fingerprint: IfReadable[str | None]
    choices: Items[ChunkChoice] | None
    usage: IfReadable[UsageCounts | None]
    error: Any
    message: Any
    type: Any
    code: Any


class ModelList(TypedDict):
    """The answer of ``/models``."""

    data: Items[ModelCard]


class ToolCallDict(TypedDict):
    """A tool call as it stands in a message."""

    id: str
    type: Literal["function"]
    function: dict[str, str]


class ModelMetadata(TypedDict, total=False):
    """What Ray Serve tells of a model."""

    max_request_context_length: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """A model that the server offers."""

    id: str
    max_model_len: int | None = None
    """Tokens of prompt and answer together; vLLM says it, and Ray Serve in its ``metadata``."""
    owned_by: str | None = None
    root: str | None = None
    metadata: ModelMetadata | None = None

    def __post_init__(self) -> None:
        if self.max_model_len is None and self.metadata:
            object.__setattr__(self, "max_model_len", self.metadata.get("max_request_context_length"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The answer of vLLM's ``/tokenize``."""

    count: int
    max_model_len: int | None = None
    tokens: Numbers = field(default_factory=list)
    token_strs: Annotated[list[str], _Listed()] | None = None


@cache
def reader(shape: type[Shape]) -> Callable[[str | bytes], Shape]:
    """The function that decodes JSON of this shape and checks it; raises ``ValueError``.

    Servers add fields with every release: those that are not named here are ignored. pydantic is imported at the first
    call, because that takes longer than importing all of this package.
    """
    from pydantic import TypeAdapter
    from pydantic_core import from_json

    validator = TypeAdapter(shape).validator

    def read(text: str | bytes) -> Shape:
        value: Shape
        if len(text) <= _LARGE:
            value = validator.validate_json(text)
        elif memory_for(text) <= defaults.MAX_TREE_BYTES:
            value = validator.validate_python(from_json(text))  # validate_json builds a larger tree of its own first
        else:
            raise ValueError("it has too many parts")
        return value

    return read


def memory_for(text: str | bytes) -> int:
    """About as many bytes as the parts of this JSON take when it is decoded; long strings take theirs besides."""
    if isinstance(text, str):
        return sum(text.count(mark) * cost for mark, cost in _MEMORY.items())
    return sum(text.count(mark.encode()) * cost for mark, cost in _MEMORY.items())
