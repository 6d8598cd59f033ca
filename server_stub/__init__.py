"""Servers to use AutoGLM-Phone-9B with: the scripted one that needs no model."""

from .scripted import Answer, RecordedRequest, ScriptedServer, ToolCall

__all__ = ["Answer", "RecordedRequest", "ScriptedServer", "ToolCall"]
