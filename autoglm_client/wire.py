"""The shapes on the wire: the options of a request, and what comes back in one piece or in chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter
from typing_extensions import TypedDict  # pydantic reads typing's own from Python 3.12 on only

from .timeouts import Timeouts

__all__ = [
    "ChatOptions",
    "Chunk",
    "ChunkChoice",
    "Completion",
    "Delta",
    "ModelCard",
    "ToolCallDict",
    "Usage",
    "read_chunk",
]

Json = dict[str, Any]


class ChatOptions(TypedDict, total=False):
    """Everything a call can be given; what is not given is not sent.

    The first group is OpenAI's, the second vLLM's (checked on 0.32; hosted endpoints may refuse these), the third is for
    this client alone.
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
    timeout: float | Timeouts | None
    """Seconds for the whole call, or each clock by itself; instead of the client's."""
    deadline: float
    """A point in ``time.monotonic()`` after which the call must not go on; an agent loop hands its own down."""
    extra_headers: Mapping[str, str]
    extra_body: Mapping[str, Any]
    """Fields that have no name here; they win over the others."""


CLIENT_OPTIONS = frozenset({"thinking", "stop_on_repetition", "timeout", "deadline", "extra_headers", "extra_body"})


class _Shape(BaseModel):
    """Servers add fields with every release: those that are not named here are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


def _zero_for_null(value: object) -> object:
    return 0 if value is None else value


Count = Annotated[int, BeforeValidator(_zero_for_null)]


class PromptTokensDetails(_Shape):
    """Where the tokens of the prompt came from."""

    cached_tokens: Count = 0


class CompletionTokensDetails(_Shape):
    """What the tokens of the answer were spent on."""

    reasoning_tokens: Count = 0


class Usage(_Shape):
    """Tokens that a call has cost, as the server counts them."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    total_tokens: Count = 0
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompt that were in the prefix cache; vLLM says it with ``--enable-prompt-tokens-details``."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else 0

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the answer that were thinking; vLLM says it when it has a reasoning parser."""
        return self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else 0


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
    tool_calls: list[ToolCallPart] | None
    refusal: str | None


class ChunkChoice(TypedDict, total=False):
    """One of the answers: a plain one has a ``message``, a streamed one a ``delta``."""

    index: int | None
    delta: Delta | None
    message: Delta | None
    finish_reason: str | None
    stop_reason: int | str | None
    logprobs: Json | None
    token_ids: list[int] | None


class Chunk(TypedDict, total=False):
    """A chat completion, or one event of a streamed one, or an error in its place: in ``error``, older servers at the top.

    Dictionaries, because a stream has thousands of these: reading one takes a third of the time that instances do.
    """

    object: str | None
    id: str | None
    model: str | None
    created: int | None
    system_fingerprint: str | None
    choices: list[ChunkChoice] | None
    usage: Usage | None
    error: Any
    message: Any
    type: Any
    code: Any


read_chunk: Callable[[str | bytes], Chunk] = TypeAdapter(Chunk).validator.validate_json


class ModelCard(_Shape):
    """A model that the server offers."""

    id: str
    max_model_len: int | None = None
    owned_by: str | None = None
    root: str | None = None


class ModelList(_Shape):
    """The answer of ``/models``."""

    data: list[ModelCard]


class Tokens(_Shape):
    """The answer of vLLM's ``/tokenize``."""

    count: int
    max_model_len: int | None = None
    tokens: list[int] = []
    token_strs: list[str] | None = None


class ToolCallDict(TypedDict):
    """A tool call as it stands in a message."""

    id: str
    type: Literal["function"]
    function: dict[str, str]
