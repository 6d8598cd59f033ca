"""P7, P8, P9 and P15: what is tried again, how often, after how long, and when no more."""

from __future__ import annotations

import gzip
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from autoglm_client import (
    AutoGLM,
    AutoGLMError,
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    RateLimited,
    Reply,
    RequestTimedOut,
    ServerDied,
    ServerFailed,
    StreamInterrupted,
    Timeouts,
)
from autoglm_client._retry import Budget, Policy, budget_of
from autoglm_client.timeouts import CallClock

from ..conftest import ClientFactory
from ..raw_server import DONE, HEAD, Step, delta, event, finish, kept, next_request, plain, raw_server, reset

SOON = 4.0
BODY = b'{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}'
ANSWER = plain(BODY)
BUSY = plain(b"", "503 Service Unavailable")
DEAD_BODY = (
    b'{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.",'
    b'"type":"InternalServerError","param":null,"code":500}}'
)
DEAD = plain(DEAD_BODY, "500 Internal Server Error")
DEAD_IN_A_STREAM = HEAD + event(DEAD_BODY.decode()) + DONE
WELL = plain(b"")

FAILURES: dict[str, Any] = {
    "503": BUSY,
    "500": plain(b"", "500 Internal Server Error"),
    "502": plain(b"", "502 Bad Gateway"),
    "504": plain(b"", "504 Gateway Timeout"),
    "408": plain(b"", "408 Request Timeout"),
    "429": plain(b"", "429 Too Many Requests"),
    "reset": reset,
    "closed": b"",
    "no event": HEAD,
    "an error first": HEAD + event('{"error":{"message":"busy","code":503}}'),
}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high / 10)


def test_p07_the_pauses_are_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full jitter: from nothing to twice as much each time."""
    bounds: list[tuple[float, float]] = []

    def note(low: float, high: float) -> float:
        bounds.append((low, high))
        return 0.0

    monkeypatch.setattr(random, "uniform", note)
    with raw_server([BUSY]) as server, AutoGLM(server.url) as glm, pytest.raises(ServerFailed):
        glm.chat("x")
    assert [low for low, _ in bounds] == [0] * len(bounds)
    assert [high for _, high in bounds[:2]] == [0.25, 0.5]


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_p07_three_attempts_at_most(make_client: ClientFactory, failure: Any) -> None:
    with raw_server([failure]) as server:
        with pytest.raises(AutoGLMError) as caught, make_client(server.url).stream("x"):
            raise AssertionError("not reached")
        assert len(server.requests) == caught.value.attempts == 3


@pytest.mark.parametrize("status", ["400 Bad", "401 No", "403 No", "404 No", "413 Large", "422 Bad", "302 Found"])
def test_p07_what_would_fail_again_is_not_tried_again(make_client: ClientFactory, status: str) -> None:
    with raw_server([plain(b"", status)]) as server, pytest.raises(AutoGLMError):
        make_client(server.url).chat("x")
    assert len(server.requests) == 1


@pytest.mark.parametrize("end", [reset, b"", DEAD_IN_A_STREAM.partition(b"\r\n\r\n")[2]], ids=["reset", "eof", "died"])
def test_p07_nothing_is_tried_again_after_the_first_event(make_client: ClientFactory, end: Any) -> None:
    with raw_server([HEAD, delta("a"), 0.1, end], [ANSWER]) as server:
        with pytest.raises(AutoGLMError) as caught, make_client(server.url).stream("x") as stream:
            stream.finish()
        assert caught.value.partial is not None
        assert (caught.value.partial.text, len(server.requests)) == ("a", 1)


def test_p07_a_late_first_token_is_waited_for_twice_and_no_more(make_client: ClientFactory) -> None:
    with raw_server([HEAD, 20.0]) as server, make_client(server.url, max_attempts=5) as glm:
        with pytest.raises(RequestTimedOut) as caught, glm.stream("x", timeout=Timeouts(first_token=0.2)):
            raise AssertionError("not reached")
        server.wait_for(2)
        assert (caught.value.clock, len(server.requests)) == ("first_token", 2)
        assert server.hung_up.wait(SOON)


@pytest.mark.parametrize("value", ["0.6", "date"])
def test_p08_a_wait_that_the_server_asks_for(make_client: ClientFactory, value: str) -> None:
    if value == "date":  # a date has whole seconds
        value = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with raw_server([plain(b"", "429 Too Many", f"Retry-After: {value}")], [ANSWER]) as server:
        started = time.monotonic()
        assert make_client(server.url).chat("x").attempts == 2
        assert 0.5 < time.monotonic() - started < SOON


@pytest.mark.parametrize("value", ["nan", "inf", "-5", "1e9", "soon", "9" * 400, "Wed, 99 Foo 2099 00:00:00 GMT"])
def test_p08_nonsense_is_ignored(make_client: ClientFactory, value: str) -> None:
    with raw_server([plain(b"", "503 Busy", f"Retry-After: {value}")], [ANSWER]) as server:
        started = time.monotonic()
        assert make_client(server.url).chat("x").attempts == 2
        assert time.monotonic() - started < SOON


@pytest.mark.parametrize(("value", "timeout"), [("61", 600.0), ("5", 3.0), ("1000000000", 600.0), ("9" * 19, None)])
def test_p08_a_wait_that_is_too_long_fails_at_once(make_client: ClientFactory, value: str, timeout: Any) -> None:
    with raw_server([plain(b"", "429 Too Many", f"Retry-After: {value}")]) as server:
        started = time.monotonic()
        with pytest.raises(RateLimited) as caught:
            make_client(server.url, timeout=timeout).chat("x")
        assert (caught.value.retry_after, caught.value.attempts) == (float(value), 1)
        assert time.monotonic() - started < 2


def test_p08_no_attempt_with_hardly_any_time_left(make_client: ClientFactory) -> None:
    with raw_server([ANSWER]) as server, pytest.raises(DeadlineExceeded) as caught:
        make_client(server.url).chat("x", deadline=time.monotonic() + 0.04)
    assert (caught.value.attempts, len(server.requests)) == (0, 0)


def attempts(glm: Any) -> int:
    with pytest.raises(AutoGLMError) as caught:
        glm.chat("x")
    return int(caught.value.attempts)


def test_p09_an_outage_is_not_multiplied(make_client: ClientFactory) -> None:
    with raw_server([BUSY]) as server:
        assert [attempts(make_client(server.url)) for _ in range(6)] == [3, 2, 1, 1, 1, 1]
        assert len(server.requests) == 9


def test_p09_one_server_has_one_budget(make_client: ClientFactory) -> None:
    with raw_server([BUSY]) as one, raw_server([BUSY]) as other:
        assert [attempts(make_client(one.url)) for _ in range(3)] == [3, 2, 1]
        assert attempts(make_client(other.url)) == 3


def test_p09_successes_earn_trust_again() -> None:
    budget = Budget()
    for _ in range(20):
        budget.failed()
    for _ in range(50):
        budget.succeeded()
    assert not budget.allows_retries
    budget.succeeded()
    assert budget.allows_retries
    for _ in range(100):
        budget.succeeded()
    budget.failed()
    assert budget._tokens == 9


def test_p09_a_server_that_has_become_ready_is_trusted(make_client: ClientFactory) -> None:
    with raw_server([WELL], [BUSY], [WELL], [ANSWER]) as server, make_client(server.url, max_attempts=1) as glm:
        for _ in range(20):
            budget_of(server.url).failed()
        glm.wait_until_ready(20)
        assert budget_of(server.url).allows_retries


def test_p09_the_callers_mistakes_cost_the_server_nothing(make_client: ClientFactory) -> None:
    with raw_server(*[[plain(b"", "400 Bad")]] * 20, [BUSY]) as server:
        for _ in range(20):
            attempts(make_client(server.url))
        assert attempts(make_client(server.url)) == 3


def test_p09_the_first_that_reaches_nobody_is_free() -> None:
    budget = Budget()
    clock = CallClock(Timeouts())
    policy = Policy(3, clock, budget)
    for left in (10, 9):
        clock.link = "unreached"
        assert policy.again(ConnectionFailed("refused"))
        assert budget._tokens == left


KEPT = kept(ANSWER)


def gone(connection: Any) -> None:
    """The server closes a connection in the moment in which it is used again."""
    next_request(connection)
    reset(connection)


@pytest.mark.parametrize("end", [[gone], [next_request]], ids=["reset", "closed"])
def test_p15_a_stale_connection_never_surfaces(make_client: ClientFactory, end: list[Any]) -> None:
    with raw_server([KEPT, *end], [KEPT, next_request, KEPT, 20.0]) as server:
        glm = make_client(server.url, max_attempts=1)
        assert glm.chat("x").attempts == 1
        assert glm.chat("x").attempts == 2
        assert budget_of(server.url)._tokens == 10
        assert glm.chat("x").attempts == 1
        assert len(server.requests) == 2  # connections: the fresh one is kept again


def test_p15_the_free_attempt_takes_a_fresh_connection() -> None:
    """There may be more that are stale."""
    with raw_server([0.3, KEPT, gone], [0.3, KEPT, gone], [KEPT, 20.0]) as server, AutoGLM(server.url) as glm:
        threads = [threading.Thread(target=glm.chat, args=("x",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert glm.chat("x").attempts == 2


def test_p15_it_is_free_once(make_client: ClientFactory) -> None:
    with raw_server([KEPT, gone], [reset]) as server, make_client(server.url, max_attempts=1) as glm:
        glm.chat("x")
        with pytest.raises(ConnectionFailed) as caught:
            glm.chat("x")
        assert caught.value.attempts == 2


def test_p15_free_once_even_if_the_next_one_is_stale_too() -> None:
    clock = CallClock(Timeouts())
    policy = Policy(1, clock, Budget())
    gives_up = []
    for attempt in (1, 2):
        clock.link = "reused"
        assert policy.again(ConnectionFailed("stale"))
        gives_up.append(policy.gives_up(attempt, 0))
    assert gives_up == [False, True]


def test_p07_what_was_delivered_is_not_asked_for_again() -> None:
    for link in ("reused", "heard"):
        clock = CallClock(Timeouts())
        clock.link = link
        error = ConnectionFailed("cut")
        error.partial = Reply(choices=())
        assert not Policy(3, clock, Budget()).again(error)


def test_p15_not_after_the_first_byte_and_not_when_late(make_client: ClientFactory) -> None:
    script: list[list[Step]] = [[KEPT, next_request, b"HTTP/1.1 2"], [KEPT, next_request, 20.0]]
    with raw_server(*script) as server, make_client(server.url, max_attempts=1) as glm:
        for _ in range(2):
            glm.chat("x")
            with pytest.raises(ConnectionFailed) as caught:
                glm.chat("x", timeout=0.5)
            assert caught.value.attempts == 1


def test_p15_also_where_there_is_no_stream(make_client: ClientFactory) -> None:
    models = kept(plain(b'{"data":[]}'))
    with raw_server([models, gone], [models, gone], [models]) as server, make_client(server.url, max_attempts=1) as glm:
        assert glm.models() == glm.models() == []
        assert glm.health() is True


@pytest.mark.parametrize("died", [DEAD, DEAD_IN_A_STREAM], ids=["500", "in a stream"])
def test_p09_a_dead_engine_is_waited_for(make_client: ClientFactory, died: bytes) -> None:
    ill = [plain(b"", "503 Service Unavailable")]
    with raw_server([died], ill, [reset], [WELL], [ANSWER]) as server:
        reply = make_client(server.url).chat("x")
        assert (reply.text, reply.attempts) == ("hello", 2)
        asked = [request.split(b" ")[1].decode() for request in server.requests]
        assert asked == ["/v1/chat/completions", *["/health"] * 3, "/v1/chat/completions"]
        assert not budget_of(server.url).engine_died


def test_p09_a_dead_engine_is_asked_once_more_and_not_again(make_client: ClientFactory) -> None:
    with raw_server([DEAD], [WELL], [DEAD], [WELL]) as server, pytest.raises(ServerDied) as caught:
        make_client(server.url, max_attempts=9).chat("x")
    assert (caught.value.attempts, len(server.requests)) == (2, 3)


def test_p09_an_engine_that_stays_dead(make_client: ClientFactory) -> None:
    with raw_server([DEAD]) as server:
        started = time.monotonic()
        with pytest.raises(ServerDied) as caught:
            make_client(server.url, timeout=1.5).chat("x")
        assert 1 < time.monotonic() - started < SOON
        assert caught.value.attempts == 1


def test_p09_a_server_that_is_gone_after_its_engine_died(make_client: ClientFactory) -> None:
    """Found out in a stream; the next call waits as well, though all it sees is a 503."""
    died: list[Step] = [HEAD, delta("a"), 0.1, DEAD_IN_A_STREAM.partition(b"\r\n\r\n")[2]]
    with raw_server(died, [BUSY], [WELL], [ANSWER]) as server:
        glm = make_client(server.url)
        with pytest.raises(ServerDied), glm.stream("x") as stream:
            stream.finish()
        assert glm.chat("x").attempts == 2
        assert b"/health" in server.requests[2]


@pytest.mark.parametrize("resume", ["never", "always"])
def test_p09_a_death_is_remembered_that_came_with_the_first_event(make_client: ClientFactory, resume: str) -> None:
    died = HEAD + delta("a") + DEAD_IN_A_STREAM.partition(b"\r\n\r\n")[2]
    with raw_server([died], [BUSY], [WELL], [ANSWER]) as server:
        glm = make_client(server.url, resume=resume)
        with pytest.raises(ServerDied):
            glm.chat("x")
        assert budget_of(server.url).engine_died
        assert glm.chat("x").attempts == 2


def test_p09_a_death_is_remembered_that_the_rest_of_an_answer_told(make_client: ClientFactory) -> None:
    with raw_server([HEAD, delta("a"), 0.1, reset], [DEAD]) as server:
        with pytest.raises(StreamInterrupted), make_client(server.url).stream("x", resume="always") as stream:
            stream.finish()
        assert budget_of(server.url).engine_died


def test_p09_a_dead_engine_is_not_waited_for_without_end(
    make_client: ClientFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoglm_client.defaults.TOTAL_SECONDS", 1.0)
    with raw_server([DEAD]) as server:
        started = time.monotonic()
        stream = make_client(server.url).stream("x", timeout=None)
        alarm = threading.Timer(8, stream.cancel)
        alarm.start()
        with pytest.raises(ServerDied) as caught:
            stream.__enter__()
        alarm.cancel()
        assert 0.5 < time.monotonic() - started < SOON
        assert caught.value.attempts == 1
        longer = make_client(server.url, timeout=4.0)
        started = time.monotonic()
        with pytest.raises(ServerDied):
            longer.chat("x")
        assert time.monotonic() - started > 3  # who gave it more time has it


def test_p10_cancel_while_a_dead_engine_is_waited_for(make_client: ClientFactory) -> None:
    for waiting in ([plain(b"", "503 Service Unavailable")], [20.0]):
        with raw_server([DEAD], waiting) as server:
            stream = make_client(server.url).stream("x")
            threading.Timer(1, stream.cancel).start()
            started = time.monotonic()
            with pytest.raises(Cancelled) as caught, stream:
                raise AssertionError("not reached")
            assert time.monotonic() - started < SOON
            assert caught.value.attempts == 1


def test_p02_the_connection_of_a_finished_stream_is_kept(make_client: ClientFactory) -> None:
    chunked = HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked")

    def chunk(data: bytes) -> bytes:
        return f"{len(data):x}\r\n".encode() + data + b"\r\n"

    answer = chunked + chunk(delta("hello")) + chunk(finish()) + chunk(DONE) + b"0\r\n\r\n"
    with raw_server([answer, next_request, answer, 20.0]) as server:
        glm = make_client(server.url)
        for _ in range(2):
            with glm.stream("x") as stream:
                assert stream.finish().text == "hello"
        assert len(server.requests) == 1


@pytest.mark.parametrize("tail", [b"", DONE, b": ping\n\n"], ids=["nothing", "done", "ping"])
def test_p02_half_a_second_after_the_end_and_no_more(make_client: ClientFactory, tail: bytes) -> None:
    pings: list[Step] = [0.1, b": ping\n\n"]
    with raw_server([HEAD, delta("a"), finish(), tail, *pings * 200]) as server:
        started = time.monotonic()
        with make_client(server.url).stream("x") as stream:
            assert stream.finish().text == "a"
        assert time.monotonic() - started < 2
        assert server.hung_up.wait(SOON)


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG = plain(BODY).replace(f"Length: {len(BODY)}".encode(), f"Length: {len(BODY) + 9}".encode())
BADLY_ENDED: dict[str, list[Step]] = {
    "no last chunk": [CHUNKED + f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n"],
    "a chunk that is none": [CHUNKED + f"{len(BODY):x}\r\n".encode() + BODY + b"\r\nnonsense\r\n"],
    "closed too early": [LONG],
    "reset": [LONG, 0.1, reset],
    "left open": [LONG, 20.0],
    "compressed, without the checksum": [plain(gzip.compress(BODY)[:-4], "200 OK", "Content-Encoding: gzip")],
}


@pytest.mark.parametrize("script", BADLY_ENDED.values(), ids=BADLY_ENDED)
def test_p02_a_whole_answer_is_an_answer_however_its_body_ends(make_client: ClientFactory, script: list[Step]) -> None:
    with raw_server(script) as server:
        reply = make_client(server.url, timeout=1.5 if 20.0 in script else 10.0).chat("x")
        assert (reply.text, reply.finish_reason, reply.attempts) == ("hello", "stop", 1)
        assert len(server.requests) == 1


@pytest.mark.parametrize("body", [BODY[:-1], b'{"choices":[{"index":0,"message":{"content":"hello"}}]}', b"", b"{}"])
def test_p01_what_is_no_whole_answer_stays_the_error_that_it_was(make_client: ClientFactory, body: bytes) -> None:
    long = plain(body).replace(f"Length: {len(body)}".encode(), f"Length: {len(body) + 9}".encode())
    with raw_server([long]) as server, pytest.raises(ConnectionFailed) as caught:
        make_client(server.url).chat("x")
    assert (caught.value.attempts, caught.value.partial) == (3, None)


def test_p02_the_rest_of_an_answer_is_not_the_answer(make_client: ClientFactory) -> None:
    with raw_server([HEAD, delta("so far"), 0.1, reset], [LONG]) as server, make_client(server.url) as glm:
        with pytest.raises(StreamInterrupted) as caught, glm.stream("x", resume="always") as stream:
            stream.finish()
        assert caught.value.partial is not None
        assert caught.value.partial.text == "so far"
