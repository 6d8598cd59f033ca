"""What a reply tells besides its words, under LangChain's names."""

from __future__ import annotations

from typing import Any

from langchain_core.messages.ai import UsageMetadata

from .. import Choice, Reply, Usage

__all__ = ["PROVIDER", "additional_kwargs", "response_metadata", "usage_metadata"]

PROVIDER = "autoglm"
"""The provider's name in traces and messages; summarization trusts usage only where both are the same."""


def additional_kwargs(choice: Choice) -> dict[str, Any]:
    """What has no place in the content of v0 messages: the thinking, under its customary name, and a refusal."""
    told = {"reasoning_content": choice.reasoning, "refusal": choice.refusal}
    return {name: value for name, value in told.items() if value}


def response_metadata(reply: Reply, choice: Choice) -> dict[str, Any]:
    """What stands once on a message: the model, why the answer ended, the server's id, log probabilities."""
    told = {
        "model_name": reply.model,
        "finish_reason": choice.finish_reason,
        "stop_reason": choice.stop_reason,
        "id": reply.id,  # not the message's own: LangGraph replaces a message by one of the same id
        "system_fingerprint": reply.system_fingerprint,
        "logprobs": choice.logprobs,
        "resumed": reply.resumed,
    }
    return {"model_provider": PROVIDER} | {name: value for name, value in told.items() if value}


def usage_metadata(usage: Usage | None) -> UsageMetadata | None:
    """The server's count of tokens; ``None`` when it told none."""
    if usage is None:
        return None
    told = UsageMetadata(
        input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens, total_tokens=usage.total_tokens
    )
    if usage.cached_tokens:  # 0 may mean that the server does not tell
        told["input_token_details"] = {"cache_read": usage.cached_tokens}
    if usage.reasoning_tokens:
        told["output_token_details"] = {"reasoning": usage.reasoning_tokens}
    return told
