"""Everything about a call but the sending: where it goes, what it says, and how to read what comes back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from . import defaults
from ._assembler import Assembler
from ._call import Call, Head
from ._checks import (
    checked_count,
    checked_headers,
    checked_key,
    checked_options,
    checked_switch,
    checked_url,
    encoded,
    warn_of_clear_text,
)
from ._redirect import redirection
from ._retry import Policy, budget_of, read_retry_after
from ._secret import Secret, SecretHeaders
from ._status import status_error
from .errors import ConfigurationError, InvalidReply, StatusError
from .messages import Message, Messages, as_messages
from .timeouts import CallClock, Timeouts
from .wire import CLIENT_OPTIONS, ChatOptions, reader

__all__ = ["Configuration", "read_shape"]

T = TypeVar("T")

_REQUIRED_HEADERS = {"accept-encoding": "identity", "user-agent": f"autoglm-client/{defaults.__version__}"}


class Configuration:
    """What does not change from call to call, read from arguments, then the environment, then the defaults."""

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str | Secret | None,
        model: str | None,
        timeout: float | Timeouts | None,
        max_attempts: int,
        max_event_bytes: int,
        headers: Mapping[str, str] | None,
        options: ChatOptions | None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = checked_url(base_url or _from_environment(environment, "BASE_URL") or defaults.BASE_URL)
        self.endpoint = defaults.endpoint_for(self.base_url)
        self.model = model or _from_environment(environment, "MODEL") or self.endpoint.model
        self.timeouts = Timeouts.of(timeout)
        self.max_attempts = checked_count("max_attempts", max_attempts)
        self.budget = budget_of(self.base_url)
        self.max_event_bytes = checked_count("max_event_bytes", max_event_bytes)
        self.options = _with_hidden_headers(checked_options({} if options is None else options))
        given = Secret.of(_from_environment(environment, "API_KEY") if api_key is None else api_key)  # "" sends none
        self._key = checked_key(given or Secret(""))
        self._headers = SecretHeaders(checked_headers({} if headers is None else headers))
        warn_of_clear_text(self.base_url, self._key.value)

    @property
    def root(self) -> str:
        """The server's own address, where vLLM has the routes that are not OpenAI's."""
        return self.base_url.removesuffix("/v1")

    def chat(self, messages: Messages, options: ChatOptions, *, stream: bool) -> Call:
        """Prepare a chat completion."""
        merged = {**self.options, **checked_options(options)}
        body = self._body(_checked_messages(messages, merged), merged, stream=stream)
        timeouts, deadline = self._times(merged)
        stop_on_repetition = stream and merged.get("stop_on_repetition", False)

        def new_assembler() -> Assembler:
            return Assembler(
                n=body.get("n") or 1,
                json=_asks_for_json(body),
                stop_on_repetition=stop_on_repetition,
                max_event_bytes=self.max_event_bytes,
            )

        return Call(
            method="POST",
            url=f"{self.base_url}/chat/completions",
            headers=self._all_headers(merged.get("extra_headers", {})),
            content=encoded(body),
            clock=CallClock(timeouts if stream else timeouts.without_token_clocks(), deadline),
            new_assembler=new_assembler,
            resume=merged.get("resume", "never"),
        )

    def policy(self, call: Call) -> Policy:
        """When this call is made again."""
        return Policy(self.max_attempts, call.clock, self.budget)

    def clock(self, seconds: float) -> CallClock:
        """Clocks for something that takes several calls."""
        return CallClock(Timeouts(total=seconds, first_token=None))

    def health_urls(self) -> tuple[str, ...]:
        """Where to ask whether the server is well: vLLM, Ray Serve; hosted endpoints have only the list of models."""
        if self.endpoint.extensions:
            return f"{self.root}/health", f"{self.root}/-/healthz", f"{self.base_url}/models"
        return (f"{self.base_url}/models",)

    def tokenize(self, prompt: Messages, template: bool, extra: Mapping[str, Any], options: ChatOptions) -> Call:
        """Prepare a call of vLLM's ``/tokenize``, which looks at pictures, too; it takes few of the options."""
        merged = {**self.options, **checked_options(options)}
        if "messages" in extra:
            _checked_messages(extra["messages"], merged)
        if template:
            body = {"model": self.model, "messages": _checked_messages(prompt, merged), **extra}
        elif isinstance(prompt, str):
            body = {"model": self.model, "prompt": prompt, "add_special_tokens": False, **extra}
        else:
            raise ConfigurationError("tokenize(template=False) takes a string: only a template makes one of messages")
        clock = CallClock(self.timeouts.without_token_clocks(), options.get("deadline"))
        return self.request("POST", f"{self.root}/tokenize", body, clock=clock)

    def request(
        self, method: str, url: str, body: Mapping[str, Any] | None = None, *, clock: CallClock | None = None
    ) -> Call:
        """Prepare a call of another route."""
        return Call(
            method=method,
            url=url,
            headers=self._all_headers({}),
            content=None if body is None else encoded(body),
            clock=clock or CallClock(self.timeouts.without_token_clocks()),
        )

    def _times(self, options: Mapping[str, Any]) -> tuple[Timeouts, float | None]:
        timeouts = Timeouts.of(options["timeout"]) if "timeout" in options else self.timeouts
        return timeouts, options.get("deadline")

    def _all_headers(self, extra: Mapping[str, str]) -> SecretHeaders:
        extra = SecretHeaders(checked_headers(extra))
        own = {**_REQUIRED_HEADERS, "content-type": "application/json"}
        if self._key.value:
            own["authorization"] = f"Bearer {self._key.value}"
        return SecretHeaders({**own, **self._headers, **extra})

    def _body(self, messages: list[Any], options: Mapping[str, Any], *, stream: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": messages}
        if self.endpoint.extensions:
            body["skip_special_tokens"] = False  # or the server strips the think and answer tags
        if stream and self.endpoint.stream_usage:
            body["stream_options"] = {"include_usage": True}
            if self.endpoint.extensions and options.get("resume", "never") != "never":
                body["stream_options"]["continuous_usage_stats"] = True  # or nobody knows what a cut answer has cost
        body.update({name: value for name, value in options.items() if name not in CLIENT_OPTIONS})
        extra = dict(options.get("extra_body") or {})
        self._set_thinking(body, extra, options.get("thinking"))
        body.update(extra)
        if "messages" in extra:
            _checked_messages(extra["messages"], options)
        if not body.get("tools", True):
            del body["tools"]  # vLLM refuses an empty list
        return body | {"stream": stream}  # said in any case: some hosts stream unless told not to

    def _set_thinking(self, body: dict[str, Any], extra: dict[str, Any], thinking: bool | None) -> None:
        if not self.endpoint.extensions:
            if thinking is not None:
                raise ConfigurationError(f"{self.endpoint.name} has no known switch for thinking; see extra_body=")
            return
        # Articles put these two into extra_body; vLLM ignores them silently, so they are said in its own words.
        thinking = extra.pop("enable_thinking", thinking)
        shown = extra.pop("return_reasoning", thinking)
        if thinking is not None:
            thinking = checked_switch("thinking", thinking)
            body["chat_template_kwargs"] = {**body.get("chat_template_kwargs", {}), "enable_thinking": thinking}
        if shown is not None:
            body.setdefault("include_reasoning", checked_switch("return_reasoning", shown))

    def failure(self, head: Head, body: bytes) -> StatusError:
        """The error for an answer whose status is not 200."""
        text = body.decode("utf-8", "replace")
        try:
            decoded = json.loads(text)
        except (ValueError, RecursionError):
            decoded = text
        return status_error(
            head.status_code,
            redirection(head.headers.get("location")) if 300 <= head.status_code < 400 else decoded,
            text=text,
            request_id=head.headers.get("x-request-id"),
            retry_after=read_retry_after(head.headers.get("retry-after")),
        )


def _checked_messages(prompt: Messages, options: Mapping[str, Any]) -> list[Message]:
    return as_messages(prompt, allow_remote_images=options.get("allow_remote_images", False))


def _asks_for_json(body: Mapping[str, Any]) -> bool:
    form, constraint = body.get("response_format"), body.get("structured_outputs")
    if isinstance(form, Mapping) and form.get("type") in {"json_schema", "json_object", "structural_tag"}:
        return True
    return isinstance(constraint, Mapping) and bool(constraint.get("json") or constraint.get("json_object"))


def read_shape(shape: type[T], body: bytes, call: Call) -> T:
    """Decode the answer of another route."""
    with suppress(ValueError):
        value: T = reader(shape)(body)  # type: ignore[arg-type]  # every class is hashable
        return value
    excerpt = call.headers.hidden(body[:200].decode("utf-8", "replace"))
    del body  # the server may echo the key, and a reporter of errors may show locals
    raise call.described(InvalidReply(f"the server's answer is not what {shape.__name__} should be: {excerpt}"))


def _with_hidden_headers(options: dict[str, Any]) -> dict[str, Any]:
    extra = options.get("extra_headers")
    return options if extra is None else {**options, "extra_headers": SecretHeaders(extra)}


def _from_environment(environment: Mapping[str, str] | None, name: str) -> str | None:
    """Our own variable, or the one that users of Open-AutoGLM have set already."""
    environment = os.environ if environment is None else environment
    return environment.get(f"AUTOGLM_{name}") or environment.get(f"PHONE_AGENT_{name}")
