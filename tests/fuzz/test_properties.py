"""The promises of the core, for what hypothesis thinks up."""

from __future__ import annotations

import json

from hypothesis import example, given, strategies as st

from autoglm_client._assembler import Assembler
from autoglm_client.actions import Action

from ..test_actions import ACTIONS
from . import promises
from .effort import fuzzed
from .strategies import (
    ANSWERS,
    CODE,
    CUTS,
    FINISH,
    PICTURES,
    SIZES,
    STREAMS_OF_CHUNKS,
    STREAMS_OF_EVENTS,
    TEXTS,
    UNBROKEN,
)


@fuzzed(400)
@given(STREAMS_OF_EVENTS, SIZES)
def test_events_are_what_the_rules_say(stream: bytes, sizes: list[int]) -> None:
    promises.check_events(promises.cut(stream, *sizes))


@fuzzed(500)
@given(
    STREAMS_OF_CHUNKS | UNBROKEN | STREAMS_OF_EVENTS,
    SIZES,
    st.sampled_from([1, 1, 2]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([400, promises.MAX_BYTES, promises.MAX_BYTES]),
)
@example(b'data: {"error":{"code":"000400%s"}}\n\n' % (5000 * b"0"), [40], 1, False, False, promises.MAX_BYTES)
@example(b'data: {"choices":[{"delta":{"content":"finish()"}}]}\n\n', [40], 1, False, False, promises.MAX_BYTES)
def test_any_bytes_are_an_answer_or_one_of_our_errors(
    stream: bytes, sizes: list[int], n: int, as_json: bool, stop: bool, limit: int
) -> None:
    pieces = promises.cut(stream, *sizes)
    promises.check_answer(pieces, n=n, json=as_json, stop_on_repetition=stop, max_event_bytes=limit)


@fuzzed(150)
@given(UNBROKEN, UNBROKEN | STREAMS_OF_CHUNKS | STREAMS_OF_EVENTS, st.sampled_from([1, 2]))
def test_a_complete_answer_stays_as_it_is(stream: bytes, behind: bytes, n: int) -> None:
    ends = [{"choices": [{"index": index, "finish_reason": "stop"}]} for index in range(n)]
    end = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in ends)
    promises.check_the_end([stream, end], promises.cut(behind, 50), n=n)


@fuzzed(150)
@given(st.sampled_from(["stop", "x" * 400, "it goes round. " * 8]), st.integers(1, 300), st.integers(0, 2))
def test_an_answer_that_goes_round(text: str, times: int, choice: int) -> None:
    chunk = json.dumps({"choices": [{"index": choice, "delta": {"content": text}}]})
    promises.check_answer([f"data: {chunk}\n\n".encode()] * times, stop_on_repetition=True)


@fuzzed(200)
@given(CUTS, st.none() | FINISH)
def test_however_a_server_cuts_it_is_the_same_answer(cuts: promises.Cuts, finish: str | None) -> None:
    promises.check_cuts_of_the_server(cuts, finish)


@fuzzed(200)
@given(TEXTS, SIZES)
def test_chunks_of_any_size_are_the_same_answer(text: str, sizes: list[int]) -> None:
    promises.check_cuts_of_the_server([(False, piece) for piece in promises.cut_text(text, *sizes)], "stop")


@fuzzed(150)
@given(st.text(st.sampled_from('\ud83d\ude00\\uda😀"n/'), max_size=12), st.booleans())
def test_half_a_character_costs_only_itself(text: str, plain: bool) -> None:
    """What Python writes for it, and a reader of UTF-16 makes of it, with the mark for what cannot be read."""
    choice = {"message" if plain else "delta": {"content": text}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice]}).encode()
    assembler = Assembler()
    if plain:
        assembler.feed_whole(body)
    else:
        assembler.feed(b"data: " + body + b"\n\n")
    assert assembler.reply().raw == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@fuzzed(400)
@given(CUTS, st.booleans())
def test_thinking_and_answer_at_any_cut(cuts: promises.Cuts, as_json: bool) -> None:
    promises.check_split(cuts, json=as_json)


@fuzzed(300)
@given(ANSWERS, SIZES, st.booleans())
def test_thinking_and_answer_in_small_pieces(text: str, sizes: list[int], as_json: bool) -> None:
    promises.check_split([(False, piece) for piece in promises.cut_text(text, *sizes)], json=as_json)


@fuzzed(500)
@given(ANSWERS, st.none() | FINISH)
def test_any_text_is_an_action_or_an_action_error(text: str, finish: str | None) -> None:
    promises.check_action(text, finish)


@fuzzed(200)
@given(ACTIONS)
def test_every_action_is_its_text(action: Action) -> None:
    promises.check_one_action(action)


@fuzzed(100)
@given(st.sampled_from(['do(action="Type", text={})', "do(action={})", "finish(message={})", "{}", "do({})"]))
def test_code_is_never_run(call: str) -> None:
    for code in CODE:
        promises.check_action(call.format(code))


@fuzzed(400)
@given(ANSWERS, SIZES)
@example('do(action="Type", text="smile :") is nice")', [1])
def test_the_scanner_at_any_cut(text: str, sizes: list[int]) -> None:
    promises.check_scanner(text, *sizes)


@fuzzed(400)
@given(PICTURES)
def test_any_bytes_have_a_size_or_are_no_picture(data: bytes) -> None:
    promises.check_header(data)
