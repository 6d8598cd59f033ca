"""From bytes to events to a reply: streamed and plain answers are one."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest
from hypothesis import given, strategies as st

from autoglm_client import (
    ActionReady,
    AutoGLMError,
    Back,
    Choice,
    Finished,
    InvalidReply,
    Launch,
    NotFound,
    Point,
    ReasoningDelta,
    RepetitionDetected,
    Reply,
    ServerDied,
    StreamInterrupted,
    Tap,
    TextDelta,
    TextWasReasoning,
    ToolCall,
    ToolCallDelta,
)
from autoglm_client._assembler import Assembler
from autoglm_client.events import Event
from autoglm_client.wire import Tokens, reader

from .wire_samples import COMPLETIONS, STREAMS, body_of

DIFFERENT_ON_THE_SERVER = "parser.tool_required"  # cut inside the call: vLLM gives a part of it, or its text


def stream_of(*deltas: dict[str, Any], finish: str | None = "stop") -> bytes:
    """The bytes of a stream."""
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if finish:
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


def content(*texts: str, finish: str | None = "stop") -> bytes:
    """The bytes of a stream of plain content."""
    return stream_of(*({"content": text} for text in texts), finish=finish)


def read(*pieces: bytes, n: int = 1, **options: Any) -> tuple[Reply, list[Event]]:
    assembler = Assembler(n=n, **options)
    for piece in pieces:
        assembler.feed(piece)
    assembler.close()
    return assembler.reply(), list(assembler.events)


def read_plain(body: bytes, n: int = 1) -> tuple[Reply, list[Event]]:
    assembler = Assembler(n=n)
    assembler.feed_whole(body)
    assembler.close()
    return assembler.reply(), list(assembler.events)


def added_up(events: list[Event], choice: int = 0) -> tuple[str, str]:
    """What a user has who adds up the events."""
    reasoning = text = ""
    for event in events:
        if event.choice != choice:
            continue
        match event:
            case TextDelta(new):
                text += new
            case ReasoningDelta(new):
                reasoning += new
            case TextWasReasoning(new):
                reasoning, text = reasoning + new, ""
    return reasoning, text


def n_of(name: str) -> int:
    return 2 if ".n2" in name else 1


@pytest.mark.parametrize("name", COMPLETIONS)
def test_a_real_stream_is_the_plain_answer(name: str) -> None:
    plain, _ = read_plain(body_of(name), n_of(name))
    streamed, events = read(body_of(f"{name}.stream"), n=n_of(name))
    if name != DIFFERENT_ON_THE_SERVER:
        assert streamed == plain
    assert streamed.complete
    assert streamed.usage is not None
    assert streamed.id != plain.id
    for choice in streamed.choices:
        assert added_up(events, choice.index) == (choice.reasoning, choice.text)
        assert [event.choice for event in events if isinstance(event, Finished)].count(choice.index) == 1
        told = [event.action for event in events if isinstance(event, ActionReady) and event.choice == choice.index]
        assert told == [choice.action] * (choice.action is not None)


@pytest.mark.parametrize("name", ["plain.tap_image.stream", "parser.tap_image.stream", "parser.tool_required.stream"])
def test_a_real_stream_at_every_cut(name: str) -> None:
    body = body_of(name)
    whole, events = read(body)
    for cut in range(0, len(body), 7):
        assert read(body[:cut], body[cut:]) == (whole, events)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [1, 64])
def test_every_real_stream_in_small_pieces(name: str, size: int) -> None:
    body = body_of(name)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert read(*pieces, n=n_of(name)) == read(body, n=n_of(name))


@pytest.mark.parametrize("name", ["plain.tap_image.stream", "parser.n2.stream"])
def test_a_real_stream_that_ends_anywhere(name: str) -> None:
    body = body_of(name)
    complete_from = body.rindex(b'"finish_reason":"stop"')
    for cut in range(0, len(body), 5):
        assembler = Assembler(n=n_of(name))
        assembler.feed(body[:cut])
        ended = b"\n\n" in body[complete_from:cut]
        assert assembler.complete is ended
        if not ended:
            with pytest.raises(StreamInterrupted, match="finish_reason"):
                assembler.close()
            assert not assembler.reply().complete
            if ".n2" not in name:
                assert assembler.reply().action is None


def test_logprobs_are_kept() -> None:
    plain, _ = read_plain(body_of("plain.logprobs"))
    assert plain.logprobs is not None
    assert [entry["token"] for entry in plain.logprobs["content"]][:2] == ["\n", "<think>"]
    assert read(body_of("plain.logprobs.stream"))[0].logprobs == plain.logprobs


def test_the_logprobs_of_a_long_answer_with_all_alternatives_are_kept() -> None:
    said = {"token": " the", "logprob": -3.528532761265524e-05, "bytes": [32, 116, 104, 101]}
    entry = {**said, "top_logprobs": [said] * 20}
    whole = {
        "choices": [{"message": {"content": "x"}, "finish_reason": "stop", "logprobs": {"content": [entry] * 3000}}]
    }
    assert read_plain(json.dumps(whole).encode())[0].logprobs == {"content": [entry] * 3000}
    chunk = {"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [entry]}}]}
    event = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    assert read(*[event] * 3000, content())[0].logprobs == {"content": [entry] * 3000}


def test_the_tokens_of_the_longest_prompt_are_read() -> None:
    tokens, words = list(range(10**5, 10**5 + 131_072)), [f'",{number}' for number in range(131_072)]
    read_tokens = reader(Tokens)(json.dumps({"count": 131_072, "tokens": tokens, "token_strs": words}).encode())
    assert (read_tokens.tokens, read_tokens.token_strs) == (tokens, words)


def test_a_large_answer_is_held_to_its_shape_and_size() -> None:
    for wrong, words in (
        ({"choices": [{"delta": 5}]}, "choices.0.delta: Input should be"),
        ({"choices": [{}], "x": [[]] * 500_000}, "too many parts"),
    ):
        body = json.dumps({"x": "x" * 70_000, **wrong})
        with pytest.raises(InvalidReply, match=words):
            Assembler().feed(b"data: " + body.encode() + b"\n\n")
    with pytest.raises(InvalidReply, match="EOF while parsing"):
        read_plain(b'{"x":"' + b"x" * 70_000)


def test_usage_with_its_details() -> None:
    body = {
        "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 5,
            "total_tokens": None,
            "prompt_tokens_details": {"cached_tokens": 4},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
    }
    usage = read_plain(json.dumps(body).encode())[0].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 5, 0)
    assert (usage.cached_tokens, usage.reasoning_tokens) == (4, 3)
    bare = read_plain(body_of("plain.launch"))[0].usage
    assert bare is not None
    assert (bare.cached_tokens, bare.reasoning_tokens) == (0, 0)


def test_token_ids_are_kept() -> None:
    chunks = [
        {"choices": [{"index": 0, "delta": {"content": "a"}, "token_ids": [1, 2]}]},
        {"choices": [{"index": 0, "delta": {"content": "b"}, "token_ids": [3], "finish_reason": "stop"}]},
    ]
    reply, _ = read(*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks))
    assert reply.first.token_ids == (1, 2, 3)


def test_tool_calls_in_fragments() -> None:
    reply, events = read(
        stream_of(
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "add", "arguments": '{"x"'}}]},
            {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "sub"}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}, {"index": 1}]},
            finish="tool_calls",
        )
    )
    assert reply.tool_calls == (ToolCall("a", "add", '{"x": 1}'), ToolCall("b", "sub", ""))
    assert [call.parsed() for call in reply.tool_calls] == [{"x": 1}, {}]
    assert reply.tool_calls[0].to_dict() == {
        "id": "a",
        "type": "function",
        "function": {"name": "add", "arguments": '{"x": 1}'},
    }
    assert events[1] == ToolCallDelta(1, "b", "sub", "")
    calls = [{"id": "a", "function": {"name": "add", "arguments": '{"x": 1}'}}, {"function": {"name": "sub"}}]
    body = {"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]}
    assert read_plain(json.dumps(body).encode())[0].tool_calls == reply.tool_calls


def call(call_id: str | None, name: str | None, arguments: str, index: int | None = None) -> dict[str, Any]:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


FRAGMENTS = {
    "no index": [[call("a", "f", "{")], [call(None, None, "}")], [call("b", "g", "{}")]],
    "no index, in one event": [[call("a", "f", "{}"), call("b", "g", "{}")]],
    "one index for both": [[call("a", "f", "{", 0)], [call("", None, "}", 0)], [call("b", "g", "{}", 0)]],
    "the first again, then the second": [
        [call("a", "f", "{}", 1)],
        [call("b", "g", "{", 1)],
        [call("b", None, "}", 1)],
    ],
    "a place that is taken": [[call("a", "f", "{}", 0)], [call("b", "g", "{", 0)], [call(None, None, "}", 0)]],
    "another id for each fragment": [[call("a", "f", "{", 0)], [call("x", None, "}", 0)], [call("b", "g", "{}", 1)]],
}


@pytest.mark.parametrize("fragments", FRAGMENTS.values(), ids=FRAGMENTS)
def test_tool_calls_are_told_apart(fragments: list[Any]) -> None:
    deltas = [{"tool_calls": fragment} for fragment in fragments]
    reply, events = read(stream_of(*deltas, finish="tool_calls"))
    assert [(made.id, made.name, made.arguments) for made in reply.tool_calls] == [("a", "f", "{}"), ("b", "g", "{}")]
    assert len({event.index for event in events if isinstance(event, ToolCallDelta)}) == 2


def test_a_call_whose_place_is_taken_gets_another() -> None:
    parts = [call("a", "f", "", 0), call("b", "g", "", 0), call("c", "h", "", 1)]
    reply, _ = read(stream_of(*({"tool_calls": [part]} for part in parts), finish="tool_calls"))
    assert [made.name for made in reply.tool_calls] == ["f", "g", "h"]


@pytest.mark.parametrize("arguments", ["{", "[1]", "null"])
def test_arguments_that_are_none(arguments: str) -> None:
    with pytest.raises(InvalidReply, match="arguments of tool call 'f'"):
        ToolCall("", "f", arguments).parsed()


SHAPES = {
    "the field `reasoning`": stream_of({"reasoning": "why"}, {"content": 'do(action="Back")'}),
    "the field `reasoning_content`": stream_of({"reasoning_content": "why"}, {"content": 'do(action="Back")'}),
    "both fields": stream_of({"reasoning": "why", "reasoning_content": "why"}, {"content": 'do(action="Back")'}),
    "both in one delta": stream_of({"reasoning": "why", "content": "<answer>"}, {"content": 'do(action="Back")'}),
    "tags": content("<thi", "nk>why</", "think>\n<answer>do(act", 'ion="Back")</answer>'),
    "an orphan tag": content("why", "</think>", 'do(action="Back")'),
    "prose before the tag": content("why", "<answer>", 'do(action="Back")'),
    "nulls": stream_of({"role": "assistant", "content": None}, {"reasoning": "why"}, {"content": 'do(action="Back")'}),
}


@pytest.mark.parametrize("stream", SHAPES.values(), ids=SHAPES)
def test_every_shape_gives_the_same_reply(stream: bytes) -> None:
    reply, events = read(stream)
    assert (reply.reasoning, reply.text, reply.action) == ("why", 'do(action="Back")', Back())
    assert added_up(events) == ("why", 'do(action="Back")')
    assert events[-2:] == [ActionReady(Back()), Finished("stop")]


def test_an_action_is_told_as_soon_as_it_is_complete() -> None:
    assembler = Assembler()
    for character in '<think>why</think><answer>do(action="Tap", element=[1,2]':
        assembler.feed(content(character, finish=None))
    assembler.events.clear()
    assembler.feed(content(")", finish=None))
    assert list(assembler.events) == [TextDelta(")"), ActionReady(Tap(Point(1, 2)))]


def test_an_action_in_prose_waits_for_the_end() -> None:
    """An orphan tag may still turn it into thinking."""
    _, events = read(content('do(action="Back")', "</think>", 'do(action="Home")'))
    assert [event.action for event in events if isinstance(event, ActionReady)] == [
        read(content('do(action="Home")'))[0].action
    ]


def test_a_filter_withdraws_an_action() -> None:
    reply, _ = read(content('<answer>do(action="Back")', finish="content_filter"))
    assert reply.action_error is not None
    assert reply.action_error.code == "content_filtered"


def test_what_the_removal_of_tags_leaves_is_not_read_as_tags() -> None:
    reply, events = read(content('<answer>do(action="Type", text="a<thi<answer>nk>b")\n'))
    assert [event.action for event in events if isinstance(event, ActionReady)] == [reply.action]
    assert reply.text == 'do(action="Type", text="a<think>b")'


def test_many_answers_cost_linear_time() -> None:
    def seconds(count: int) -> float:
        choices = [{"index": index, "delta": {}, "finish_reason": "stop"} for index in range(count)]
        body = b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n"
        started = process_time()
        Assembler(n=count).feed(body)
        return process_time() - started

    small = min(seconds(2000) for _ in range(5))  # both are read as large ones
    assert min(seconds(8000) for _ in range(5)) < small * 4 * 2.5


def test_an_answer_that_nobody_asked_for_comes_too_late() -> None:
    late = {"choices": [{"index": 1, "delta": {"content": "b"}}]}
    reply, _ = read(content("a"), b"data: " + json.dumps(late).encode() + b"\n\n")
    assert reply.complete
    assert [choice.text for choice in reply.choices] == ["a"]


def test_an_answer_that_nobody_asked_for_never_ends() -> None:
    other = b'data: {"choices":[{"index":1,"delta":{"content":"b"}}]}\n\n'
    reply, _ = read(other, content("a"))
    assert reply.complete
    assert [choice.text for choice in reply.choices] == ["a"]
    both = {"choices": [{"index": 1, "message": {}}, {"message": {"content": "a"}, "finish_reason": "stop"}]}
    assert read_plain(json.dumps(both).encode())[0].text == "a"
    for pieces, n in (([other, content("a")], 2), ([other, content("a", finish=None)], 1)):
        with pytest.raises(StreamInterrupted):
            read(*pieces, n=n)


HALVES = {
    r"a\ud83d": "a\ufffd",
    r"\ude00b": "\ufffdb",
    r"\ud83d\ud83d\ude00": "\ufffd😀",
    r"\ud83dx": "\ufffdx",
    r"\uD83D\uDE00 \\ud83d \udabc": "😀 \\ud83d \ufffd",
    r"\ud83d\\ude00": "\ufffd\\ude00",
}


@pytest.mark.parametrize(("escaped", "text"), HALVES.items())
def test_half_a_character_costs_only_itself(escaped: str, text: str) -> None:
    body = '{"choices":[{"message":{"content":"' + escaped + '"},"finish_reason":"stop"}]}'
    assert read_plain(body.encode())[0].text == text
    assert read(b"data: " + body.replace("message", "delta").encode() + b"\n\n")[0].text == text


def test_half_a_character_excuses_nothing_else() -> None:
    with pytest.raises(InvalidReply, match="hex escape"):
        read_plain(b'{"choices":[{"message":{"content":"\\ud83d\xff"}}]}')


def test_a_cut_call_is_no_action() -> None:
    reply, events = read(content('<answer>do(action="Type", text="pay 1500', finish="length"))
    assert reply.action is None
    assert reply.action_call is None
    assert reply.action_error is not None
    assert reply.action_error.code == "truncated"
    with pytest.raises(AutoGLMError):
        reply.expect_action()
    assert not [event for event in events if isinstance(event, ActionReady)]


def test_an_incomplete_answer_has_no_action() -> None:
    choice = Choice(text='do(action="Back")')
    assert choice.action is None
    assert choice.action_error is not None
    assert choice.action_error.code == "truncated"


def test_several_answers() -> None:
    chunks = [(1, "do(action="), (0, "do(action="), (0, '"Back")'), (1, '"Launch", app="A")')]
    stream = b"".join(
        b"data: " + json.dumps({"choices": [{"index": index, "delta": {"content": text}}]}).encode() + b"\n\n"
        for index, text in chunks
    )
    ends = b'data: {"choices":[{"index":0,"finish_reason":"stop"},{"index":1,"finish_reason":"stop"}]}\n\n'
    reply, _ = read(stream, ends, n=2)
    assert [choice.action for choice in reply.choices] == [Back(), Launch("A")]
    assert reply.first is reply.choices[0]
    with pytest.raises(StreamInterrupted):
        read(stream, b'data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\n', n=2)


ODD = [
    b'data: {"choices":null}\n\n',
    b'data: {"choices":[]}\n\n',
    b"data: {}\n\n",
    b'data: {"choices":[{"delta":null}]}\n\n',
    b'data: {"choices":[{}]}\n\n',
    b'data: {"choices":[{"delta":{"tool_calls":[],"content":""},"logprobs":{"content":null}}]}\n\n',
    b'data: {"choices":[{"delta":{},"finish_reason":""}],"usage":null,"new_field":[1]}\n\n',
    b"data:\n\n",
    b": ping\n\n",
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_odd_chunks_are_tolerated(odd: bytes) -> None:
    assert read(odd, content("hello", finish=None), odd, content(), odd)[0].text == "hello"


DETAILS: dict[str, Any] = {
    "id": 7,
    "object": 1,
    "created": 1.5,
    "model": 7,
    "system_fingerprint": 3,
    "usage": "none",
}


@pytest.mark.parametrize(
    "details", [*({name: value} for name, value in DETAILS.items()), DETAILS, {"usage": []}, {"model": None}], ids=str
)
@pytest.mark.parametrize("of_choice", [{}, {"logprobs": [], "stop_reason": 1.5}], ids=str)
def test_details_that_cannot_be_read_are_left_out(details: dict[str, Any], of_choice: dict[str, Any]) -> None:
    good = {"id": "x", "created": 1, "model": "m", "system_fingerprint": "s"}
    said = {"content": "a"}
    body = {**good, **details, "choices": [{"message": said, "delta": said, "finish_reason": "stop", **of_choice}]}
    for padding in ("", "x" * 70_000):
        data = json.dumps({**body, "padding": padding}).encode()
        for reply in (read_plain(data)[0], read(b"data: " + data + b"\n\n")[0]):
            assert (reply.text, reply.first.logprobs, reply.first.stop_reason, reply.usage) == ("a", None, None, None)
            assert reply.model == ("" if {"id", "model"} & set(details) else "m")


def test_a_count_that_is_none_spoils_no_other() -> None:
    counts = {"prompt_tokens": 7, "completion_tokens": 1.5, "total_tokens": "many", "prompt_tokens_details": 4}
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": counts}
    usage = read_plain(json.dumps(body).encode())[0].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 0, 0)


def test_done_before_the_end_is_an_interruption() -> None:
    assembler = Assembler()
    with pytest.raises(StreamInterrupted, match="no finish_reason"):
        assembler.feed(content("a", finish=None) + b"data: [DONE]\n\n")
    assert assembler.reply().text == "a"


@pytest.mark.parametrize("reason", ["abort", "error", "network_error"])
def test_an_answer_that_the_server_broke_off_is_not_complete(reason: str) -> None:
    text = '<answer>do(action="Back")</answer>'
    whole = {"choices": [{"message": {"content": text}, "finish_reason": reason}]}
    for feed, data in (("feed", content(text, finish=reason)), ("feed_whole", json.dumps(whole).encode())):
        assembler = Assembler()
        with pytest.raises(StreamInterrupted, match=reason):
            getattr(assembler, feed)(data)
        assert (assembler.reply().text, assembler.reply().action, assembler.complete) == (
            'do(action="Back")',
            None,
            False,
        )


def test_what_follows_the_end() -> None:
    reply, events = read(content("a"), content("b"), b"data: [DONE]\n\n", content("c"), b"data: nonsense\n\n")
    assert (reply.text, len(events)) == ("a", 2)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (b'{"error":{"message":"EngineCore encountered an issue","code":500}}', ServerDied),
        (b'{"error":{"message":"no","code":404}}', NotFound),
        (b'{"object":"error","message":"no","code":404}', NotFound),
        (b"nonsense", InvalidReply),
        (b"[]", InvalidReply),
        (b'{"choices":[{"delta":{"content":5}}]}', InvalidReply),
    ],
    ids=str,
)
def test_errors_inside_a_stream(event: bytes, kind: type[AutoGLMError]) -> None:
    assembler = Assembler()
    with pytest.raises(kind) as caught:
        assembler.feed(content("partial", finish=None) + b"data: " + event + b"\n\n")
    assert list(assembler.events) == [TextDelta("partial")]
    assert type(caught.value) is kind
    assert assembler.reply().text == "partial"


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"choices":null}', b"\xff", b"<html>"])
def test_bodies_that_are_no_completion(body: bytes) -> None:
    with pytest.raises(InvalidReply, match="chat completion"):
        read_plain(body)


LOOP = ["I should close the window by tapping the button. "] * 100


def test_a_repetition_is_told_once() -> None:
    reply, events = read(content("<think>", *LOOP))
    assert sum(isinstance(event, RepetitionDetected) for event in events) == 1
    assert reply.finish_reason == "stop"


def test_a_repetition_ends_the_answer_if_asked() -> None:
    assembler = Assembler(stop_on_repetition=True)
    seen = 0
    for text in ["<think>", *LOOP]:
        assembler.feed(content(text, finish=None))
        seen += not assembler.stopped
    assert assembler.stopped
    assert seen < len(LOOP) / 2
    reply = assembler.reply()
    assert reply.finish_reason == "repetition"
    assert reply.action_error is not None
    assert reply.action_error.code == "repetition"


def test_a_refusal_is_kept() -> None:
    assert read(stream_of({"refusal": "I cannot"}, {"refusal": " do that"}))[0].first.refusal == "I cannot do that"


def test_a_reply_speaks_for_its_first_answer() -> None:
    reply = read(content("<think>why</think>hello"))[0]
    assert str(reply) == reply.text == "hello"
    assert reply.raw == "<think>why</think>hello"
    assert read(content('do(action="Back")'))[0].expect_action() == Back()
    assert Reply(choices=()).text == ""
    assert not Reply(choices=()).complete


@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_give_events_or_one_of_our_errors(noise: bytes, cut: int) -> None:
    body = body_of("plain.launch.stream")
    assembler = Assembler()
    try:
        for piece in (body[: cut * 7], noise, body[cut * 7 :]):
            assembler.feed(piece)
        assembler.close()
    except AutoGLMError:
        pass
    assert isinstance(assembler.reply(), Reply)
