"""A server that speaks vLLM's HTTP without a model: ``rules`` answer, ``bodies`` write the answer as vLLM would."""

from .rules import Answer, ToolCall
from .server import RecordedRequest, ScriptedServer

__all__ = ["Answer", "RecordedRequest", "ScriptedServer", "ToolCall"]
