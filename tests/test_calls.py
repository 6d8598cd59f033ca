"""What is decided before and between the sending: settings, options, clocks, retries."""

from __future__ import annotations

import json
import pickle
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic
from typing import Any

import h11
import httpx
import httpx2
import pytest

from autoglm_client import ConfigurationError, ConnectionFailed, DeadlineExceeded, RequestTimedOut, Timeouts
from autoglm_client._call import Call, Guard, translate
from autoglm_client._exchange import Configuration, read_shape
from autoglm_client._retry import read_retry_after
from autoglm_client._secret import SecretHeaders
from autoglm_client._transport import _proxy_for
from autoglm_client.defaults import ENDPOINTS, endpoint_for
from autoglm_client.errors import InvalidReply, StatusError
from autoglm_client.timeouts import CallClock
from autoglm_client.wire import Tokens


def configuration(base_url: str | None = "http://127.0.0.1:8000/v1", **settings: Any) -> Configuration:
    usual: dict[str, Any] = {
        "api_key": None,
        "model": None,
        "timeout": Timeouts(),
        "max_attempts": 3,
        "max_event_bytes": 1000,
        "headers": None,
        "options": None,
        "environment": {},
    }
    return Configuration(base_url=base_url, **(usual | settings))


def body_of(settings: Configuration, *, stream: bool = False, **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(settings.chat("x", options, stream=stream).content or b"")  # type: ignore[arg-type]
    return body


@pytest.mark.parametrize(
    ("given", "used"),
    [
        (None, "http://127.0.0.1:8000/v1"),
        ("http://host", "http://host/v1"),
        ("http://host/", "http://host/v1"),
        ("https://host:8443/v1/", "https://host:8443/v1"),
        ("https://host/api/paas/v4", "https://host/api/paas/v4"),
        ("http://host/v1/chat/completions", "http://host/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        (" http://host/v1 ", "http://host/v1"),
    ],
)
def test_base_urls(given: str | None, used: str) -> None:
    assert configuration(given).base_url == used


@pytest.mark.parametrize(
    "url", ["host:8000", "ftp://host", "http://", "http:///v1", "http://h:99999", "http://h?x=1", "http://h/#a", "x"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a server's address"):
        configuration(url)


def test_settings_in_their_order() -> None:
    theirs = {"PHONE_AGENT_BASE_URL": "http://theirs", "PHONE_AGENT_API_KEY": "t", "PHONE_AGENT_MODEL": "tm"}
    ours = {"AUTOGLM_BASE_URL": "http://ours", "AUTOGLM_API_KEY": "o", "AUTOGLM_MODEL": "om"}

    def settings(environment: dict[str, str], **arguments: Any) -> tuple[str, str, str | None]:
        made = configuration(arguments.pop("base_url", None), environment=environment, **arguments)
        headers = made.chat("x", {}, stream=False).headers
        return made.base_url, made.model, headers.get("authorization")

    assert settings({}) == ("http://127.0.0.1:8000/v1", "autoglm-phone-9b", None)
    assert settings(theirs) == ("http://theirs/v1", "tm", "Bearer t")
    assert settings(theirs | ours) == ("http://ours/v1", "om", "Bearer o")
    arguments = {"base_url": "http://a", "api_key": "a", "model": "am"}
    assert settings(theirs | ours, **arguments) == ("http://a/v1", "am", "Bearer a")


@pytest.mark.parametrize("key", ["schlüssel", "a\nb", "a\x00", "键"])
def test_keys_that_no_header_can_carry(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configuration(api_key=key)
    assert key not in str(caught.value)


def test_headers_of_ones_own() -> None:
    made = configuration(api_key="k", headers={"X-Team": "a", "X-Both": "client"})
    headers = made.chat("x", {"extra_headers": {"X-Both": "call"}}, stream=False).headers
    assert headers["x-team"] == "a"
    assert headers["x-both"] == "call"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("autoglm-client/")


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding"])
def test_where_a_body_ends_is_not_the_callers_to_say(name: str) -> None:
    with pytest.raises(ConfigurationError, match="where the body ends"):
        configuration(headers={name: "5"})
    with pytest.raises(ConfigurationError, match="where the body ends"):
        configuration().chat("x", {"extra_headers": {name: "5"}}, stream=False)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_hosted_endpoints_get_no_fields_that_they_may_refuse(endpoint: Any) -> None:
    assert endpoint_for(endpoint.base_url) is endpoint
    settings = configuration(endpoint.base_url)
    body = body_of(settings, stream=True)
    assert set(body) - {"stream_options"} == {"model", "messages", "stream"}
    assert body["model"] == endpoint.model
    assert ("stream_options" in body) is endpoint.stream_usage
    assert settings.health_urls() == (f"{endpoint.base_url}/models",)
    with pytest.raises(ConfigurationError, match="no known switch for thinking"):
        body_of(settings, thinking=True)
    assert body_of(settings, extra_body={"enable_thinking": True})["enable_thinking"] is True


@pytest.mark.parametrize(
    ("options", "template", "shown"),
    [
        ({}, None, None),
        ({"thinking": True}, {"enable_thinking": True}, True),
        ({"thinking": False}, {"enable_thinking": False}, False),
        ({"extra_body": {"enable_thinking": True, "return_reasoning": True}}, {"enable_thinking": True}, True),
        ({"extra_body": {"return_reasoning": False}}, None, False),
        ({"thinking": True, "include_reasoning": False}, {"enable_thinking": True}, False),
        ({"thinking": False, "chat_template_kwargs": {"a": 1}}, {"a": 1, "enable_thinking": False}, False),
    ],
    ids=str,
)
def test_thinking_in_vllms_own_words(options: dict[str, Any], template: Any, shown: bool | None) -> None:
    body = body_of(configuration(), **options)
    assert (body.get("chat_template_kwargs"), body.get("include_reasoning")) == (template, shown)
    assert not {"enable_thinking", "return_reasoning", "thinking", "extra_body"} & set(body)


@pytest.mark.parametrize(
    "options",
    [
        {"thinking": "no"},
        {"thinking": 0},
        {"extra_body": {"enable_thinking": "false"}},
        {"extra_body": {"return_reasoning": "no"}},
    ],
    ids=str,
)
def test_thinking_is_on_or_off(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="give True or False"):
        body_of(configuration(), **options)


def test_options_of_the_client_and_of_the_call() -> None:
    settings = configuration(options={"temperature": 0.0, "max_tokens": 5, "stop": "a"})
    body = body_of(settings, temperature=1.0, stop=None, tools=[], skip_special_tokens=True)
    assert (body["temperature"], body["max_tokens"], body["skip_special_tokens"]) == (1.0, 5, True)
    assert body["stop"] == "a"
    assert "tools" not in body
    assert body_of(settings, extra_body={"temperature": 2})["temperature"] == 2
    with pytest.raises(ConfigurationError, match="extra_body"):
        body_of(settings, surprise=1)


def test_what_the_caller_gave_is_not_changed() -> None:
    options = {"extra_body": {"enable_thinking": True}, "chat_template_kwargs": {"a": 1}}
    messages = [{"role": "user", "content": "x"}]
    configuration().chat(messages, options, stream=True)  # type: ignore[arg-type]
    assert options == {"extra_body": {"enable_thinking": True}, "chat_template_kwargs": {"a": 1}}
    assert messages == [{"role": "user", "content": "x"}]


def test_headers_replace_each_other_whatever_their_case() -> None:
    headers = configuration(api_key="k", headers={"AUTHORIZATION": "Basic x"}).chat("x", {}, stream=False).headers
    assert [value for name, value in headers.items() if name.lower() == "authorization"] == ["Basic x"]


@pytest.mark.parametrize(
    "settings",
    [
        *[{"max_attempts": value} for value in (0, 1.5, True, "3", None)],
        *[{"max_event_bytes": value} for value in (0, None, "x")],
        *[{"base_url": value} for value in (5, "http://a..b/v1", f"http://{'x' * 70}/v1", "http://me:secret@h/v1")],
        *[{"api_key": value} for value in (5, b"k")],
        *[{"headers": value} for value in ("x", {"X": 1}, {1: "a"}, {"X": "中"}, {"X": "a\nb"})],
        *[{"options": value} for value in (5, {"deadline": "x"}, {"deadline": float("nan")}, {"extra_body": 5})],
        *[{"timeout": value} for value in (float("inf"), 10**400, object())],
    ],
    ids=str,
)
def test_settings_that_cannot_be_used(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        configuration(**settings)
    assert "secret" not in str(caught.value)


def test_an_empty_key_is_no_key() -> None:
    made = configuration(api_key="", environment={"AUTOGLM_API_KEY": "k"})
    assert "authorization" not in made.chat("x", {}, stream=False).headers


def test_the_key_is_in_no_repr_and_no_pickle() -> None:
    made = configuration(api_key="sk-secret")
    call = made.chat("x", {}, stream=True)
    assert "sk-secret" not in repr(call) + repr(vars(made)) + repr(made)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(made)


@pytest.mark.parametrize("key", ["sk-secret", "sk/a", 'sk"a'])
def test_the_key_is_taken_out_of_every_error(key: str) -> None:
    call = configuration(api_key=key).chat("x", {}, stream=True)
    echo = StatusError(f"bad {key}", status=400, body=json.dumps({"key": key}), request_id=key)
    call.described(echo)
    assert key not in "".join(map(str, vars(echo).values())) + str(echo)
    assert json.dumps(key)[1:-1] not in echo.body
    with pytest.raises(ConnectionFailed) as caught, Guard(call):
        raise httpx2.RemoteProtocolError(f"illegal header {key}")
    assert key not in "".join(traceback.format_exception(caught.value))


def test_one_number_bounds_every_clock() -> None:
    assert Timeouts.of(3) == Timeouts(connect=3, send=3, first_token=3, between_tokens=3, total=3)
    assert Timeouts.of(30) == Timeouts(connect=5, send=30, first_token=30, between_tokens=20, total=30)
    assert Timeouts.of(600).first_token == 60
    assert Timeouts.of(None) == Timeouts(connect=5, send=30, first_token=None, between_tokens=None, total=None)
    assert Timeouts.of(Timeouts(total=1)) == Timeouts(total=1)


@pytest.mark.parametrize("value", [0, -1, float("nan"), "5", True])
def test_times_that_are_none(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"):
        Timeouts.of(value)
    with pytest.raises(ConfigurationError, match="timeout connect"):
        Timeouts(connect=-1)


def test_a_clock_without_limits() -> None:
    clock = CallClock(Timeouts.of(None))
    assert clock.remaining() is clock.within(None) is clock.for_next_event() is None
    clock.expect("first_token")
    assert clock.for_next_event() is None
    assert not clock.is_over()


def test_the_shortest_limit_counts() -> None:
    clock = CallClock(Timeouts(total=10, first_token=5, between_tokens=20), deadline=monotonic() + 3)
    clock.expect("first_token")
    assert 2.5 < (clock.for_next_event() or 0) <= 3
    assert 0.5 < (clock.within(1) or 0) <= 1
    clock.expect_tail()
    assert 0.3 < (clock.for_next_event() or 0) <= 0.5
    assert CallClock(Timeouts(total=10), deadline=monotonic() + 99).remaining() == pytest.approx(10, abs=0.5)


def test_a_clock_that_ran_out() -> None:
    late = CallClock(Timeouts(), deadline=monotonic() - 1)
    assert late.is_over()
    assert late.within(5) == 0.001
    assert isinstance(late.error("connect"), DeadlineExceeded)
    error = CallClock(Timeouts(connect=2)).error("connect")
    assert isinstance(error, RequestTimedOut)
    assert (error.clock, error.category) == ("connect", "timeout")
    assert "within 2 s" in str(error)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *[("2", 2.0), (" 1.5 ", 1.5), ("0", 0.0), (None, None), ("", None), ("-1", None), ("nan", None)],
        *[("inf", None), ("1e9", None), ("soon", None)],
        *[("1" * 30, float("1" * 30)), ("1.0000000000", 1.0)],
        *[
            ("9" * 300, float("9" * 300)),
            ("1" * 400, None),
            ("1." + "1" * 400, None),
            ("Wed, 99 Foo 2099 00:00:00 GMT", None),
        ],
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    assert read_retry_after(value) == seconds


def test_retry_after_a_date() -> None:
    then = datetime.now(UTC) + timedelta(seconds=30)
    assert read_retry_after(format_datetime(then, usegmt=True)) == pytest.approx(30, abs=2)
    assert read_retry_after(format_datetime(then - timedelta(days=1), usegmt=True)) == 0.0


@pytest.mark.parametrize("library", [httpx, httpx2], ids=lambda library: library.__name__)
@pytest.mark.parametrize(
    ("name", "kind", "clock"),
    [
        ("ConnectTimeout", RequestTimedOut, "connect"),
        ("PoolTimeout", RequestTimedOut, "connect"),
        ("WriteTimeout", RequestTimedOut, "send"),
        ("ReadTimeout", RequestTimedOut, "first_token"),
        ("ConnectError", ConnectionFailed, None),
        ("ReadError", ConnectionFailed, None),
        ("RemoteProtocolError", ConnectionFailed, None),
        ("LocalProtocolError", ConfigurationError, None),
        ("UnsupportedProtocol", ConfigurationError, None),
    ],
)
def test_foreign_errors(library: Any, name: str, kind: type[Exception], clock: str | None) -> None:
    call = Call(method="GET", url="http://h", headers=SecretHeaders({}), clock=CallClock(Timeouts()))
    error = translate(getattr(library, name)(""), call)
    assert type(error) is kind
    assert getattr(error, "clock", None) == clock


def test_an_error_of_h11_that_comes_through() -> None:
    call = Call(method="GET", url="http://h", headers=SecretHeaders({}), clock=CallClock(Timeouts()))
    assert isinstance(translate(h11.LocalProtocolError("Too much data"), call), ConfigurationError)
    assert isinstance(translate(h11.RemoteProtocolError("closed"), call), ConnectionFailed)


def test_errors_that_are_not_ours_to_translate() -> None:
    call = Call(method="GET", url="http://h", headers=SecretHeaders({}), clock=CallClock(Timeouts()))
    assert translate(KeyError("x"), call) is None
    ours = ConnectionFailed("x")
    assert translate(ours, call) is ours


def test_an_answer_of_another_shape() -> None:
    call = configuration().request("GET", "http://h")
    assert read_shape(Tokens, b'{"count":3,"surprise":1}', call) == Tokens(count=3)
    with pytest.raises(InvalidReply, match=r"what Tokens should be: \{\}"):
        read_shape(Tokens, b"{}", call)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://127.0.0.1:8000/v1", None),
        ("http://localhost/v1", None),
        ("http://glm.localhost/v1", None),
        ("http://[::1]/v1", None),
        ("http://192.168.1.5/v1", None),
        ("http://10.0.0.1/v1", None),
        ("http://100.64.0.1/v1", None),
        ("http://gpu-box:8000/v1", None),
        ("http://glm.local./v1", None),
        ("http://localhost.localdomain/v1", None),
        ("http://0x7f.1/v1", None),
        ("http://0177.0.0.0x1/v1", None),
        ("http://bypassed.example/v1", None),
        ("http://glm.example/v1", "http://proxy:1"),
        ("https://glm.example/v1", "http://proxy:2"),
    ],
)
def test_which_servers_are_reached_through_a_proxy(
    url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in [
        ("http_proxy", "http://proxy:1"),
        ("https_proxy", "http://proxy:2"),
        ("no_proxy", "bypassed.example"),
    ]:
        monkeypatch.setenv(name, value)
    assert _proxy_for(url) == proxy
