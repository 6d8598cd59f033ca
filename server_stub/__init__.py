"""Servers for AutoGLM-Phone-9B: engines that run the model, and a scripted one for where there is none."""

from .errors import EngineFailed, NotReady, PreflightFailed, ServeError
from .options import ServeOptions
from .process import Server
from .profiles import PROFILES, Profile
from .scripted import Answer, RecordedRequest, ScriptedServer, ToolCall

__all__ = [
    "PROFILES",
    "Answer",
    "EngineFailed",
    "NotReady",
    "PreflightFailed",
    "Profile",
    "RecordedRequest",
    "ScriptedServer",
    "ServeError",
    "ServeOptions",
    "Server",
    "ToolCall",
]
