"""Servers to use AutoGLM-Phone-9B with: the scripted one that needs no model."""

from ._script import Answer, ToolCall
from .scripted import RecordedRequest, ScriptedServer

__all__ = ["Answer", "RecordedRequest", "ScriptedServer", "ToolCall"]
