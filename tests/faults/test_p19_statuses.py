"""P19: what a server refuses, and why, is told apart, with the server's own words, wherever it says so."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from autoglm_client import (
    AuthenticationFailed,
    AutoGLMError,
    BadRequest,
    ConnectionFailed,
    ContextOverflow,
    NotFound,
    RateLimited,
    ServerDied,
    ServerFailed,
    StatusError,
)

from ..conftest import ClientFactory
from ..raw_server import DONE, HEAD, Step, delta, event, plain, raw_server
from ..wire_samples import body_of

PICTURES = (
    "The decoder prompt (length 5012) is longer than the maximum model length of 4096. Make sure that `max_model_len` "
    "is no smaller than the number of text tokens plus multimodal tokens."
)
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


def error(message: str, code: int) -> bytes:
    return json.dumps({"error": {"message": message, "type": "Error", "param": None, "code": code}}).encode()


REFUSALS: list[tuple[str, bytes, type[StatusError], str]] = [
    ("400 Bad Request", body_of("plain.e_context"), ContextOverflow, "maximum context length is 4096 tokens"),
    ("400 Bad Request", error(PICTURES, 400), ContextOverflow, "longer than the maximum model length of 4096"),
    ("400 Bad Request", body_of("plain.e_temperature"), BadRequest, "temperature must be non-negative"),
    ("404 Not Found", body_of("plain.e_model"), NotFound, "The model `nope` does not exist"),
    ("401 Unauthorized", b'{"error":"Unauthorized"}', AuthenticationFailed, "Unauthorized"),
    ("403 Forbidden", b'{"detail":"Forbidden by the gateway"}', AuthenticationFailed, "Forbidden by the gateway"),
    ("413 Payload Too Large", b"<html>413 too large</html>", BadRequest, "413 too large"),
    ("422 Unprocessable Entity", b'{"detail":[{"msg":"Field required"}]}', BadRequest, "Field required"),
    ("429 Too Many Requests", error("slow down", 429), RateLimited, "slow down"),
    ("503 Service Unavailable", error("the queue is full", 503), ServerFailed, "the queue is full"),
    ("500 Internal Server Error", error("boom", 500), ServerFailed, "boom"),
    ("500 Internal Server Error", error(DEAD, 500), ServerDied, "EngineCore encountered an issue"),
]
IDS = [f"{status[:3]} {words}" for status, _, _, words in REFUSALS]


def asks(glm: Any) -> list[Callable[[], object]]:
    return [lambda: glm.chat("x"), lambda: glm.stream("x").__enter__(), glm.models, lambda: glm.tokenize("x")]


@pytest.mark.parametrize(("status", "body", "kind", "words"), REFUSALS, ids=IDS)
def test_p19_as_a_status(
    make_client: ClientFactory, status: str, body: bytes, kind: type[StatusError], words: str
) -> None:
    with raw_server([plain(body, status, "X-Request-Id: seen")]) as server:
        for ask in asks(make_client(server.url, max_attempts=1)):
            with pytest.raises(StatusError) as caught:
                ask()
            raised = caught.value
            assert type(raised) is kind
            assert words in str(raised)
            assert (raised.status, raised.body, raised.request_id) == (int(status[:3]), body.decode(), "seen")
            assert raised.partial is None


@pytest.mark.parametrize("status", ["201 Created", "202 Accepted", "206 Partial Content"])
def test_p19_an_unexpected_status_keeps_the_words(make_client: ClientFactory, status: str) -> None:
    with raw_server([plain(b'{"detail":"queued"}', status)]) as server:
        for ask in asks(make_client(server.url)):
            with pytest.raises(StatusError, match=r"unexpected status: queued$") as caught:
                ask()
            assert (type(caught.value), caught.value.status) == (StatusError, int(status[:3]))


@pytest.mark.parametrize("begun", [False, True], ids=["first", "later"])
@pytest.mark.parametrize(
    ("status", "body", "kind", "words"), [case for case in REFUSALS if b'"code"' in case[1]], ids=str
)
def test_p19_inside_a_stream(
    make_client: ClientFactory, status: str, body: bytes, kind: type[StatusError], words: str, begun: bool
) -> None:
    script: list[Step] = [HEAD, *[delta("so far")] * begun, 0.02, event(body.decode()), DONE]
    with raw_server(script) as server, pytest.raises(StatusError) as caught:
        make_client(server.url, max_attempts=1).chat("x")
    raised = caught.value
    assert type(raised) is kind
    assert words in str(raised)
    assert (raised.status, raised.body) == (int(status[:3]), body.decode())
    assert (raised.partial.text if raised.partial else None) == ("so far" if begun else None)


def test_p19_each_kind_has_a_category_of_its_own() -> None:
    kinds = {kind for _, _, kind, _ in REFUSALS}
    assert len({kind.category for kind in kinds}) == len(kinds) == 7


@pytest.mark.parametrize(
    "answer", [plain(b'{"detail":"too much"}', "413 Payload Too Large"), b""], ids=["413", "nothing"]
)
def test_p19_a_refusal_in_the_midst_of_an_upload(make_client: ClientFactory, answer: bytes) -> None:
    connections: list[socket.socket] = []

    def refuse(connection: socket.socket) -> NoReturn:
        connections.append(connection)
        with connection:
            connection.recv(1024)
            connection.sendall(answer)
        raise OSError("it reads no more")

    with raw_server([], wrap=refuse) as server, pytest.raises(AutoGLMError) as caught:
        make_client(server.url).chat("x" * 12_000_000)
    if answer:
        assert (type(caught.value), len(connections)) == (BadRequest, 1)
        assert "413" in str(caught.value)
    else:
        assert (type(caught.value), len(connections)) == (ConnectionFailed, 3)
