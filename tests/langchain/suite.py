"""LangChain's standard suite with what the tests of every server share: our model, pictures of our own, usage."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any, ClassVar

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_tests.integration_tests import ChatModelIntegrationTests

from autoglm_client.langchain import ChatAutoGLM
from server_stub.screen import draw_screen

__all__ = ["MODEL", "OTHER_NAME", "Integration"]

MODEL = "autoglm-phone-9b"
OTHER_NAME = "autoglm-phone"


class Integration(ChatModelIntegrationTests):
    """All that AutoGLM can take: not sound and not PDF, which vLLM refuses.

    A class names its ``method`` of structured output, what it ``tells`` of the usage, and options of the model.
    """

    base_url: str
    options: ClassVar[dict[str, Any]]
    method: ClassVar[str]
    tells: ClassVar[list[str]]

    def __init_subclass__(cls, *, method: str = "json_schema", tells: str = "", **options: Any) -> None:
        cls.method, cls.tells, cls.options = method, tells.split(), options

    supports_json_mode = True
    supports_image_inputs = True
    supports_image_tool_message = True
    supports_anthropic_inputs = True
    model_override_value = OTHER_NAME

    @pytest.fixture(autouse=True)
    def _no_internet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The suite fetches its pictures; a screen of our own will do."""

        def get(url: str, **_: Any) -> httpx.Response:
            return httpx.Response(200, content=draw_screen(112, 224, []), request=httpx.Request("GET", url))

        monkeypatch.setattr(httpx, "get", get)

    @property
    def supports_image_urls(self) -> bool:
        return bool(self.options.get("allow_remote_images"))

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatAutoGLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODEL, "base_url": self.base_url, **self.options}

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": self.method}

    @property
    def supported_usage_metadata_details(self) -> dict[Any, Any]:
        return {"invoke": self.tells, "stream": self.tells}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._answered(stream=stream)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        self._answered(stream=stream)  # now its prompt is in the cache
        return self._answered(stream=stream)

    def _answered(self, *, stream: bool) -> AIMessage:
        model = self.chat_model_class(**{**self.standard_chat_model_params, **self.chat_model_params})
        question = "Open Settings. " * 60  # more than a block of the cache
        if not stream:
            return model.invoke(question)
        chunks: list[AIMessageChunk] = list(model.stream(question))
        return reduce(add, chunks)
