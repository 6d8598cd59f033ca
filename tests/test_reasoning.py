"""Thinking and answer, told apart in every shape, at every cut."""

from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given, strategies as st

from autoglm_client.reasoning import Piece, ReasoningSplitter, Split, split_reasoning

CASES = {
    "complete": ("<think>why</think><answer>do(1)</answer>", Split("why", "do(1)", open=False)),
    "laid out": (
        "\n<think>\nwhy\n\nso\n</think>\n<answer>\ndo(1)\n</answer>\n",
        Split("why\n\nso", "do(1)", open=False),
    ),
    "the answer unclosed": ("<think>why</think>\n<answer>do(1)", Split("why", "do(1)", open=False)),
    "<ans>": ("<think>why</think><ans>do(1)</ans>", Split("why", "do(1)", open=False)),
    "no tags": ("why\ndo(1)\n", Split("", "why\ndo(1)\n", open=False)),
    "blanks around plain text": ("\n  hello \n", Split("", "\n  hello \n", open=False)),
    "blanks alone": (" \n", Split("", " \n", open=False)),
    "nothing": ("", Split("", "", open=False)),
    "no answer tags": ("<think>why</think>do(1)", Split("why", "do(1)", open=False)),
    "no thinking": ("<answer>do(1)</answer>", Split("", "do(1)", open=False)),
    "empty thinking": ("<think></think><answer>do(1)", Split("", "do(1)", open=False)),
    "thinking unclosed before the answer": ("<think>why <answer>do(1)", Split("why", "do(1)", open=False)),
    "thinking never ends": ("<think>why", Split("why", "", open=True)),
    "an orphan </think>": ("why\n</think>\n<answer>do(1)", Split("why", "do(1)", open=False)),
    "an orphan </think>, no answer tag": ("why</think>do(1)", Split("why", "do(1)", open=False)),
    "prose before <answer>": ("I can finish(), but <answer>do(1)", Split("I can finish(), but", "do(1)", open=False)),
    "prose, then tags": ("Sure.\n<think>why</think>do(1)", Split("why", "Sure.\ndo(1)", open=False)),
    "prose between": ("<think>why</think>so: <answer>do(1)", Split("why", "so:\ndo(1)", open=False)),
    "doubled": (
        "<think><think>why</think><answer></think><answer>do(1)</answer></answer>",
        Split("why", "do(1)", open=False),
    ),
    "</think> twice": ("<think>why</think></think>do(1)", Split("why", "do(1)", open=False)),
    "a second turn": (
        "<think>a</think><answer>do(1)</answer><think>b</think><answer>do(2)</answer>",
        Split("ab", "do(1)\ndo(2)", open=False),
    ),
    "box tokens": (
        "<|begin_of_box|>I see<|end_of_box|>\n<|begin_of_box|>do(1)<|end_of_box|>",
        Split("", "I see\ndo(1)", open=False),
    ),
    "control tokens": (
        "<think>why</think><answer>do(1)</answer><|user|><|endoftext|>",
        Split("why", "do(1)", open=False),
    ),
    "less-than signs": ("a < b <<think <thin <|use", Split("", "a < b <<think <thin <|use", open=False)),
    "an ideographic space": ("<think>\u3000why</think>\u3000do(1)", Split("\u3000why", "\u3000do(1)", open=False)),
}


def read(*cuts: str, reasoning: str = "") -> tuple[Split, list[Piece]]:
    splitter = ReasoningSplitter()
    pieces = splitter.feed(reasoning, reasoning=True) if reasoning else []
    for cut in cuts:
        pieces += splitter.feed(cut)
    pieces += splitter.close()
    return splitter.split(), pieces


def added_up(pieces: list[Piece]) -> tuple[str, str]:
    """What a user has who adds up the pieces."""
    reasoning = text = ""
    for kind, piece in pieces:
        if kind == "text":
            text += piece
        else:
            reasoning += piece
        if kind == "was_reasoning":
            text = ""
    return reasoning, text


@pytest.mark.parametrize(("raw", "split"), CASES.values(), ids=CASES)
def test_shapes_at_every_cut(raw: str, split: Split) -> None:
    assert split_reasoning(raw) == split
    for cuts in [tuple(raw), *((raw[:cut], raw[cut:]) for cut in range(len(raw) + 1))]:
        found, pieces = read(*cuts)
        assert found == split
        assert added_up(pieces) == (split.reasoning, split.text)
        assert all(tag not in piece.text for piece in pieces for tag in ("<answer>", "</think>", "<|user|>"))


@pytest.mark.parametrize("name", [name for name, (raw, _) in CASES.items() if raw.lstrip().startswith("<think>w")])
def test_the_field_and_the_tags_say_the_same(name: str) -> None:
    raw, split = CASES[name]
    thinking, _, rest = raw.partition("</think>")
    assert read(rest, reasoning=thinking)[0] == split
    assert read(rest, reasoning=thinking.lstrip().removeprefix("<think>"))[0] == split


def test_an_answer_spelled_out_in_the_reasoning_field() -> None:
    splitter = ReasoningSplitter()
    for cut in "why</think>\n<answer>do(1)":
        splitter.feed(cut, reasoning=True)
    splitter.feed("</answer>")
    splitter.close()
    assert splitter.split() == Split("why", "do(1)", open=False)


def test_a_field_that_comes_back() -> None:
    splitter = ReasoningSplitter()
    for text, reasoning in [("a", True), ("b", False), ("c", True), (" <", True), ("d", False)]:
        splitter.feed(text, reasoning=reasoning)
    splitter.close()
    assert splitter.split() == Split("ac <", "b\nd", open=False)


@given(
    st.lists(st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "<|user|>", "<", "a", " ", "\n", "<ans"]))
)
def test_any_order_of_tags_is_read_the_same_at_any_cut(parts: list[str]) -> None:
    raw = "".join(parts)
    whole, pieces = read(raw)
    assert added_up(pieces) == (whole.reasoning, whole.text)
    assert read(*parts)[0] == read(*raw)[0] == whole


@pytest.mark.parametrize("part", ["<", " ", "<think>", "</think>", "<answer>", "a</think>", "<|user|", "\n<ans"])
def test_hostile_input_costs_linear_time(part: str) -> None:
    def seconds(total: int) -> float:
        raw = part * (total // len(part))
        started = process_time()
        read(*raw)
        return process_time() - started

    small = min(seconds(20_000) for _ in range(3))
    assert min(seconds(80_000) for _ in range(2)) < small * 4 * 2.5


JSON = {
    "a tag in a string": ('{"a": "<think>x</think>"}', "", '{"a": "<think>x</think>"}'),
    "an array": ('["</answer>"]', "", '["</answer>"]'),
    "behind thinking": ('<think>why</think>\n{"a": "</think>"}', "why", '{"a": "</think>"}'),
    "blanks first": (' {"a": "<answer>"} ', "", ' {"a": "<answer>"} '),
    "in answer tags": ('<think>why</think><answer>{"a": 1}</answer>', "why", '{"a": 1}'),
    "not JSON after all": ("<think>why</think><answer>do(1)</answer>", "why", "do(1)"),
    "a brace in the thinking": ("<think>{why}</think>[1]", "{why}", "[1]"),
}


@pytest.mark.parametrize(("raw", "reasoning", "text"), JSON.values(), ids=JSON)
def test_json_keeps_what_looks_like_a_tag(raw: str, reasoning: str, text: str) -> None:
    for cut in range(len(raw) + 1):
        splitter = ReasoningSplitter(json=True)
        for part in (raw[:cut], raw[cut:]):
            splitter.feed(part)
        splitter.close()
        assert splitter.split() == Split(reasoning, text, open=False), cut
    by_letters = ReasoningSplitter(json=True)
    for letter in raw:
        by_letters.feed(letter)
    by_letters.close()
    assert by_letters.split() == Split(reasoning, text, open=False)
