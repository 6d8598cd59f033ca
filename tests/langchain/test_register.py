"""The model by its name: ``init_chat_model("autoglm:...")``, a model that is configured per call, and agents."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.chat_models import base, init_chat_model
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from pydantic import BaseModel

from autoglm_client import ConfigurationError
from autoglm_client.langchain import ChatAutoGLM, register
from server_stub import ScriptedServer

OTHER = "autoglm-phone"


@pytest.fixture(autouse=True)
def _own_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The table as it was is put back."""
    monkeypatch.setattr(base, "_BUILTIN_PROVIDERS", dict(base._BUILTIN_PROVIDERS))
    yield
    base._get_chat_model_creator.cache_clear()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    with ScriptedServer(aliases=[OTHER]) as server:
        monkeypatch.setenv("AUTOGLM_BASE_URL", server.base_url)
        yield server


def models(server: ScriptedServer) -> list[str]:
    return [str((it.body or {})["model"]) for it in server.requests]


def test_before_it_is_called_the_name_is_unknown() -> None:
    with pytest.raises(ValueError, match="autoglm"):
        init_chat_model("autoglm:autoglm-phone-9b")


@pytest.mark.parametrize("times", [1, 2])
def test_the_name_is_known(server: ScriptedServer, times: int) -> None:
    for _ in range(times):
        register()
    for model in (
        init_chat_model("autoglm:autoglm-phone-9b", temperature=0.5),
        init_chat_model("autoglm-phone-9b", model_provider="autoglm", temperature=0.5),
    ):
        assert isinstance(model, ChatAutoGLM)
        assert (model.model, model.temperature, model.base_url) == ("autoglm-phone-9b", 0.5, server.base_url)
        assert "Hello" in model.invoke("Hello").text


class Mood(BaseModel):
    """How somebody is."""

    mood: str


async def test_a_model_that_is_configured_per_call(server: ScriptedServer) -> None:
    register()
    model: Any = init_chat_model("autoglm:autoglm-phone-9b", configurable_fields=("model", "temperature"))
    config: Any = {"configurable": {"model": f"autoglm:{OTHER}", "temperature": 0.25}}
    model.invoke("Hello")
    model.invoke("Hello", config)
    await model.ainvoke("Hello", config)
    list(model.stream("Hello", config))
    assert model.with_structured_output(Mood).invoke('My mood is "fine"', config) == Mood(mood="fine")
    assert models(server) == ["autoglm-phone-9b", *[OTHER] * 4]
    assert [(it.body or {}).get("temperature") for it in server.requests] == [None, *[0.25] * 4]


def test_a_model_without_a_default(server: ScriptedServer) -> None:
    register()
    model: Any = init_chat_model(configurable_fields="any", config_prefix="phone")
    config: Any = {"configurable": {"phone_model": f"autoglm:{OTHER}", "phone_max_tokens": 7}}
    assert model.bind_tools([look]).invoke("Look", config).tool_calls[0]["name"] == "look"
    assert models(server)[-1] == OTHER
    assert (server.requests[-1].body or {})["max_tokens"] == 7


@tool
def look() -> str:
    """Look."""
    return "a tree"


def test_an_agent_by_name(server: ScriptedServer) -> None:
    register()
    agent: Any = create_agent("autoglm:autoglm-phone-9b", [look])
    assert agent.invoke({"messages": [("user", "Look")]})["messages"][-1].text == "The tool says: a tree"


def test_fields_of_the_model_itself(server: ScriptedServer) -> None:
    """LangChain's own way, which needs no name."""
    model = ChatAutoGLM(base_url=server.base_url).configurable_fields(temperature=ConfigurableField(id="warmth"))
    model.invoke("Hello", {"configurable": {"warmth": 0.75}})
    assert (server.requests[-1].body or {})["temperature"] == 0.75
    either = ChatAutoGLM(base_url="http://127.0.0.1:9/v1").configurable_alternatives(
        ConfigurableField(id="where"), here=ChatAutoGLM(base_url=server.base_url)
    )
    assert "Hello" in str(either.invoke("Hello", {"configurable": {"where": "here"}}).content)


def test_without_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(ConfigurationError, match="pip install"):
        register()


@pytest.mark.parametrize("inside", [None, [], {}, {"openai": "langchain_openai"}, {"openai": ("a", "b")}])
def test_a_langchain_that_is_different_inside(monkeypatch: pytest.MonkeyPatch, inside: Any) -> None:
    monkeypatch.setattr(base, "_BUILTIN_PROVIDERS", inside)
    with pytest.raises(ConfigurationError, match="pass ChatAutoGLM"):
        register()
    monkeypatch.delattr(base, "_BUILTIN_PROVIDERS")
    with pytest.raises(ConfigurationError, match="pass ChatAutoGLM"):
        register()


def test_the_row_names_a_class_that_is_there() -> None:
    register()
    module, name, _ = base._BUILTIN_PROVIDERS["autoglm"]
    assert getattr(importlib.import_module(module), name) is ChatAutoGLM
