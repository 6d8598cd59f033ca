"""P20, P21 and P22: where key and prompt go, and by what names a call is known there."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from autoglm_client import AutoGLM, InsecureConnection, Redirected, _checks
from autoglm_client._redirect import followed, redirection

from ..conftest import ClientFactory
from ..raw_server import HEAD, delta, finish, plain, raw_server

ANSWER = plain(b'{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}')
BUSY = plain(b"", "503 Service Unavailable")


def header(request: bytes, name: str) -> str | None:
    found = re.search(rf"(?im)^{name}: (.*?)\r$".encode(), request.partition(b"\r\n\r\n")[0] + b"\r\n")
    return found[1].decode() if found else None


def redirect(location: str, status: int = 307) -> bytes:
    return plain(b"", f"{status} Moved", f"Location: {location}")


def test_p07_every_attempt_and_every_call_has_its_name(make_client: ClientFactory) -> None:
    with raw_server([BUSY], [BUSY], [ANSWER]) as server:
        glm = make_client(server.url)
        glm.chat("x")
        glm.chat("x")
        calls = [header(request, "Idempotency-Key") for request in server.requests]
        assert [header(request, "X-Request-Id") for request in server.requests] == [
            *[f"{calls[0]}-{number}" for number in (1, 2, 3)],
            f"{calls[3]}-1",
        ]
        assert len(set(calls)) == 2
        assert all(call and re.fullmatch("[0-9a-f]{24}", call) for call in calls)


def test_p07_names_of_the_users_own_win(make_client: ClientFactory) -> None:
    with raw_server([ANSWER]) as server:
        make_client(server.url, headers={"x-request-ID": "mine"}).chat("x", extra_headers={"Idempotency-Key": "ours"})
        (request,) = server.requests
        assert (header(request, "X-Request-Id"), header(request, "Idempotency-Key")) == ("mine", "ours")


@pytest.mark.parametrize("status", [307, 308])
def test_p21_the_same_server_may_send_elsewhere(make_client: ClientFactory, status: int) -> None:
    with raw_server([redirect("/v2/chat", status)], [ANSWER]) as server:
        reply = make_client(server.url, api_key="sk-secret").chat("x")
        assert (reply.text, reply.attempts) == ("hello", 1)
        first, second = server.requests
        assert second.startswith(b"POST /v2/chat HTTP/1.1")
        assert second.partition(b"\r\n\r\n")[2] == first.partition(b"\r\n\r\n")[2]
        assert header(second, "authorization") == "Bearer sk-secret"


def test_p21_also_for_a_stream_and_other_routes(make_client: ClientFactory) -> None:
    with raw_server([redirect("?again=1")], [HEAD, delta("a"), finish()]) as server:
        with make_client(server.url).stream("x") as stream:
            assert stream.finish().text == "a"
        assert server.requests[1].startswith(b"POST /v1/chat/completions?again=1 ")
    with raw_server([redirect("/models")], [plain(b'{"data":[]}')]) as server:
        assert make_client(server.url).models() == []


def test_p21_a_loop_of_redirects_ends(make_client: ClientFactory) -> None:
    with raw_server([redirect("/v1/chat/completions")]) as server, pytest.raises(Redirected):
        make_client(server.url).chat("x")
    assert len(server.requests) == 4


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
def test_p21_nothing_is_sent_to_another_server(make_client: ClientFactory, status: int) -> None:
    with raw_server([ANSWER]) as elsewhere, raw_server([redirect(f"{elsewhere.url}/secret", status)]) as server:
        asks: list[Callable[[Any], Any]] = [
            lambda glm: glm.chat("x"),
            lambda glm: glm.stream("x").__enter__(),
            lambda glm: glm.models(),
        ]
        for ask in asks:
            with pytest.raises(Redirected) as caught:
                ask(make_client(server.url, api_key="sk-secret"))
            error = caught.value
            assert elsewhere.url.removesuffix("/v1") in str(error)
            assert "secret" not in str(error)
            assert (error.category, error.retryable, error.status, error.attempts) == ("redirect", False, status, 1)
        assert (elsewhere.requests, len(server.requests)) == ([], 3)


@pytest.mark.parametrize("status", [300, 301, 302, 303])
def test_p21_a_post_never_becomes_a_get(make_client: ClientFactory, status: int) -> None:
    with raw_server([redirect("/v1/chat/completions", status)]) as server, pytest.raises(Redirected):
        make_client(server.url).chat("x")
    assert len(server.requests) == 1


@pytest.mark.parametrize("location", ["/v1/\x7f", "/v1/" + "x" * 9_000, "/v1/" + "x" * 70_000])
def test_p21_an_address_that_is_none_is_the_servers_fault(make_client: ClientFactory, location: str) -> None:
    with raw_server([redirect(location)]) as server, pytest.raises(Redirected) as caught:
        make_client(server.url).chat("x")
    assert (caught.value.attempts, caught.value.status, len(server.requests)) == (1, 307, 1)


URL = "http://h:8000/v1/chat"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/v2", "http://h:8000/v2"),
        ("http://H:8000/v2#part", "http://h:8000/v2"),
        ("//h:8000/v2", "http://h:8000/v2"),
        *[(other, None) for other in ("http://h/v2", "https://h:8000/v2", "//other/v2", "http://h:8000.evil/")],
        *[(other, None) for other in ("http://me@h:8000/", "http://h:99999/", "http://[x/", "ftp://h:8000/", "", None)],
    ],
)
def test_p21_which_addresses_are_the_same_servers(location: str | None, target: str | None) -> None:
    found = followed(URL, 307, location)
    assert (found and found.lower()) == target
    assert followed(URL, 302, location) is None


def test_p21_the_words_for_an_address() -> None:
    assert redirection("https://evil/path?q") == "to https://evil:443"
    assert redirection("/path") == redirection(None) == "to another path of its own"
    assert redirection("http://h:99999/") == "to an address that is none"


@pytest.fixture
def _not_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_checks, "_warned", False)


@pytest.mark.usefixtures("_not_warned")
def test_p20_a_key_over_plain_http_is_warned_of_once() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for _ in range(3):
            AutoGLM("http://glm.example/v1", api_key="sk-secret")
    (warning,) = heard
    assert warning.category is InsecureConnection
    assert "glm.example" in str(warning.message)
    assert "sk-secret" not in str(warning.message)


@pytest.mark.usefixtures("_not_warned")
@pytest.mark.parametrize(
    ("url", "key"),
    [
        *[(f"http://{host}/v1", "k") for host in ("127.0.0.1", "localhost", "[::1]", "10.1.2.3", "gpu-box", "127.1")],
        ("https://glm.example/v1", "k"),
        ("http://glm.example/v1", ""),
    ],
)
def test_p20_no_word_where_nobody_listens(url: str, key: str) -> None:
    AutoGLM(url, api_key=key)  # a warning would be an error here


def test_p20_the_warning_names_the_line_of_the_user() -> None:
    program = 'from autoglm_client import AutoGLM\n\nAutoGLM("http://glm.example/v1", api_key="k")\n'
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("<string>:3: InsecureConnection: ")


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_p22_a_server_of_this_machine_is_asked_directly(
    make_client: ClientFactory, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with raw_server([ANSWER]) as proxy, raw_server([ANSWER]) as server:
        monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        assert make_client(server.url).chat("x").text == "hello"
        assert (len(proxy.requests), len(server.requests)) == (0, 1)


def test_p22_another_server_is_asked_through_the_proxy(
    make_client: ClientFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw_server([ANSWER]) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        assert make_client("http://glm.example/v1").chat("x").text == "hello"
        assert proxy.requests[0].startswith(b"POST http://glm.example/v1/chat/completions ")


def test_p05_the_socket_notices_a_dead_connection_itself(make_client: ClientFactory) -> None:
    with raw_server([HEAD, delta("a"), 20.0]) as server, make_client(server.url).stream("x") as stream:
        connection: Any = stream._answer._response.extensions["network_stream"].get_extra_info("socket")
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
        for name, value in options.items():
            if hasattr(socket, name):
                assert connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
