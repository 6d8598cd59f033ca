"""The fields of `ChatAutoGLM`: how they reach the client, and what LangChain stores and traces of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, Self, cast

from langchain_core.language_models import BaseChatModel, LangSmithParams, ModelProfile
from langchain_core.load.serializable import SerializedConstructor
from langchain_core.utils import from_env, secret_from_env
from pydantic import (
    AliasChoices,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    SkipValidation,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .. import Timeouts, __version__, defaults
from .._secret import Secret, SecretHeaders, without_secrets
from .clients import Clients
from .convert import ReasoningInHistory
from .metadata import PROVIDER
from .structured import response_format

__all__ = ["Settings"]

_key_of_the_environment = secret_from_env(["AUTOGLM_API_KEY", "PHONE_AGENT_API_KEY"], default=None)
_SENT = (
    *("model", "temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed", "n", "logprobs", "top_logprobs"),
    *("frequency_penalty", "presence_penalty", "repetition_penalty", "thinking", "extra_body"),
)
_READ_BY_US = ("base_url", "reasoning_in_history", "tool_calling", "output_version")


class Settings(BaseChatModel):
    """The settings of a chat model, and the clients that they make."""

    model_config = ConfigDict(
        populate_by_name=True, arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True
    )

    model: str = Field(
        default_factory=from_env(["AUTOGLM_MODEL", "PHONE_AGENT_MODEL"], default=""),
        validation_alias=AliasChoices("model", "model_name"),
    )
    base_url: str = Field(
        default_factory=from_env(["AUTOGLM_BASE_URL", "PHONE_AGENT_BASE_URL"], default=defaults.BASE_URL)
    )
    api_key: SecretStr | None = Field(default_factory=_key_of_the_environment)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: list[str] | str | None = Field(default=None, validation_alias=AliasChoices("stop", "stop_sequences"))
    n: int | None = None
    """How many answers ``generate`` gives; a stream has one."""
    logprobs: bool | None = None
    top_logprobs: int | None = None
    thinking: bool | None = None
    """Let the model think first, or not."""
    reasoning_in_history: ReasoningInHistory = "tags"
    """How earlier thinking is sent back: within tags, as the model was trained; in vLLM's field; or not at all."""
    tool_calling: Literal["auto", "server", "client"] = "auto"
    """Who reads tool calls: the server's parser, this client (any server will do), or whichever works, asked once."""
    allow_remote_images: bool = False
    """Let the server fetch what a block names by an http(s) URL, be it picture, sound or film; else it is refused."""
    streaming: bool = False
    """Let ``invoke`` stream, too."""
    stream_usage: bool = True
    """Ask for the usage in streams."""
    timeout: SkipValidation[float | Timeouts | None] = Timeouts()
    """Seconds for a whole call, or each clock by itself."""
    max_retries: int = defaults.MAX_ATTEMPTS - 1
    """How often a call is sent again after a failure that may pass."""
    default_headers: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Those whose names tell that they are secret are in no dump and no pickle."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
    """Further options of :class:`~autoglm_client.ChatOptions` for every call."""
    extra_body: dict[str, Any] | None = None
    """Fields of the request that have no name in ``ChatOptions``."""
    http_client: SkipValidation[Any] = Field(default=None, exclude=True)
    """An ``httpx2.Client`` or ``httpx.Client`` of your own."""
    http_async_client: SkipValidation[Any] = Field(default=None, exclude=True)
    """The same for async calls."""

    _connected: Clients = PrivateAttr(default_factory=lambda: Clients({}))

    @field_validator("model", "base_url", "max_retries", "default_headers", mode="before")
    @classmethod
    def _none_is_the_default(cls, value: object, info: ValidationInfo) -> object:
        field = cls.model_fields[str(info.field_name)]
        return field.get_default(call_default_factory=True, validated_data={}) if value is None else value

    @field_validator("timeout", mode="before")
    @classmethod
    def _read_timeout(cls, value: object) -> object:
        return Timeouts(**value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check the settings by making the client, which opens no connection, and take over what it made of them."""
        clients = self._clients
        self.base_url, self.model = clients.client.base_url, clients.client.model
        clients.settings = self._client_settings()
        self._add_version("autoglm-client", __version__)
        return self

    @property
    def _clients(self) -> Clients:
        """The clients of the settings as they are now: fields can be changed, and copies made with other ones."""
        wanted = Clients(self._client_settings(), self.http_client, self.http_async_client)
        if self._connected != wanted:
            self._connected = wanted
        return self._connected

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        shared = [client for client in (self.http_client, self.http_async_client) if client is not None]
        return super().__deepcopy__({**(memo or {}), **{id(client): client for client in shared}})

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        left_out = {"api_key": None, "http_client": None, "http_async_client": None}
        return {**state, "__dict__": _shown(state["__dict__"]) | left_out}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        self.api_key = _key_of_the_environment()  # a pickle holds no key

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that changes an answer: two models share cached answers only when all of it is equal."""
        return _shown(self._sent_options()) | {name: getattr(self, name) for name in _READ_BY_US}

    @property
    def lc_secrets(self) -> dict[str, str]:
        """Where LangChain finds the key that it leaves out of a serialized model."""
        return {"api_key": "AUTOGLM_API_KEY"}

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """The clocks in a form that JSON has."""
        return {"timeout": asdict(self.timeout)} if isinstance(self.timeout, Timeouts) else {}

    def to_json(self) -> SerializedConstructor:
        """What ``dumps`` writes: no key and no secret header."""
        written = cast("SerializedConstructor", super().to_json())  # as it is serializable
        return {**written, "kwargs": _shown(written["kwargs"])}

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop=stop, **_shown(kwargs))

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """``dumps`` writes it; ``loads(..., allowed_objects="all", valid_namespaces=["autoglm_client"])`` reads it."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where it is imported from."""
        return ["autoglm_client", "langchain"]

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        options = self._sent_options() | {name: value for name, value in kwargs.items() if value is not None}
        params = LangSmithParams(ls_provider=PROVIDER, ls_model_name=options["model"], ls_model_type="chat")
        if "temperature" in options:
            params["ls_temperature"] = options["temperature"]
        if "max_tokens" in options:
            params["ls_max_tokens"] = options["max_tokens"]
        if stops := stop or options.get("stop"):
            params["ls_stop"] = [stops] if isinstance(stops, str) else stops
        return params

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        key = {**self._identifying_params, **_shown(kwargs), "stop": stop or self.stop}
        return json.dumps(key, sort_keys=True, default=_written)

    def _resolve_model_profile(self) -> ModelProfile:
        return ModelProfile(
            max_input_tokens=defaults.CONTEXT,
            text_inputs=True,
            image_inputs=True,
            image_url_inputs=bool(self._sent_options()["allow_remote_images"]),
            image_tool_message=True,
            text_outputs=True,
            reasoning_output=True,
            tool_calling=True,
            tool_choice=True,
            structured_output=True,
        )

    def _client_settings(self) -> dict[str, Any]:
        return {
            "base_url": self.base_url,
            "api_key": Secret(self.api_key.get_secret_value() if self.api_key else ""),
            "model": self.model or None,
            "timeout": self.timeout,
            "max_attempts": self.max_retries + 1,
            "headers": SecretHeaders(dict(self.default_headers)),
            "allow_remote_images": self.allow_remote_images,
            "options": _hidden(self.model_kwargs),
        }

    def _sent_options(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in _SENT}
        given = {name: value for name, value in fields.items() if value is not None}
        return {"allow_remote_images": self.allow_remote_images, **self.model_kwargs, **given}


def _shown(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What may be written down or traced: all but the headers that are secret."""
    shown = dict(settings)
    for name in ("default_headers", "extra_headers"):
        if isinstance(headers := shown.get(name), Mapping):
            shown[name] = without_secrets(headers)
    if isinstance(kwargs := shown.get("model_kwargs"), Mapping):
        shown["model_kwargs"] = _shown(kwargs)
    return shown


def _hidden(options: Mapping[str, Any]) -> dict[str, Any]:
    headers = options.get("extra_headers")
    return {**options, "extra_headers": SecretHeaders(headers)} if isinstance(headers, Mapping) else dict(options)


def _written(value: object) -> object:
    """A form of answer counts by what it says: a class may have been changed under the same name."""
    return response_format(value) if isinstance(value, type) else str(value)
