"""Both clients against a real server on this machine: what they send, and what they make of the answers."""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
import socket
import ssl
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import httpx
import httpx2
import pytest
from pydantic import BaseModel

from autoglm_client import (
    ActionReady,
    AsyncAutoGLM,
    AuthenticationFailed,
    AutoGLM,
    AutoGLMError,
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    ContextOverflow,
    DeadlineExceeded,
    Finished,
    InvalidReply,
    Launch,
    NotFound,
    RateLimited,
    ReasoningDelta,
    Reply,
    RequestTimedOut,
    ServerFailed,
    StatusError,
    StreamInterrupted,
    TextDelta,
    Timeouts,
    user,
)
from autoglm_client.timeouts import CallClock
from server_stub import ScriptedServer

from .conftest import ClientFactory
from .raw_server import DONE, HEAD, Step, delta, event, finish, plain, raw_server, reset
from .wire_samples import DATA

SOON = 8.0  # seconds: on a busy machine anything can take a while, but a script waits 10 at least
ANSWER = plain(b'{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}')


def sent(server: ScriptedServer) -> dict[str, Any]:
    """The body of the last request."""
    body = server.requests[-1].body
    assert body is not None
    return body


def finished(stream: Any) -> Any:
    """The reply of a stream, read to its end."""
    with stream:
        return stream.finish()


def partial(caught: pytest.ExceptionInfo[Any]) -> Reply:
    """What had arrived before an error."""
    reply = caught.value.partial
    assert isinstance(reply, Reply)
    return reply


class Place(BaseModel):
    """What ``parse`` is asked for."""

    city: str
    inhabitants: int


def test_the_exact_request(glm: Any, server: ScriptedServer) -> None:
    glm.chat("Open Settings", temperature=0, top_k=1, seed=None, extra_body={"priority": 1})
    assert sent(server) == {
        "model": "autoglm-phone-9b",
        "messages": [{"role": "user", "content": "Open Settings"}],
        "skip_special_tokens": False,
        "temperature": 0,
        "top_k": 1,
        "priority": 1,
        "stream": False,
    }
    with glm.stream([user("Open Settings")], max_tokens=50) as stream:
        stream.finish()
    assert sent(server) == {
        "model": "autoglm-phone-9b",
        "messages": [{"role": "user", "content": "Open Settings"}],
        "skip_special_tokens": False,
        "stream_options": {"include_usage": True},
        "max_tokens": 50,
        "stream": True,
    }


def test_a_streamed_reply_is_the_plain_one(glm: Any) -> None:
    plain = glm.chat("Open Settings")
    with glm.stream("Open Settings") as stream:
        events = list(stream)
    assert stream.reply == plain
    assert plain.action == Launch("Settings")
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == plain.reasoning != ""
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == plain.text
    assert ActionReady(Launch("Settings")) in events
    assert events[-1] == Finished("stop")
    assert plain.usage == stream.reply.usage
    assert plain.timing.first_token is None
    assert 0 < stream.reply.timing.first_token <= stream.reply.timing.total


def test_the_events_come_while_the_server_still_writes(make_client: ClientFactory) -> None:
    with ScriptedServer(pace=0.05) as server, make_client(server.base_url).stream("Open Settings") as stream:
        started = time.monotonic()
        next(iter(stream))
        first = time.monotonic() - started
        stream.finish()
        assert time.monotonic() - started > first + 0.3


def test_a_reply_before_it_is_complete(glm: Any) -> None:
    with glm.stream("Open Settings") as stream:
        next(iter(stream))
        with pytest.raises(StreamInterrupted, match="not complete yet"):
            _ = stream.reply
        assert stream.partial.finish_reason is None
        assert stream.partial.action is None
        assert stream.finish() == glm.chat("Open Settings")


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_early_ends_the_generation(make_client: ClientFactory, stream: bool) -> None:
    with raw_server([HEAD, delta("a"), 10.0]) as server, make_client(server.url, max_attempts=1) as glm:
        if stream:
            with glm.stream("x") as answer:
                next(iter(answer))
        else:
            with pytest.raises(DeadlineExceeded):
                glm.chat("x", timeout=0.2)
        assert server.hung_up.wait(SOON)


def test_parse(glm: Any, server: ScriptedServer) -> None:
    assert isinstance(glm.parse("Where?", Place), Place)
    assert sent(server)["response_format"]["json_schema"]["schema"] == Place.model_json_schema()


def test_parse_of_a_cut_answer(glm: Any) -> None:
    with pytest.raises(InvalidReply, match="raise max_tokens") as caught:
        glm.parse("Where?", Place, max_tokens=2)
    assert partial(caught).finish_reason == "length"
    assert caught.value.attempts == 1


def test_models_health_and_tokens(glm: Any) -> None:
    (model,) = glm.models()
    assert (model.id, model.max_model_len) == ("autoglm-phone-9b", 25480)
    assert glm.health() is True
    assert glm.tokenize("Hello").count == glm.chat("Hello").usage.prompt_tokens


def test_text_is_counted_without_the_template(glm: Any, server: ScriptedServer) -> None:
    assert glm.tokenize("Hello", template=False).count < glm.tokenize("Hello").count
    assert server.requests[0].body == {"model": "autoglm-phone-9b", "prompt": "Hello", "add_special_tokens": False}
    with pytest.raises(ConfigurationError, match="takes a string"):
        glm.tokenize([user("Hello")], template=False)


def test_health_of_other_servers(make_client: ClientFactory) -> None:
    not_found, fine = plain(b'{"detail":"Not Found"}', "404 Not Found"), plain(b"{}")
    cases: list[tuple[list[list[Step]], bool]] = [
        ([[not_found], [fine]], True),
        ([[not_found]], False),
        ([[plain(b"", "503 Service Unavailable")]], False),
        ([[reset]], False),
    ]
    for scripts, healthy in cases:
        with raw_server(*scripts) as server, make_client(server.url) as glm:
            assert glm.health() is healthy


def test_waiting_until_ready(make_client: ClientFactory) -> None:
    seen: list[str] = []
    healthy, loading = plain(b"{}"), plain(b"", "503 Service Unavailable")
    script = [[loading], [healthy], [plain(b"", "500 Internal Server Error")], [healthy], [ANSWER]]
    with raw_server(*script) as server, make_client(server.url, max_attempts=1) as glm:
        glm.wait_until_ready(10, lambda seconds, state: seen.append(state))
    assert seen == ["the server", "the first token"]


def test_waiting_ends(make_client: ClientFactory) -> None:
    with pytest.raises(DeadlineExceeded):
        make_client("http://127.0.0.1:9/v1").wait_until_ready(0.2)
    with ScriptedServer(api_key="right") as server, pytest.raises(AuthenticationFailed):
        make_client(server.base_url, api_key="wrong").wait_until_ready(5)


def test_map_keeps_order_and_errors(glm: Any) -> None:
    done: list[tuple[int, int]] = []
    many = ["Open A", [{"role": "nobody", "content": "x"}], "Open B"]
    first, error, last = glm.map(many, concurrency=2, progress=lambda *state: done.append(state))
    assert (first.action, last.action) == (Launch("A"), Launch("B"))
    assert isinstance(error, ConfigurationError)
    assert sorted(done) == [(1, 3), (2, 3), (3, 3)]
    assert glm.map([]) == []


def test_map_with_a_bar(glm: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(glm.map(["Open A"] * 3, progress=True)) == 3
    assert "3/3" in capsys.readouterr().err


def test_a_bar_needs_tqdm(glm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ConfigurationError, match="pip install"):
        glm.map(["Open A"], progress=True)


def test_map_refuses_nonsense(glm: Any) -> None:
    with pytest.raises(ConfigurationError, match="concurrency=0"):
        glm.map(["x"], concurrency=0)


def test_the_key_is_sent_and_never_shown(make_client: ClientFactory) -> None:
    with ScriptedServer(api_key="sk-secret") as server:
        glm = make_client(server.base_url, api_key=" sk-secret\n")
        assert glm.chat("Open A").action == Launch("A")
        with pytest.raises(AuthenticationFailed, match="AUTOGLM_API_KEY"):
            make_client(server.base_url).chat("x")
    assert "sk-secret" not in repr(glm) + str(vars(AutoGLM("http://h/v1", api_key="sk-secret")))


def test_a_server_that_echoes_the_key(make_client: ClientFactory) -> None:
    echo = plain(b'{"error":"Incorrect API key provided: sk-secret"}', "401 Unauthorized")
    with raw_server([echo]) as server, pytest.raises(AuthenticationFailed) as caught:
        make_client(server.url, api_key="sk-secret").chat("x")
    assert "***" in str(caught.value)
    assert "sk-secret" not in str(caught.value) + caught.value.body


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"model": "nope"}, NotFound),
        ({"temperature": -1}, BadRequest),
        ({"max_tokens": 0}, BadRequest),
        ({"messages": "too long"}, ContextOverflow),
        ({"api_key": "wrong"}, AuthenticationFailed),
    ],
    ids=str,
)
def test_what_the_server_refuses(make_client: ClientFactory, options: dict[str, Any], kind: type[AutoGLMError]) -> None:
    options = dict(options)
    with ScriptedServer(api_key="right") as server:
        glm = make_client(server.base_url, api_key=options.pop("api_key", "right"))
        messages = "x " * 30_000 if "messages" in options else "x"
        options.pop("messages", None)
        with pytest.raises(kind) as caught:
            glm.chat(messages, **options)
        assert caught.value.attempts == 1
        with pytest.raises(kind), glm.stream(messages, **options):
            raise AssertionError("not reached")


CUT = [HEAD, delta("<think>why</think>"), delta('do(action="Ba')]


@pytest.mark.parametrize(
    "end", [[], [DONE], [reset], [event("nonsense")], [event('{"error":{"message":"m","code":500}}')]]
)
def test_a_cut_answer_is_never_a_whole_one(make_client: ClientFactory, end: list[Any]) -> None:
    with raw_server([*CUT, 0.05, *end]) as server, make_client(server.url) as glm:
        asks: list[Callable[[], object]] = [lambda: glm.chat("x"), lambda: finished(glm.stream("x"))]
        for ask in asks:
            with pytest.raises((StreamInterrupted, InvalidReply, ServerFailed)) as caught:
                ask()
            assert partial(caught).reasoning == "why"
            assert partial(caught).text == 'do(action="Ba'
            assert partial(caught).action is None
            assert caught.value.attempts == 1


@pytest.mark.parametrize(
    "end",
    [
        [],
        [DONE],
        [reset],
        [event("nonsense")],
        [event('{"error":{"message":"m"}}')],
        [b"data: {"],
        [DONE, 30.0],
        [30.0],
    ],
)
def test_a_complete_answer_is_never_spoiled(make_client: ClientFactory, end: list[Any]) -> None:
    with raw_server([HEAD, delta("hello"), finish(), 0.05, *end]) as server, make_client(server.url) as glm:
        started = time.monotonic()
        with glm.stream("x") as stream:
            assert [type(event) for event in stream] == [TextDelta, Finished]
        assert (stream.reply.text, stream.reply.finish_reason) == ("hello", "stop")
        assert time.monotonic() - started < SOON


def test_a_stream_that_nobody_asked_for_and_the_other_way_round(make_client: ClientFactory) -> None:
    with raw_server([HEAD, delta("hello"), finish(), DONE]) as server:
        assert make_client(server.url).chat("x").text == "hello"
    with raw_server([ANSWER]) as server, make_client(server.url).stream("x") as stream:
        assert [type(event) for event in stream] == [TextDelta, Finished]
        assert stream.reply.text == "hello"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (plain(b"hello"), InvalidReply),
        (plain(b""), InvalidReply),
        (plain(b"[]"), InvalidReply),
        (plain(b'{"choices":null}'), InvalidReply),
        (plain(b'{"choices":[]}'), StreamInterrupted),
        (plain(b'{"choices":[{"message":{"content":"x"}}]}'), StreamInterrupted),
        (plain(b'{"error":{"message":"m","code":404}}'), NotFound),
        (plain(b"", "302 Found", "Location: http://example.org/"), AutoGLMError),
        (plain(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip"), InvalidReply),
        (plain(b"x" * 100_000, "500 Internal Server Error"), ServerFailed),
        (b"nonsense\r\n\r\n", InvalidReply),
        (b"", ConnectionFailed),
        (plain(b'{"choices"')[:-3], ConnectionFailed),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 99\r\n\r\n{", ServerFailed),
    ],
    ids=lambda value: value[:60].decode() if isinstance(value, bytes) else "",
)
def test_answers_that_are_none(make_client: ClientFactory, answer: bytes, kind: type[AutoGLMError]) -> None:
    with raw_server([answer]) as server, make_client(server.url, max_attempts=1) as glm:
        with pytest.raises(kind) as caught:
            glm.chat("x")
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 800
        with pytest.raises(kind), glm.stream("x") as stream:
            stream.finish()


@pytest.mark.parametrize(
    "first",
    [
        plain(b"", "503 Service Unavailable"),
        plain(b"", "429 Too Many Requests", "Retry-After: 0.2"),
        b"",
        reset,
        HEAD,
        HEAD + event('{"error":{"message":"busy","code":503}}'),
        HEAD + event('{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'),
    ],
    ids=["503", "429", "closed", "reset", "no events", "an error first", "the role alone"],
)
def test_what_is_tried_again(make_client: ClientFactory, first: Any) -> None:
    with raw_server([first], [ANSWER]) as server, make_client(server.url) as glm:
        reply = glm.chat("x")
        assert (reply.text, reply.attempts) == ("hello", 2)
    with raw_server([first], [HEAD, delta("hello"), finish(), DONE]) as server, make_client(server.url) as glm:
        with glm.stream("x") as stream:
            assert stream.finish().text == "hello"
        assert len(server.requests) == 2


def test_a_late_first_token_is_waited_for_again(make_client: ClientFactory) -> None:
    with raw_server([HEAD, 20.0], [HEAD, delta("hello"), finish(), DONE]) as server, make_client(server.url) as glm:
        with glm.stream("x", timeout=Timeouts(first_token=0.3)) as stream:
            assert stream.finish().attempts == 2
        assert len(server.requests) == 2


def test_three_attempts_and_no_more(make_client: ClientFactory) -> None:
    with raw_server([plain(b"", "503 Service Unavailable")]) as server, make_client(server.url) as glm:
        with pytest.raises(ServerFailed) as caught:
            glm.chat("x")
        assert len(server.requests) == caught.value.attempts == 3


def test_a_wait_that_is_too_long_is_refused(make_client: ClientFactory) -> None:
    with raw_server([plain(b"", "429 Too Many Requests", "Retry-After: 3600")]) as server:
        started = time.monotonic()
        with pytest.raises(RateLimited) as caught:
            make_client(server.url).chat("x")
        assert caught.value.retry_after == 3600
        assert caught.value.attempts == 1
        assert time.monotonic() - started < SOON


def flood(connection: socket.socket) -> None:
    """Pings without a pause: there is always something to read."""
    while True:
        connection.sendall(b": ping\n\n" * 1000)


def chatter(connection: socket.socket) -> None:
    """Tokens without a pause: no read ever waits."""
    while True:
        connection.sendall(delta("a ") * 100)


CLOCKS = {
    "total, in a flood of tokens": ([chatter], {"total": 0.5}, DeadlineExceeded, None),
    "first token, in a flood of pings": ([flood], {"first_token": 0.3}, RequestTimedOut, "first_token"),
    "first token": ([10.0], {"first_token": 0.2}, RequestTimedOut, "first_token"),
    "first token, with pings": ([b": ping\n\n", 0.1] * 200, {"first_token": 0.3}, RequestTimedOut, "first_token"),
    "between tokens": ([delta("a"), 10.0], {"between_tokens": 0.2}, RequestTimedOut, "between_tokens"),
    "between, with pings": (
        [delta("a"), *([b": ping\n\n", 0.1] * 200)],
        {"between_tokens": 0.3},
        RequestTimedOut,
        None,
    ),
    "a half event": ([delta("a"), *([b"data", 0.1] * 200)], {"between_tokens": 0.3}, RequestTimedOut, "between_tokens"),
    "total": ([delta("a"), 0.1] * 200, {"total": 0.5}, DeadlineExceeded, None),
}


@pytest.mark.parametrize(("script", "clocks", "kind", "clock"), CLOCKS.values(), ids=CLOCKS)
def test_the_clocks(make_client: ClientFactory, script: list[Any], clocks: Any, kind: Any, clock: str | None) -> None:
    with raw_server([HEAD, *script]) as server, make_client(server.url, max_attempts=1) as glm:
        started = time.monotonic()
        with pytest.raises(kind) as caught, glm.stream("x", timeout=Timeouts(**clocks)) as stream:
            stream.finish()
        assert 0.15 < time.monotonic() - started < SOON
        assert clock is None or caught.value.clock == clock
        assert server.hung_up.wait(SOON)


def test_a_slow_head_is_not_a_reason_to_wait_for_ever(make_client: ClientFactory) -> None:
    drip: list[Any] = [HEAD[:20], *[b"X", 0.1] * 200]
    with raw_server(drip) as server, make_client(server.url, max_attempts=1) as glm:
        started = time.monotonic()
        with pytest.raises((DeadlineExceeded, RequestTimedOut)):
            glm.chat("x", timeout=0.4)
        assert time.monotonic() - started < SOON


def test_a_deadline_handed_down(make_client: ClientFactory) -> None:
    with raw_server([10.0]) as server, make_client(server.url) as glm:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            glm.chat("x", deadline=started + 0.3)
        assert time.monotonic() - started < SOON


def test_a_repetition_ends_the_stream_if_asked(make_client: ClientFactory) -> None:
    loop: list[Step] = [delta("I should tap the button that closes the window. "), 0.002] * 200
    with raw_server([HEAD, *loop, 20.0]) as server, make_client(server.url) as glm:
        with glm.stream("x", stop_on_repetition=True) as stream:
            kinds = [type(event).__name__ for event in stream]
        assert kinds.count("RepetitionDetected") == 1
        assert kinds[-1] == "Finished"
        assert stream.reply.finish_reason == "repetition"
        assert stream.reply.action_error.code == "repetition"
        assert server.hung_up.wait(SOON)


def test_settings_from_the_environment(make_client: ClientFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHONE_AGENT_BASE_URL", "http://phone/v1")
    monkeypatch.setenv("PHONE_AGENT_MODEL", "phone-model")
    glm = make_client()
    assert (glm.base_url, glm.model) == ("http://phone/v1", "phone-model")
    monkeypatch.setenv("AUTOGLM_BASE_URL", "http://ours/v1/")
    assert make_client().base_url == "http://ours/v1"
    assert make_client("http://argument:1").base_url == "http://argument:1/v1"


def test_a_client_of_ones_own(server: ScriptedServer) -> None:
    owns: list[httpx2.Client | httpx.Client] = [
        httpx2.Client(headers={"X-Own": "yes"}),
        httpx.Client(headers={"X-Own": "yes"}),
    ]
    for own in owns:
        with own, AutoGLM(server.base_url, http_client=own) as glm:
            assert glm.chat("Open A").action == Launch("A")
            assert server.requests[-1].headers["x-own"] == "yes"
            with glm.stream("Open A") as stream:
                assert stream.finish().action == Launch("A")
            glm.close()
            assert not own.is_closed
        with pytest.raises(ConfigurationError, match="http_client is closed"):
            AutoGLM("http://127.0.0.1:9/v1", http_client=own, max_attempts=1).chat("x")


def test_an_async_client_of_ones_own(server: ScriptedServer) -> None:
    async def ask() -> None:
        owns: list[httpx2.AsyncClient | httpx.AsyncClient] = [httpx2.AsyncClient(), httpx.AsyncClient()]
        for own in owns:
            async with own, AsyncAutoGLM(server.base_url, http_client=own) as glm:
                assert (await glm.chat("Open A")).action == Launch("A")
            with pytest.raises(ConfigurationError, match="http_client is closed"):
                await glm.chat("Open A")

    asyncio.run(ask())


def test_several_event_loops(server: ScriptedServer) -> None:
    glm = AsyncAutoGLM(server.base_url)

    async def ask() -> None:
        assert (await glm.chat("Open A")).action == Launch("A")

    async def ask_and_close() -> None:
        await ask()
        await glm.close()

    asyncio.run(ask_and_close())
    asyncio.run(ask_and_close())
    asyncio.run(ask_and_close())


def test_no_connection_outlives_its_loop(server: ScriptedServer) -> None:
    glm = AsyncAutoGLM(server.base_url)

    async def ask() -> None:
        await glm.chat("Open A")

    asyncio.run(ask())
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        asyncio.run(ask())
    until = time.monotonic() + SOON
    while len(list(Path("/proc/self/fd").iterdir())) > before:  # the server's side is closed a moment later
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_cancelled_task_hangs_up() -> None:
    async def cancel(script: list[Step], *, after: float) -> bool:
        with raw_server(script) as server:
            async with AsyncAutoGLM(server.url) as glm:
                task = asyncio.create_task(glm.chat("x"))
                await asyncio.sleep(after)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                return await asyncio.to_thread(server.hung_up.wait, SOON)

    assert asyncio.run(cancel([20.0], after=0.2))
    assert asyncio.run(cancel([HEAD, delta("a"), 20.0], after=0.2))


def test_close_from_another_thread() -> None:
    with raw_server([HEAD, delta("a"), 20.0]) as server, AutoGLM(server.url) as glm, glm.stream("x") as stream:
        next(stream)
        threading.Timer(0.2, stream.close).start()
        started = time.monotonic()
        with pytest.raises(StreamInterrupted):
            stream.finish()
        assert time.monotonic() - started < SOON
        assert server.hung_up.wait(SOON)


def test_a_closed_stream_is_not_asked_again() -> None:
    with raw_server([HEAD, 20.0]) as server, AutoGLM(server.url) as glm:
        stream = glm.stream("x")
        threading.Timer(0.3, stream.close).start()
        with pytest.raises(AutoGLMError), stream:
            raise AssertionError("not reached")
        assert len(server.requests) == 1
        with pytest.raises(StreamInterrupted, match="closed before its end"), stream:
            raise AssertionError("not reached")


def test_a_stream_that_is_closed_says_so(glm: Any) -> None:
    stream = glm.stream("x")
    stream.close()
    with pytest.raises(StreamInterrupted, match="closed before its end"), stream:
        raise AssertionError("not reached")
    with glm.stream("Open Settings") as stream:
        next(iter(stream))
        stream.close()
        with pytest.raises(StreamInterrupted, match="closed before its end"):
            stream.finish()


ROLE = event('{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}')


def test_the_role_is_no_token(make_client: ClientFactory) -> None:
    timeouts = Timeouts(first_token=5, between_tokens=0.2)
    with raw_server([HEAD, ROLE, 0.6, delta("hello"), finish(), DONE]) as server:
        with make_client(server.url).stream("x", timeout=timeouts) as stream:
            assert stream.finish().text == "hello"
        assert len(server.requests) == 1
    roles: list[Step] = [ROLE, 0.05]
    with raw_server([HEAD, *roles * 400]) as server, make_client(server.url, max_attempts=1) as glm:
        with pytest.raises(RequestTimedOut) as caught, glm.stream("x", timeout=Timeouts(first_token=0.3)):
            raise AssertionError("not reached")
        assert caught.value.clock == "first_token"


def test_a_redirect_is_never_followed() -> None:
    with raw_server([ANSWER]) as elsewhere:
        redirect = plain(b"", "307 Temporary Redirect", f"Location: {elsewhere.url}")
        owns: list[httpx2.Client | httpx.Client] = [
            httpx2.Client(follow_redirects=True),
            httpx.Client(follow_redirects=True),
        ]
        for own in owns:
            with raw_server([redirect]) as server, own, pytest.raises(StatusError, match="307"):
                AutoGLM(server.url, http_client=own).chat("x")
        assert elsewhere.requests == []


def test_what_keeps_a_request_from_being_sent(make_client: ClientFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in [("http_proxy", "nonsense"), ("http_proxy", "ftp://proxy"), ("http_proxy", "socks5://proxy")]:
        monkeypatch.setenv(name, value)
        with pytest.raises((ConfigurationError, ConnectionFailed)):
            make_client("http://glm.example/v1", max_attempts=1, timeout=2).chat("x")


def test_a_client_of_the_wrong_kind() -> None:
    with pytest.raises(ConfigurationError, match=r"takes an httpx2\.Client"):
        AutoGLM("http://h/v1", http_client=httpx2.AsyncClient())  # type: ignore[arg-type]
    with httpx2.Client() as own, pytest.raises(ConfigurationError, match=r"takes an httpx2\.AsyncClient"):
        AsyncAutoGLM("http://h/v1", http_client=own)  # type: ignore[arg-type]


def test_a_deadline_that_has_passed(glm: Any, server: ScriptedServer) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        glm.chat("x", deadline=time.monotonic() - 1)
    assert caught.value.attempts == 0
    assert server.requests == []


def test_waiting_is_bounded(make_client: ClientFactory) -> None:
    with raw_server([20.0]) as server, make_client(server.url) as glm:
        started = time.monotonic()
        with pytest.raises(ConnectionFailed):
            glm.wait_until_ready(0.5)
        assert time.monotonic() - started < SOON
    with raw_server([plain(b"{}", "401 Unauthorized")]) as server, make_client(server.url) as glm:
        assert glm.health() is False
        with pytest.raises(AuthenticationFailed):
            glm.wait_until_ready(5)


def test_a_server_without_a_health_route(make_client: ClientFactory) -> None:
    not_found = plain(b"{}", "404 Not Found")
    with raw_server([not_found], [not_found], [plain(b'{"data":[]}')]) as server:
        assert make_client(server.url).health() is True


def test_map_and_parse_refuse_what_they_cannot_take(glm: Any) -> None:
    for many in ("Open", user("x")):
        with pytest.raises(ConfigurationError, match="give a list"):
            glm.map(many)
    with pytest.raises(ConfigurationError, match="unknown option"):
        glm.map(["x"], max_token=1)
    with pytest.raises(ConfigurationError, match="pydantic model"):
        glm.parse("x", dict)


def test_a_stream_is_opened_by_its_block(glm: Any) -> None:
    with pytest.raises(ConfigurationError, match="opened by its block"):
        list(glm.stream("x"))


def test_reprs() -> None:
    for glm in (AutoGLM("http://h/v1", api_key="sk-secret"), AsyncAutoGLM("http://h/v1", api_key="sk-secret")):
        assert repr(glm) == f"{type(glm).__name__}('http://h/v1', model='autoglm-phone-9b')"
        assert repr(glm.stream("x")).endswith("ReplyStream of http://h/v1/chat/completions>")


def test_an_answer_above_the_limit(make_client: ClientFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_client.defaults.MAX_BODY_BYTES", 10_000)
    with raw_server([plain(b" " * 50_000)]) as server, pytest.raises(InvalidReply, match="larger than 10000 bytes"):
        make_client(server.url).chat("x")


def test_tls(make_client: ClientFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = str(DATA / "localhost.pem")
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(certificate)

    def tls_server() -> Any:
        return raw_server([ANSWER], wrap=lambda connection: server_side.wrap_socket(connection, server_side=True))

    with tls_server() as server, pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
        make_client(server.url.replace("http:", "https:"), max_attempts=1).chat("x")
    trusting = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr("autoglm_client._transport._tls_context", lambda: trusting)
    with tls_server() as server:
        assert make_client(server.url.replace("http:", "https:")).chat("x" * 100_000).text == "hello"


async def test_p04_what_a_refusal_of_an_upload_says_in_tls_is_no_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is deciphered, which nothing does any more."""
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(str(DATA / "localhost.pem"))
    trusting = ssl.create_default_context(cafile=str(DATA / "localhost.pem"))
    monkeypatch.setattr("autoglm_client._transport._tls_context", lambda: trusting)

    def refuse(connection: socket.socket) -> NoReturn:
        with server_side.wrap_socket(connection, server_side=True) as wrapped:
            wrapped.recv(1024)
            wrapped.sendall(ANSWER)
        raise OSError("it reads no more")

    with raw_server([], wrap=refuse) as server, pytest.raises(ConnectionFailed):
        await AsyncAutoGLM(server.url.replace("http:", "https:"), max_attempts=1).chat("x" * 12_000_000)


def test_p04_no_descriptor_is_left_for_a_handshake_or_an_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    def duplicate(_connection: object) -> socket.socket:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("autoglm_client._transport.duplicate", duplicate)
    with raw_server([ANSWER]) as server, pytest.raises(ConnectionFailed, match="Too many open files") as caught:
        AutoGLM(server.url.replace("http:", "https:")).chat("x")
    assert (caught.value.attempts, caught.value.retryable) == (3, True)
    with raw_server([ANSWER]) as server, pytest.raises(ConnectionFailed, match="Too many open files"):
        asyncio.run(AsyncAutoGLM(server.url, max_attempts=1).chat("x" * 100_000))
    gc.collect()  # an open socket would be a warning


def test_a_client_of_ones_own_that_times_out() -> None:
    with raw_server([10.0]) as server:
        for own in (httpx2.Client(), httpx.Client()):
            with own, AutoGLM(server.url, http_client=own, max_attempts=1) as glm:
                with pytest.raises(DeadlineExceeded):
                    glm.chat("x", timeout=0.2)
                with pytest.raises(RequestTimedOut), glm.stream("x", timeout=Timeouts(first_token=0.2)):
                    raise AssertionError("not reached")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
@pytest.mark.parametrize("begin", [b"", b": ping\n\n", b"\r\n", b"event: x\n"])
def test_p17_a_stream_by_any_other_name(make_client: ClientFactory, kind: str, begin: bytes) -> None:
    head = HEAD.replace(b"Content-Type: text/event-stream", f"Content-Type: {kind}".encode() if kind else b"X: y")
    script: list[Step] = [head, begin + b"da", 0.05, delta("a")[2:], 0.05, delta("b"), finish(), DONE]
    with raw_server(script) as server, make_client(server.url, max_attempts=1).stream("x") as stream:
        assert [event.text for event in stream if isinstance(event, TextDelta)] == ["a", "b"]
        assert stream.reply.timing.first_token is not None


@pytest.mark.parametrize("library", [httpx2, httpx], ids=lambda library: library.__name__)
async def test_p06_pings_feed_no_clock_with_a_client_of_ones_own_either(library: Any) -> None:
    limits = Timeouts(first_token=0.3, between_tokens=9.0, total=9.0)
    pings: list[Step] = [b": ping\n\n", 0.05]
    with raw_server([HEAD, *pings * 400]) as server:
        with library.Client(trust_env=False) as own, pytest.raises(RequestTimedOut) as caught:
            AutoGLM(server.url, http_client=own, max_attempts=1).stream("x", timeout=limits).__enter__()
        assert caught.value.clock == "first_token"
        async with library.AsyncClient(trust_env=False) as mine:
            glm = AsyncAutoGLM(server.url, http_client=mine, max_attempts=1)
            with pytest.raises(RequestTimedOut) as caught:
                await glm.stream("x", timeout=limits).__aenter__()
        assert caught.value.clock == "first_token"


def test_many_threads_at_once(server: ScriptedServer) -> None:
    replies: dict[int, Any] = {}
    with AutoGLM(server.base_url) as glm:
        threads = [
            threading.Thread(target=lambda n=n: replies.update({n: glm.chat(f"Open App{n}")})) for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {n: reply.action for n, reply in replies.items()} == {n: Launch(f"App{n}") for n in range(16)}


def test_a_proxy_of_the_environment_is_not_for_this_machine(
    make_client: ClientFactory, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert make_client(server.base_url).chat("Open A").action == Launch("A")
    with pytest.raises(ConnectionFailed):
        make_client("http://autoglm.example/v1", max_attempts=1).chat("x")


def test_a_closed_client_opens_again(glm: Any) -> None:
    glm.chat("Open A")
    glm.close()
    glm.close()
    assert glm.chat("Open A").action == Launch("A")


def test_a_client_is_not_pickled() -> None:
    for glm in (AutoGLM("http://h/v1", api_key="sk-secret"), AsyncAutoGLM("http://h/v1", api_key="sk-secret")):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(glm)


def test_the_recorded_request_is_json(server: ScriptedServer, glm: Any) -> None:
    glm.chat("你好")
    assert json.dumps(sent(server)["messages"], ensure_ascii=False) == '[{"role": "user", "content": "你好"}]'


def test_nothing_is_sent_that_cannot_be(glm: Any, server: ScriptedServer) -> None:
    cases: list[tuple[Any, dict[str, Any]]] = [
        ("\ud800", {}),
        ("x", {"temperature": float("nan")}),
        ("x", {"extra_body": {"a": object()}}),
        ("x", {"max_token": 5}),
        ("x", {"n": 0}),
        ("x", {"timeout": -1}),
        ("x", {"timeout": "soon"}),
        ("x", {"extra_headers": {"X-A": "line\nbreak"}}),
        ([], {}),
    ]
    for messages, options in cases:
        with pytest.raises(ConfigurationError):
            glm.chat(messages, **options)
    assert server.requests == []


def test_a_client_that_nobody_closes_leaves_no_open_socket(server: ScriptedServer) -> None:
    glm = AutoGLM(server.base_url)
    for _ in range(2):
        glm.chat("Hello")
        http = weakref.ref(glm._pool.client(CallClock(Timeouts())))
        glm.close()
        gc.collect()
        assert http() is None, "closed, and forgotten"
    glm.chat("Hello")
    del glm
    gc.collect()  # a ResourceWarning would be an error


async def test_nor_does_an_async_one(server: ScriptedServer) -> None:
    glm = AsyncAutoGLM(server.base_url)
    for _ in range(2):
        await glm.chat("Hello")
        http = weakref.ref(await glm._pool.client(CallClock(Timeouts())))
        await glm.close()
        gc.collect()
        assert http() is None, "closed, and forgotten"
    await glm.chat("Hello")
    del glm
    gc.collect()
    await asyncio.sleep(0.01)  # asyncio closes what was collected
    gc.collect()
