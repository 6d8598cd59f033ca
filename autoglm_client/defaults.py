"""The facts that client and server must agree on, and what is known of each endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

__version__ = "0.1.0"

HOST: Final = "127.0.0.1"
PORT: Final = 8000
BASE_URL: Final = f"http://{HOST}:{PORT}/v1"
MODEL: Final = "autoglm-phone-9b"
CONTEXT: Final = 25480
"""Tokens, the publisher's ``--max-model-len``: 3,000 of answer, 3,100 of picture, the rest for prompt and history."""

CONNECT_SECONDS: Final = 5.0
SEND_SECONDS: Final = 30.0
FIRST_TOKEN_SECONDS: Final = 60.0
BETWEEN_TOKENS_SECONDS: Final = 20.0
TOTAL_SECONDS: Final = 120.0
TAIL_SECONDS: Final = 0.5
"""How long to wait, after an answer is complete, for the usage that may follow it."""

KEEPALIVE_SECONDS: Final = 3.0
"""Below the 5 s after which vLLM closes an idle connection, so that none is reused while it is being closed."""

MAX_ATTEMPTS: Final = 3
MAX_REDIRECTS: Final = 3
MIN_ATTEMPT_SECONDS: Final = 0.05
"""With less time left than this, no attempt is started."""

ENGINE_POLL_SECONDS: Final = 0.5
MAX_RETRY_AFTER_SECONDS: Final = 60.0
MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
MAX_EVENT_LINES: Final = 10_000
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""As they are after inflating, too."""
MAX_TEXT_BYTES: Final = 8 * 1024 * 1024
"""Of memory, for what a model says in one answer: three times what the tokens of the whole context take."""
MAX_TREE_BYTES: Final = 50_000_000
"""As ``wire.memory_for`` has it, for the parts of an answer: logprobs of 3,000 tokens with 20 alternatives fit in.
Those take 20 MB; bare lists and objects take 35 at most."""
MAX_PARTS: Final = 1000
"""Choices that nobody asked for, tool calls of one answer."""
MAX_ERROR_BYTES: Final = 64 * 1024
MAX_HEAD_BYTES: Final = 256 * 1024
"""Of everything before the body; one header may have 100 kB (httpcore2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What one kind of server takes beyond OpenAI's fields."""

    name: str
    base_url: str
    model: str
    extensions: bool = False
    """Takes vLLM's own fields, such as ``skip_special_tokens``; others may refuse unknown fields."""
    stream_usage: bool = True
    """Takes ``stream_options``, without which a stream reports no usage."""


VLLM: Final = Endpoint(name="vLLM", base_url=BASE_URL, model=MODEL, extensions=True)

ENDPOINTS: Final = (
    Endpoint(
        name="BigModel",
        base_url="https://open.bigmodel.cn/api/paas/v4",
        model="autoglm-phone",
        stream_usage=False,
    ),
    Endpoint(
        name="z.ai",
        base_url="https://api.z.ai/api/paas/v4",
        model="autoglm-phone-multilingual",
        stream_usage=False,
    ),
    Endpoint(
        name="ModelScope",
        base_url="https://api-inference.modelscope.cn/v1",
        model="ZhipuAI/AutoGLM-Phone-9B",
    ),
    Endpoint(
        name="Novita",
        base_url="https://api.novita.ai/openai",
        model="zai-org/autoglm-phone-9b-multilingual",
    ),
    Endpoint(
        name="Parasail",
        base_url="https://api.parasail.io/v1",
        model="parasail-auto-glm-9b-multilingual",
    ),
)
"""The hosted endpoints that serve AutoGLM-Phone-9B; any other address is taken for a vLLM of the user's own."""


def endpoint_for(base_url: str) -> Endpoint:
    """Recognise an endpoint by the host of its URL."""
    host = urlsplit(base_url).hostname
    return next((endpoint for endpoint in ENDPOINTS if urlsplit(endpoint.base_url).hostname == host), VLLM)
