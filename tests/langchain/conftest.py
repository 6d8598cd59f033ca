"""A model of the scripted server."""

from __future__ import annotations

import pytest

from autoglm_client.langchain import ChatAutoGLM
from server_stub import ScriptedServer


@pytest.fixture
def model(server: ScriptedServer) -> ChatAutoGLM:
    return ChatAutoGLM(base_url=server.base_url, max_retries=0)
