"""Going on with an answer that was cut: what is asked, what is given out, and all the cases in which it is refused."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from autoglm_client import (
    AutoGLMError,
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    ReasoningDelta,
    RequestTimedOut,
    StreamInterrupted,
    TextDelta,
    Timeouts,
)
from autoglm_client._resume import Beginning, obstacles
from autoglm_client._retry import budget_of
from server_stub import ScriptedServer

from ..conftest import ClientFactory
from ..cutting_proxy import cutting
from ..raw_server import (
    DONE,
    HEAD,
    RawServer,
    delta,
    event,
    finish,
    kept,
    next_request,
    plain,
    raw_server,
    reset,
)

SAID = "<think>I see Settings.</think><answer>do(action="
REST = '"Home")</answer>'
CUT = HEAD + delta(SAID)
GOES_ON = HEAD + delta(REST) + finish() + DONE


def chunk(content: str = "", **fields: Any) -> bytes:
    """An event with more than the words."""
    return event(json.dumps({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": content}}], **fields}))


def counted(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def bodies(server: RawServer) -> list[dict[str, Any]]:
    """What was asked, call by call."""
    return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]


def finished(stream: Any) -> Any:
    """The reply of a stream, read to its end."""
    with stream:
        return stream.finish()


def notes(error: AutoGLMError) -> str:
    return "\n".join(getattr(error, "__notes__", ()))


def test_the_rest_is_asked_for_and_added(make_client: ClientFactory) -> None:
    with raw_server([CUT], [GOES_ON]) as server, make_client(server.url) as glm:
        with glm.stream("Go home", resume="always", max_tokens=100, temperature=0) as stream:
            events = list(stream)
            reply = stream.reply
        first, second = bodies(server)
    assert reply.raw == SAID + REST
    assert (reply.reasoning, reply.text) == ("I see Settings.", 'do(action="Home")')
    assert (reply.resumed, reply.attempts, reply.finish_reason) == (True, 2, "stop")
    assert "".join(it.text for it in events if isinstance(it, ReasoningDelta)) == reply.reasoning
    assert "".join(it.text for it in events if isinstance(it, TextDelta)) == reply.text
    assert first["messages"] == [{"role": "user", "content": "Go home"}]
    assert second == {
        **first,
        "messages": [*first["messages"], {"role": "assistant", "content": SAID}],
        "max_tokens": 99,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }


def test_thinking_in_a_field_goes_back_as_the_model_wrote_it(make_client: ClientFactory) -> None:
    def thought(text: str) -> bytes:
        return event(json.dumps({"choices": [{"index": 0, "delta": {"reasoning": text}}]}))

    for cut, words in (
        ([thought("I see ")], "<think>I see "),
        ([thought("I see "), thought("it."), delta("\ndo(")], "<think>I see it.</think>\ndo("),
        ([thought("<think>I see "), delta("</think>do(")], "<think>I see </think>do("),
    ):
        with raw_server([HEAD, *cut], [GOES_ON]) as server, make_client(server.url) as glm:
            finished(glm.stream("Go home", resume="always"))
            assert bodies(server)[1]["messages"][-1] == {"role": "assistant", "content": words}


def test_what_would_be_wrong_of_the_first_request_is_put_right(make_client: ClientFactory) -> None:
    cut = HEAD + chunk(SAID, usage=counted(10, 7))
    options: dict[str, Any] = {"seed": 3, "max_completion_tokens": 50, "request_id": "mine", "temperature": 0.8}
    with raw_server([cut], [GOES_ON]) as server, make_client(server.url) as glm:
        finished(glm.stream("Go home", resume="always", **options))
        first, second = bodies(server)
    assert (second["seed"], second["max_completion_tokens"]) == (4, 43)
    assert "request_id" not in second
    assert first["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_both_requests_are_counted(make_client: ClientFactory) -> None:
    cut = HEAD + chunk(SAID, usage=counted(10, 7))
    rest = HEAD + chunk(usage=counted(17, 0)) + chunk(REST, usage=counted(17, 3)) + finish()
    with raw_server([cut], [rest]) as server, make_client(server.url) as glm:
        usage = finished(glm.stream("Go home", resume="always")).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (27, 10, 37)


def test_thinking_that_was_over_does_not_go_on(make_client: ClientFactory) -> None:
    """vLLM 0.32 with glm45 counted twelve of twelve tokens of an answer as thinking."""
    rest = {**counted(17, 3), "completion_tokens_details": {"reasoning_tokens": 3}}
    for cut, thought in ((CUT, 0), (HEAD + delta("<think>I see"), 3)):
        with raw_server([cut], [HEAD + chunk(REST, usage=rest) + finish()]) as server, make_client(server.url) as glm:
            usage = finished(glm.stream("Go home", resume="always")).usage
        assert (usage.completion_tokens, usage.reasoning_tokens) == (3, thought)


def test_a_client_may_always_do_so(make_client: ClientFactory) -> None:
    for settings in ({"resume": "always"}, {"options": {"resume": "always"}}):
        with raw_server([CUT], [GOES_ON]) as server, make_client(server.url, **settings) as glm:
            assert finished(glm.stream("Go home")).resumed
            assert not finished(glm.stream("Go home", resume="never")).resumed


def test_an_answer_in_one_piece_that_was_cut_is_asked_for_again(make_client: ClientFactory) -> None:
    body = plain(b'{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}')
    with raw_server([body[:-20]], [body]) as server, make_client(server.url, resume="always") as glm:
        reply = glm.chat("Hi")
        assert "continue_final_message" not in bodies(server)[1]
    assert (reply.text, reply.resumed, reply.attempts) == ("hello", False, 2)


@pytest.mark.parametrize("reasoning", ["tags", "reasoning", "reasoning_content"])
def test_cut_after_any_event_it_is_the_answer_that_it_would_have_been(
    make_client: ClientFactory, reasoning: Any
) -> None:
    with ScriptedServer(reasoning=reasoning) as server:
        with make_client(server.base_url) as glm, glm.stream("打开设置") as stream:
            whole = stream.finish()
        resumed = []
        for count in range(1, whole.usage.completion_tokens + 3):
            with cutting(server.base_url, events=count) as url, make_client(url, resume="always") as glm:
                reply = finished(glm.stream("打开设置"))
            assert (reply, reply.raw) == (whole, whole.raw), count
            resumed.append(reply.resumed)
    assert resumed.index(True) == 1, "the role alone is nothing: it is asked for again"
    assert resumed.count(True) > 20
    assert not resumed[-1], "it was complete when it was cut"


# What is not gone on with


def refused(make_client: ClientFactory, cut: bytes, rest: bytes = GOES_ON, **options: Any) -> tuple[AutoGLMError, int]:
    """The error, and how many requests were made."""
    with raw_server([cut], [rest]) as server, make_client(server.url) as glm:
        with pytest.raises(AutoGLMError) as caught, glm.stream("Go home", **{"resume": "always", **options}) as stream:
            stream.finish()
        return caught.value, len(server.requests)


def tool_call(name: str) -> bytes:
    call = {"index": 0, "id": "1", "type": "function", "function": {"name": name, "arguments": "{"}}
    return event(json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}))


SECOND_ANSWER = event(json.dumps({"choices": [{"index": 1, "delta": {"content": "two"}}]}))


@pytest.mark.parametrize(
    ("cut", "options", "why"),
    [
        (CUT + tool_call("tap"), {"tools": [{"type": "function", "function": {"name": "tap"}}]}, "it calls tools"),
        (HEAD + delta("<tool_call>tap"), {}, "'<tool_call>' in it"),
        (CUT + SECOND_ANSWER, {"n": 2}, "several answers"),
        (CUT, {"n": 2}, "several answers"),
        (CUT, {"response_format": {"type": "json_object"}}, "its form is given"),
        (CUT, {"structured_outputs": {"regex": "do.*"}}, "its form is given"),
        (CUT, {"extra_body": {"guided_regex": "do.*"}}, "its form is given"),
        (CUT, {"tools": [{"type": "function", "function": {"name": "tap"}}], "tool_choice": "required"}, "its form"),
        (HEAD + delta("say <|user|> to me"), {}, "'<|user|>' in it"),
        (HEAD + delta("say [gMASK]"), {}, "'[gMASK]' in it"),
        (HEAD + delta("half a \ufffd"), {}, "in it would not be read as it was written"),
        (CUT, {"resume": "auto"}, "fewer than 64 tokens"),
        (HEAD + chunk(SAID, usage=counted(9, 5)), {"max_tokens": 5}, "all the tokens that it may have"),
        (CUT, {"frequency_penalty": 0.2}, "frequency_penalty counts"),
        (CUT, {"presence_penalty": 0.2}, "presence_penalty counts"),
        (CUT, {"repetition_penalty": 1.1}, "repetition_penalty counts"),
        (CUT, {"min_tokens": 9}, "min_tokens would begin anew"),
        (CUT, {"logprobs": True}, "logprobs would begin anew"),
        (CUT, {"stop": ["x"]}, "stop would begin anew"),
        (CUT, {"thinking_token_budget": 9}, "thinking_token_budget would begin anew"),
        (CUT, {"repetition_detection": {"max_pattern_size": 9}}, "repetition_detection would begin anew"),
        (CUT, {"include_reasoning": False}, "its thinking was left out"),
        (CUT, {"skip_special_tokens": True}, "its tags were left out"),
        (CUT, {"continue_final_message": True, "add_generation_prompt": False}, "how the prompt ends"),
        (CUT + event('{"error":{"message":"broken","code":500}}'), {}, "not merely cut"),
        (CUT + event("{"), {}, "not merely cut"),
        (CUT + finish("abort"), {}, "not merely cut"),
        (CUT + DONE, {}, "not merely cut"),
    ],
)
def test_it_is_refused(make_client: ClientFactory, cut: bytes, options: dict[str, Any], why: str) -> None:
    error, requests = refused(make_client, cut, **options)
    assert why in notes(error)
    assert requests == 1
    assert error.partial is not None
    assert not error.partial.complete


def test_off_are_values_that_count_nothing(make_client: ClientFactory) -> None:
    off = {"frequency_penalty": 0, "presence_penalty": 0.0, "repetition_penalty": 1.0, "min_tokens": 0, "stop": []}
    with raw_server([CUT], [GOES_ON]) as server, make_client(server.url, resume="always") as glm:
        assert finished(
            glm.stream("x", logprobs=False, response_format={"type": "text"}, tool_choice="auto", **off)
        ).resumed


def test_auto_goes_on_where_much_would_be_lost(make_client: ClientFactory) -> None:
    long = HEAD + chunk(SAID, usage=counted(9, 64))
    with raw_server([long], [GOES_ON]) as server, make_client(server.url, resume="auto") as glm:
        assert finished(glm.stream("Go home")).resumed


def test_never_is_the_default(make_client: ClientFactory) -> None:
    with raw_server([CUT], [GOES_ON]) as server, make_client(server.url) as glm:
        with pytest.raises(StreamInterrupted) as caught, glm.stream("Go home") as stream:
            stream.finish()
        assert "stream_options" in bodies(server)[0]
        assert "continuous_usage_stats" not in bodies(server)[0]["stream_options"]
    assert (len(server.requests), notes(caught.value)) == (1, "")


def test_another_word_for_it_is_a_mistake(make_client: ClientFactory) -> None:
    with make_client("http://127.0.0.1:9/v1") as glm, pytest.raises(ConfigurationError, match="resume='yes'"):
        glm.stream("x", resume="yes")


@pytest.mark.parametrize(
    ("words", "body", "why"),
    [
        ("I", {"messages": []}, "this server is not known to go on with a beginning"),  # a hosted endpoint
        ("", {"messages": [], "skip_special_tokens": False}, "nothing of it had come"),
    ],
)
def test_what_no_stream_of_ours_shows_is_refused_too(words: str, body: dict[str, Any], why: str) -> None:
    beginning = Beginning(
        words=words,
        answers=1,
        thought=False,
        calls_tools=False,
        tokens=1,
        prompt_tokens=None,
        model=None,
        system_fingerprint=None,
    )
    assert list(obstacles("always", body, beginning)) == [why]


def test_a_stall_is_no_cut(make_client: ClientFactory) -> None:
    timeouts = Timeouts(between_tokens=0.2)
    with raw_server([CUT, 10.0], [GOES_ON]) as server, make_client(server.url, resume="always") as glm:
        with pytest.raises(RequestTimedOut) as caught, glm.stream("Go home", timeout=timeouts) as stream:
            stream.finish()
        assert len(server.requests) == 1
    assert "not merely cut" in notes(caught.value)


def test_at_most_once(make_client: ClientFactory) -> None:
    error, requests = refused(make_client, CUT, HEAD + delta('"Ho'))
    assert isinstance(error, StreamInterrupted)
    assert "it had been resumed before" in notes(error)
    assert requests == 2
    assert error.partial is not None
    assert (error.partial.raw, error.partial.resumed, error.partial.action) == (SAID + '"Ho', True, None)


COUNTED_CUT = HEAD + chunk(SAID, model="autoglm-phone-9b", system_fingerprint="a", usage=counted(10, 7))


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        (plain(b'{"message":"final message does not appear"}', "400 Bad Request"), "400"),
        (plain(b"", "503 Service Unavailable"), "503"),
        (b"", "disconnected"),
        (HEAD, "before it was complete"),
        (HEAD + chunk(REST, model="glm-4") + finish(), "model is 'glm-4'"),
        (HEAD + chunk(REST, system_fingerprint="b") + finish(), "system_fingerprint is 'b'"),
        (HEAD + chunk(REST, usage=counted(18, 1)) + finish(), "number of prompt tokens is 18"),
    ],
)
def test_when_the_rest_is_not_to_be_had_it_is_the_first_error(
    make_client: ClientFactory, rest: bytes, why: str
) -> None:
    error, requests = refused(make_client, COUNTED_CUT, rest)
    assert isinstance(error, StreamInterrupted)
    assert "the answer was not resumed" in notes(error)
    assert why in notes(error)
    assert (requests, error.attempts) == (2, 2)
    assert error.partial is not None
    assert error.partial.raw == SAID


def test_the_error_stays(make_client: ClientFactory) -> None:
    with raw_server([CUT], [b""]) as server, make_client(server.url, resume="always") as glm:
        with glm.stream("Go home") as stream:
            errors = []
            for _ in range(3):
                with pytest.raises(StreamInterrupted) as caught:
                    stream.finish()
                errors.append(caught.value)
        assert len(server.requests) == 2
    assert len({str(vars(error)) for error in errors}) == 1
    assert [error.args for error in errors] == [errors[0].args] * 3


def test_it_is_asked_on_a_fresh_connection(make_client: ClientFactory) -> None:
    """Another one that was kept may be dead, too, and there is no second try."""
    asked = threading.Event()

    def wait(_connection: object) -> None:
        asked.wait(8)

    once = kept(plain(b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'))
    with (
        raw_server([CUT, wait], [once, next_request, reset], [GOES_ON]) as server,
        make_client(server.url) as glm,
        glm.stream("Go home", resume="always") as stream,
    ):
        assert glm.chat("x").text == "hi"
        asked.set()
        assert stream.finish().raw == SAID + REST


def test_an_outage_is_not_multiplied_by_it(make_client: ClientFactory) -> None:
    with raw_server([CUT]) as server, make_client(server.url, resume="always") as glm:
        for _ in range(8):
            with pytest.raises(StreamInterrupted):
                glm.stream("Go home").__enter__().finish()
        assert 8 < len(server.requests) < 16
        assert not budget_of(server.url).allows_retries


def test_no_time_is_left_for_it(make_client: ClientFactory) -> None:
    with raw_server([CUT, 0.4], [0.0, HEAD, 10.0]) as server, make_client(server.url, resume="always") as glm:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught, glm.stream("Go home", timeout=1.5) as stream:
            stream.finish()
        assert time.monotonic() - begun < 5
    assert caught.value.partial is not None
    assert caught.value.partial.raw == SAID


def test_a_server_that_is_down_is_not_asked_for_the_rest(make_client: ClientFactory) -> None:
    with raw_server([CUT], [GOES_ON]) as server, make_client(server.url, resume="always") as glm:
        for _ in range(6):
            budget_of(server.url).failed()
        with pytest.raises(StreamInterrupted), glm.stream("Go home") as stream:
            stream.finish()
        assert len(server.requests) == 1


def cancel_at_the_second(server: RawServer, stream: Any) -> None:
    server.wait_for(2)
    stream.cancel()


def test_cancelled_while_the_rest_is_awaited(make_client: ClientFactory) -> None:
    with raw_server([CUT], [HEAD, 10.0]) as server, make_client(server.url, resume="always") as glm:
        with glm.stream("Go home") as stream:
            threading.Thread(target=cancel_at_the_second, args=(server, stream), daemon=True).start()
            with pytest.raises(Cancelled) as caught:
                stream.finish()
        assert server.hung_up.wait(8)
    assert caught.value.partial is not None
    assert caught.value.partial.raw == SAID
