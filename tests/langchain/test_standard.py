"""LangChain's own standard suites, on the scripted server: every wire form, output version and way of calling tools."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.conftest import base_vcr_config
from langchain_tests.unit_tests import ChatModelUnitTests

from autoglm_client.langchain import ChatAutoGLM
from server_stub import ScriptedServer

from .suite import MODEL, OTHER_NAME, Integration


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatAutoGLM

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODEL}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        environment = {
            "AUTOGLM_API_KEY": "a-key",
            "AUTOGLM_BASE_URL": "https://phone.example/v1",
            "AUTOGLM_MODEL": "a-model",
        }
        expected = {"api_key": "a-key", "base_url": "https://phone.example/v1", "model": "a-model"}
        return environment, {}, expected


class Scripted(Integration):
    """The script takes any picture of an allowed domain for granted; it has no cache to read from."""

    server: ClassVar[dict[str, Any]]

    def __init_subclass__(cls, *, reasoning: str = "tags", tool_parser: bool = True, **options: Any) -> None:
        cls.server = {"reasoning": reasoning, "tool_parser": tool_parser}
        counted = "reasoning_output" if reasoning in {"reasoning", "reasoning_content"} else ""
        super().__init_subclass__(tells=counted, **{"allow_remote_images": True, **options})

    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        domains = ["raw.githubusercontent.com"]
        with ScriptedServer(aliases=[OTHER_NAME], allowed_media_domains=domains, **self.server) as server:
            self.base_url = server.base_url
            yield


class TestTags(Scripted, reasoning="tags"):
    pass


class TestNoRemotePictures(Scripted, allow_remote_images=False):
    """As it is when nothing is said."""


class TestTagsInBlocks(Scripted, reasoning="tags", method="function_calling", output_version="v1"):
    pass


class TestStrippedTags(Scripted, reasoning="stripped", streaming=True):
    pass


class TestReasoning(Scripted, reasoning="reasoning", tool_calling="server"):
    pass


class TestReasoningContent(Scripted, reasoning="reasoning_content", method="function_calling"):
    pass


class TestReasoningContentInBlocks(Scripted, reasoning="reasoning_content", output_version="v1", streaming=True):
    pass


class TestToolsInText(Scripted, reasoning="tags", tool_parser=False, tool_calling="client"):
    pass


class TestToolsInTextInBlocks(
    Scripted, reasoning="tags", tool_parser=False, method="function_calling", output_version="v1"
):
    pass


class TestToolsInTextAfterReasoning(Scripted, reasoning="reasoning", tool_parser=False, method="function_calling"):
    pass


class OfTheUser(Scripted):
    """On the user's own clients, which are httpx's."""

    clients: dict[str, Any]

    @pytest.fixture(autouse=True)
    async def _clients(self) -> AsyncIterator[None]:
        with httpx.Client(event_hooks={"request": [self.sent]}) as http:
            async with httpx.AsyncClient(event_hooks={"request": [self.asent]}) as async_http:
                self.clients = {"http_client": http, "http_async_client": async_http}
                yield

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return super().chat_model_params | self.clients

    def sent(self, request: httpx.Request) -> None:
        """Is told each request before it is sent."""

    async def asent(self, request: httpx.Request) -> None:
        self.sent(request)


class TestClientsOfTheUser(OfTheUser):
    """Unlike httpx2, vcrpy sees httpx; to record again: ``--record-mode=rewrite -k test_stream_time``."""

    enable_vcr_tests = True

    @pytest.fixture
    def vcr_config(self) -> dict[str, Any]:
        here = {"match_on": ["method", "uri"], "before_record_request": _at_port_8000}
        config = base_vcr_config() | here
        return {name: value for name, value in config.items() if name not in {"record_mode", "cassette_library_dir"}}


class TestHostedEndpoint(OfTheUser, tool_calling="server"):
    """One that is known by its address: it gets no options of vLLM's own, and no tags are seen."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return super().chat_model_params | {"base_url": "https://api.parasail.io/v1"}

    def sent(self, request: httpx.Request) -> None:
        assert "skip_special_tokens" not in json.loads(request.content)
        request.url = httpx.URL(self.base_url).join(request.url.path)


def _at_port_8000(request: Any) -> Any:
    request.uri = re.sub(r":\d+/", ":8000/", request.uri)
    return request
