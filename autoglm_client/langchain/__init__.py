"""AutoGLM-Phone-9B in LangChain: a chat model, a parser of phone actions, and the tools that carry them out."""

from .blocks import register_blocks
from .chat_model import ChatAutoGLM
from .chat_openai import chat_openai
from .device import Device
from .parsers import ActionOutputParser
from .phone import first_message, phone_tools
from .register import register
from .serialization import make_loadable

__all__ = ["ActionOutputParser", "ChatAutoGLM", "Device", "chat_openai", "first_message", "phone_tools", "register"]

register_blocks()
make_loadable(ChatAutoGLM)
