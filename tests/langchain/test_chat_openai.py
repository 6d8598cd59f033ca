"""``chat_openai()`` asks the server that the client would ask, by the client's own rules."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from autoglm_client import defaults
from autoglm_client.langchain.chat_openai import chat_openai


def key(model: Any) -> str:
    return str(model.openai_api_key.get_secret_value())


@pytest.mark.parametrize(
    "given",
    ["http://phone.example:8000", "http://phone.example:8000/v1/", "http://phone.example:8000/v1/chat/completions"],
)
def test_the_address_is_read_as_the_client_reads_it(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chat_openai(base_url=given).openai_api_base == "http://phone.example:8000/v1"
    monkeypatch.setenv("AUTOGLM_BASE_URL", given)
    assert chat_openai().openai_api_base == "http://phone.example:8000/v1"


def test_an_empty_address_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_BASE_URL", "")
    assert chat_openai().openai_api_base == defaults.BASE_URL
    assert chat_openai(base_url="").openai_api_base == defaults.BASE_URL


def test_a_hosted_endpoint_is_known_by_its_route() -> None:
    model = chat_openai(base_url="https://open.bigmodel.cn/api/paas/v4/chat/completions", api_key="a-key")
    assert (model.openai_api_base, model.extra_body) == ("https://open.bigmodel.cn/api/paas/v4", None)


@pytest.mark.parametrize("given", [" a-key\n", SecretStr("a-key ")])
def test_a_key_loses_its_blanks(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert key(chat_openai(api_key=given)) == "a-key"
    monkeypatch.setenv("AUTOGLM_API_KEY", "a-key\n")
    assert key(chat_openai()) == key(chat_openai(api_key=None)) == "a-key"


def test_an_empty_key_sends_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_API_KEY", "a-key")
    assert key(chat_openai(api_key="")) == "EMPTY"


def test_a_key_that_no_header_can_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="no text that an HTTP header can carry"):
        chat_openai(api_key="键")


def test_a_function_may_give_the_key() -> None:
    model = chat_openai(api_key=lambda: "a-key")
    assert callable(model.openai_api_key)
