"""Structural tags, which the scripted server follows as a model under a grammar does, and results in user messages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from server_stub import ScriptedServer

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
CITY = {"type": "object", "properties": {"city": {"enum": ["Beijing", "Paris"]}}, "required": ["city"]}
THINK = {"type": "tag", "begin": "<think>", "content": {"type": "any_text"}, "end": "</think>"}
THOUGHT = "<think>The answer has to follow the given format.</think>"


def tag(name: str, schema: object = POINT) -> dict[str, Any]:
    begin = f'<tool_call>{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '
    content = {"type": "json_schema", "json_schema": schema}
    return {"type": "tag", "begin": begin, "content": content, "end": "}</tool_call>"}


def sequence(*elements: dict[str, Any]) -> dict[str, Any]:
    return {"type": "sequence", "elements": [*elements]}


TAGS = [tag("move_to"), tag("weather", CITY), tag("天气", CITY)]
CALLS = {"type": "tags_with_separator", "separator": "", "at_least_one": True, "tags": TAGS}
TRIGGERED = {"type": "triggered_tags", "triggers": ["<tool_call>"], "tags": TAGS}
OPTIONAL = {"type": "optional", "content": THINK}
AUTO, REQUIRED = sequence(OPTIONAL, TRIGGERED), sequence(OPTIONAL, CALLS)
EITHER = sequence(OPTIONAL, {"type": "or", "elements": [{"type": "json_schema", "json_schema": POINT}, CALLS]})
MOVE, PARIS = '<tool_call>{"name": "move_to", "arguments": {"x": 7}}</tool_call>', '{"city": "Paris"}}</tool_call>'
WEATHER = '<tool_call>{"name": "weather", "arguments": ' + PARIS
SUNNY = '<tool_response>{"name": "weather", "content": "sunny \\u003c3"}</tool_response>'

Ask = Callable[..., httpx2.Response]


@pytest.fixture
def start() -> Iterator[Callable[..., Ask]]:
    servers = []

    def started(**options: Any) -> Ask:
        servers.append(server := ScriptedServer(**options).start())

        def ask(*said: str, path: str = "/v1/chat/completions", **body: Any) -> httpx2.Response:
            roles = ["user" if number % 2 == 0 else "assistant" for number in range(len(said))]
            messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
            url = server.base_url.removesuffix("/v1") + path
            return httpx2.post(url, json={"messages": messages, "skip_special_tokens": False, **body}, timeout=5)

        return ask

    yield started
    for server in servers:
        server.close()


@pytest.fixture
def ask(start: Callable[..., Ask]) -> Ask:
    return start()


def text_of(response: httpx2.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def tagged(form: object) -> dict[str, Any]:
    return {"response_format": {"type": "structural_tag", "format": form}}


@pytest.mark.parametrize("form", [AUTO, REQUIRED, EITHER])
@pytest.mark.parametrize(
    ("question", "calls"),
    [
        ("Move to 7", MOVE),
        ("Weather in Paris?", WEATHER),
        ("天气 Paris", '<tool_call>{"name": "天气", "arguments": ' + PARIS),
        ("Both: 7 and Paris", MOVE + WEATHER + WEATHER.replace("weather", "天气")),
        ("anything else: 7", MOVE),
    ],
)
def test_the_user_has_the_last_word(ask: Ask, form: dict[str, Any], question: str, calls: str) -> None:
    text = text_of(ask(question, **tagged(form)))
    thinking, _, rest = text.partition("</think>")
    assert thinking.startswith("<think>")
    assert rest == calls


def test_one_call_where_only_one_is_allowed(ask: Ask) -> None:
    for form in (CALLS, TRIGGERED):
        assert text_of(ask("Both: 7 and Paris", **tagged({**form, "stop_after_first": True}))) == MOVE


def test_the_same_tool_twice(ask: Ask) -> None:
    form = {**CALLS, "separator": "\n", "tags": TAGS[:1]}
    assert text_of(ask("Both 3 and 7", **tagged(form))) == MOVE.replace("7", "3") + "\n" + MOVE


def test_a_tool_has_the_last_word(ask: Ask) -> None:
    history = ("Weather in Paris? Or 5?", WEATHER, SUNNY)
    said = "<think>The tool has answered.</think>\n<answer>The tool says: sunny <3"
    assert text_of(ask(*history, **tagged(AUTO))) == text_of(ask(*history)) == said
    assert text_of(ask(*history, **tagged(EITHER))) == '<think>The tool has answered.</think>{"x": 5}'
    assert text_of(ask(*history, **tagged(REQUIRED))) == f"<think>The tool has answered.</think>{WEATHER}"
    assert text_of(ask(*history, **tagged({**CALLS, "at_least_one": False}))) == ""


def test_several_results_and_broken_ones(ask: Ask) -> None:
    results = SUNNY + "<tool_response>[</tool_response>" + "<tool_response>[]</tool_response>"
    assert text_of(ask("hi", MOVE, results)).endswith("The tool says: sunny <3\n[\n[]")


@pytest.mark.parametrize("given", [json.dumps({"type": "structural_tag", "format": REQUIRED})])
def test_the_other_field(ask: Ask, given: str) -> None:
    assert text_of(ask("Move to 7", structured_outputs={"structural_tag": given})) == THOUGHT + MOVE


def test_the_older_form(ask: Ask) -> None:
    structures = [{"begin": '<tool_call>{"name": "move_to", "arguments": ', "schema": POINT, "end": "}</tool_call>"}]
    older = {"type": "structural_tag", "structures": structures, "triggers": ["<tool_call>"]}
    assert text_of(ask("Move to 7", response_format=older)) == MOVE


def test_a_reasoning_parser_has_ended_the_thinking_before(start: Callable[..., Ask]) -> None:
    message = start(reasoning="reasoning")("Move to 7", **tagged(AUTO)).json()["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("The answer has to follow the given format.", MOVE)


def test_no_thinking(ask: Ask) -> None:
    options = {"chat_template_kwargs": {"enable_thinking": False}}
    assert text_of(ask("Move to 7", **tagged(AUTO), **options)) == MOVE


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"type": "any_text"}, "\n<answer>I have read your message: 7"),
        (sequence({"type": "const_string", "value": "a"}, {"type": "regex", "pattern": "[b-d]{2}"}), "abb"),
        ({"type": "plus", "content": {"type": "const_string", "value": "a"}}, "a"),
        ({"type": "star", "content": {"type": "const_string", "value": "a"}}, ""),
        ({**tag("x"), "begin": "<x>", "end": ["</x>", "</y>"]}, '<x>{"x": 7}</x>'),
        ({"type": "or", "elements": [{"type": "const_string", "value": it} for it in "ab"]}, "a"),
        ({**TRIGGERED, "tags": [{**tag("a"), "begin": "<tool_call>"}]}, '<tool_call>{"x": 7}}</tool_call>'),
        ({**CALLS, "tags": [{key: it for key, it in tag("a").items() if key != "type"}]}, MOVE.replace("move_to", "a")),
    ],
)
def test_other_forms(ask: Ask, form: dict[str, Any], text: str) -> None:
    assert text_of(ask("7", **tagged(form))) == text


MALFORMED: list[object] = [
    None,
    "x",
    {"type": "nope"},
    {"type": "tag", "begin": "a", "end": "b"},
    {**tag("x"), "begin": 3},
    {"type": "sequence", "elements": []},
    {"type": "or", "elements": []},
    {"type": "sequence", "elements": ["x"]},
    {**CALLS, "tags": []},
    {**CALLS, "tags": [THINK["content"]]},
    {**CALLS, "tags": ["x"]},
    {**CALLS, "separator": None},
    {**TRIGGERED, "triggers": []},
    {**TRIGGERED, "triggers": ["<other>"]},
    {**TRIGGERED, "triggers": ["<tool", "<tool_call>"]},
    {**TRIGGERED, "triggers": ["<tool_call>", "<other>"]},
    {**TRIGGERED, "tags": ["x"]},
    {"type": "regex", "pattern": "("},
    {"type": "json_schema", "json_schema": False},
    {"type": "json_schema", "json_schema": "x"},
    tag("x", {"$ref": "#/$defs/N"}),
]


@pytest.mark.parametrize("form", MALFORMED)
def test_what_is_malformed_is_refused(ask: Ask, form: object) -> None:
    error = ask("x", **tagged(form)).json()["error"]
    message = "Invalid response_format structural_tag specification. (parameter=response_format)"
    assert error == {"message": message, "type": "BadRequestError", "param": "response_format", "code": 400}


@pytest.mark.parametrize("given", [{"format": THINK}, "nope", "[]", "{}", '{"structures": [1]}'])
def test_what_is_malformed_in_the_other_field(ask: Ask, given: object) -> None:
    error = ask("x", structured_outputs={"structural_tag": given}).json()["error"]
    message = "Invalid structured_outputs structural_tag specification. (parameter=structured_outputs)"
    assert error == {"message": message, "type": "BadRequestError", "param": "structured_outputs", "code": 400}


def test_two_constraints(ask: Ask) -> None:
    response = ask("x", structured_outputs={"regex": "a"}, **tagged(AUTO))
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith("You can only use one kind of structured outputs constraint")


def test_tools_count_where_the_template_shows_them(start: Callable[..., Ask]) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "description": "Tells it. " * 9, "parameters": CITY}}]
    counts = {}
    for parser in (True, False):
        ask = start(tool_parser=parser)
        counts[parser] = [ask("Hi", path="/tokenize", **more).json()["count"] for more in ({}, {"tools": tools})]
        choice = {} if parser else {"tool_choice": "none"}
        assert ask("Hi", tools=tools, **choice).json()["usage"]["prompt_tokens"] == counts[parser][1]
    assert counts[False] == [counts[True][0]] * 2
    assert counts[True][1] > counts[True][0] + 20
