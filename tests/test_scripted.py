"""The scripted server, seen by clients that know nothing of it: its bodies, its rules, its refusals, its manners."""

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from io import BytesIO
from typing import Any

import httpx2
import openai
import pytest
from PIL import Image

from server_stub import Answer, RecordedRequest, ScriptedServer, ToolCall

MODEL = "autoglm-phone-9b"
COMPLETION_KEYS = [
    "id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage", "prompt_logprobs",
    "prompt_token_ids", "prompt_text", "kv_transfer_params", "ec_transfer_params", "metrics",
]  # fmt: skip
CHOICE_KEYS = ["index", "message", "logprobs", "finish_reason", "stop_reason", "token_ids", "routed_experts"]
MESSAGE_KEYS = ["role", "content", "refusal", "annotations", "audio", "function_call", "reasoning"]
USAGE_KEYS = [
    "prompt_tokens", "total_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details",
]  # fmt: skip
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Beijing", "Paris"]}},
            "required": ["city"],
        },
    },
}
MAGIC = {
    "type": "function",
    "function": {
        "name": "magic_function",
        "parameters": {"type": "object", "properties": {"input": {"type": "integer"}}, "required": ["input"]},
    },
}


class Talker:
    """Posts requests to one server with httpx2 and reads what comes back."""

    def __init__(self, server: ScriptedServer, http: httpx2.Client) -> None:
        self.server, self.http = server, http
        self.root = server.base_url.removesuffix("/v1")

    def post(self, question: object = "Open Settings", **options: Any) -> httpx2.Response:
        content = [{"role": "user", "content": question}]
        body = {"model": MODEL, "messages": content, **options}
        return self.http.post(f"{self.server.base_url}/chat/completions", json=body)

    def body(self, question: object = "Open Settings", **options: Any) -> dict[str, Any]:
        response = self.post(question, **options)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def message(self, question: object = "Open Settings", **options: Any) -> dict[str, Any]:
        return dict(self.body(question, **options)["choices"][0]["message"])

    def text(self, question: object = "Open Settings", **options: Any) -> str:
        return str(self.message(question, skip_special_tokens=False, **options)["content"])

    def error(self, question: object = "x", **options: Any) -> dict[str, Any]:
        response = self.post(question, **options)
        error = dict(response.json()["error"])
        assert response.status_code == error["code"]
        return error

    def chunks(self, question: object = "Open Settings", **options: Any) -> list[dict[str, Any]]:
        response = self.post(question, stream=True, **options)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        *events, done, end = response.text.split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]


Start = Callable[..., Talker]


@pytest.fixture(scope="module")
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=5) as client:
        yield client


@pytest.fixture
def start(http: httpx2.Client) -> Iterator[Start]:
    servers = []

    def started(**options: Any) -> Talker:
        servers.append(ScriptedServer(**options).start())
        return Talker(servers[-1], http)

    yield started
    for server in servers:
        server.close()


@pytest.fixture
def plain(start: Start) -> Talker:
    return start()


@cache
def picture(width: int = 1080, height: int = 2400, form: str = "PNG") -> dict[str, Any]:
    file = BytesIO()
    Image.new("RGB", (width, height), "white").save(file, form)
    return part(file.getvalue(), f"image/{form.lower()}")


def part(data: bytes, mime: str = "image/png") -> dict[str, Any]:
    return url_part(f"data:{mime};base64,{base64.b64encode(data).decode()}")


def url_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


class TestBodies:
    def test_a_completion_has_the_keys_of_the_recorded_ones(self, plain: Talker) -> None:
        body = plain.body()
        assert list(body) == COMPLETION_KEYS
        assert list(body["choices"][0]) == CHOICE_KEYS
        assert list(body["choices"][0]["message"]) == MESSAGE_KEYS
        assert list(body["usage"]) == USAGE_KEYS
        assert body["usage"]["prompt_tokens_details"] is body["usage"]["completion_tokens_details"] is None
        assert re.fullmatch("chatcmpl-[0-9a-f]{16}", body["id"])
        assert body["choices"][0]["finish_reason"] == "stop"
        assert body["choices"][0]["stop_reason"] == 151348  # the model's </answer>

    def test_the_chunks_have_the_keys_of_the_recorded_ones(self, plain: Talker) -> None:
        first, *rest, finish, usage = plain.chunks(stream_options={"include_usage": True})
        head = ["id", "object", "created", "model", "choices"]
        assert list(first) == [*head, "prompt_token_ids", "prompt_text"]
        assert first["choices"] == [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        ]
        for chunk in rest:
            assert list(chunk) == head
            assert list(chunk["choices"][0]) == ["index", "delta", "logprobs", "finish_reason", "token_ids"]
            assert list(chunk["choices"][0]["delta"]) == ["content"]
        assert finish["choices"] == [
            {
                "index": 0,
                "delta": {"content": ""},
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": 151348,
                "token_ids": None,
            }
        ]
        assert list(usage) == [*head, "usage", "system_fingerprint"]
        assert usage["choices"] == []
        assert list(usage["usage"]) == USAGE_KEYS[:3]

    def test_usage_in_every_chunk(self, plain: Talker) -> None:
        options = {"include_usage": True, "continuous_usage_stats": True}
        chunks = plain.chunks(stream_options=options)
        assert [it["usage"]["completion_tokens"] for it in chunks] == [*range(len(chunks) - 1), len(chunks) - 2]
        assert chunks[0]["usage"] | {"prompt_tokens": 0, "total_tokens": 0} == dict.fromkeys(USAGE_KEYS[:3], 0) | {
            "completion_tokens_details": None
        }
        for usage in (it["usage"] for it in chunks):
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    def test_no_usage_chunk_unless_asked(self, plain: Talker) -> None:
        assert all(it["choices"] and "usage" not in it for it in plain.chunks())

    @pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
    def test_a_parser_puts_the_thinking_into_a_field(self, start: Start, field: Any) -> None:
        parser = start(reasoning=field)
        body = parser.body(skip_special_tokens=True)
        message = body["choices"][0]["message"]
        assert list(message) == [*MESSAGE_KEYS[:-1], field]
        assert (message[field], message["content"]) == (
            "I need the app Settings.",
            '\ndo(action="Launch", app="Settings")',
        )
        assert body["usage"]["prompt_tokens_details"] == {
            "cached_tokens": 0,
            "created_cache_tokens": 0,
            "multimodal_tokens": None,
        }
        assert body["usage"]["completion_tokens_details"] == {"reasoning_tokens": 6}
        assert parser.text().startswith("\n<answer>do(")

    def test_a_parser_streams_thinking_then_text(self, start: Start) -> None:
        chunks = start(reasoning="reasoning").chunks(stream_options={"include_usage": True})
        keys = [next(iter(it["choices"][0]["delta"]), "") for it in chunks[1:-1]]
        assert keys == sorted(keys, reverse=True)
        assert set(keys) == {"reasoning", "content", ""}
        assert chunks[-2]["choices"][0]["delta"] == {}
        assert chunks[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 0, "created_cache_tokens": 0}
        assert chunks[-1]["usage"]["completion_tokens_details"] == {"reasoning_tokens": 6}

    def test_thinking_that_never_ended_has_no_content(self, start: Start) -> None:
        message = start(reasoning="reasoning").message(max_tokens=4)
        assert (message["content"], message["reasoning"]) == (None, "I need the")

    def test_reasoning_not_included(self, start: Start, plain: Talker) -> None:
        parser = start(reasoning="reasoning")
        assert parser.message(include_reasoning=False)["reasoning"] is None
        deltas = [it["choices"][0]["delta"] for it in parser.chunks(include_reasoning=False)]
        assert deltas[1] == {"content": "\n", "reasoning": None}
        assert "<think>" in plain.text(include_reasoning=False)

    @pytest.mark.parametrize(
        ("form", "shown", "expected"),
        [
            ("tags", False, '<think>I go back.</think>\n<answer>do(action="Back")'),
            ("tags", True, 'I go back.\ndo(action="Back")'),
            ("stripped", False, 'I go back.\ndo(action="Back")'),
        ],
    )
    def test_the_tags_are_special_tokens(self, start: Start, form: Any, shown: bool, expected: str) -> None:
        talker = start(reasoning=form)
        assert talker.message("Go back", skip_special_tokens=shown)["content"] == expected

    def test_no_thinking(self, plain: Talker) -> None:
        text = plain.text("Go back", chat_template_kwargs={"enable_thinking": False})
        assert text == '<answer>do(action="Back")'

    def test_logprobs(self, plain: Talker) -> None:
        body = plain.body("Go back", logprobs=True, top_logprobs=2, max_tokens=4)
        entries = body["choices"][0]["logprobs"]["content"]
        assert [it["token"] for it in entries] == ["<think>", "I", " go", " back"]
        assert list(entries[0]) == ["token", "logprob", "bytes", "top_logprobs"]
        assert entries[1]["bytes"] == [73]
        assert [len(it["top_logprobs"]) for it in entries] == [2] * 4
        streamed = plain.chunks("Go back", logprobs=True, top_logprobs=2, max_tokens=4)[1:]
        assert [it["choices"][0]["logprobs"]["content"] for it in streamed] == [[it] for it in entries]

    def test_several_choices(self, plain: Talker) -> None:
        body = plain.body(n=2)
        assert [it["index"] for it in body["choices"]] == [0, 1]
        assert body["usage"]["completion_tokens"] == 2 * plain.body()["usage"]["completion_tokens"]
        chunks = plain.chunks(n=2)
        assert [it["choices"][0]["index"] for it in chunks] == [0, 1] * (len(chunks) // 2)

    @pytest.mark.parametrize("form", ["tags", "stripped", "reasoning", "reasoning_content"])
    @pytest.mark.parametrize(
        ("question", "options"),
        [
            ("Open Settings", {}),
            ("你是谁?", {"skip_special_tokens": False}),
            ("think long", {"max_tokens": 100}),
            ("loop", {"max_tokens": 50}),
            ("Go back", {"stop": ["Back", "back."]}),
            ("magic_function of 3", {"tools": [MAGIC], "tool_choice": "required"}),
            ("x", {"response_format": {"type": "json_object"}}),
        ],
    )
    def test_streamed_and_plain_are_the_same(
        self, start: Start, form: Any, question: str, options: dict[str, Any]
    ) -> None:
        talker = start(reasoning=form)
        body = talker.body(question, **options)
        *chunks, usage = talker.chunks(question, **options, stream_options={"include_usage": True})
        deltas = [it["choices"][0]["delta"] for it in chunks]
        field = "reasoning_content" if form == "reasoning_content" else "reasoning"
        message = body["choices"][0]["message"]
        assert "".join(it.get("content") or "" for it in deltas) == (message["content"] or "")
        assert "".join(it.get(field) or "" for it in deltas) == (message[field] or "")
        calls = [it["function"] for delta in deltas for it in delta.get("tool_calls", [])]
        assert "".join(it.get("name", "") for it in calls) == "".join(
            it["function"]["name"] for it in message.get("tool_calls", [])
        )
        assert "".join(it.get("arguments", "") for it in calls) == "".join(
            it["function"]["arguments"] for it in message.get("tool_calls", [])
        )
        for key in ("finish_reason", "stop_reason"):
            assert chunks[-1]["choices"][0][key] == body["choices"][0][key]
        assert usage["usage"]["completion_tokens"] == body["usage"]["completion_tokens"]


class TestRules:
    @pytest.mark.parametrize(
        ("question", "answer"),
        [
            ("Open WeChat and say hi", 'do(action="Launch", app="WeChat")'),
            ("请打开“微信”。", 'do(action="Launch", app="微信")'),
            ("launch the Settings app", 'do(action="Launch", app="Settings")'),
            ('Open Maps\n\n{"current_app": "Home"}', 'do(action="Launch", app="Maps")'),
            ('Type "a \\"b\\" c"', r'do(action="Type", text="a \\\"b\\\" c")'),
            ("输入 你好，世界", 'do(action="Type", text="你好，世界")'),
            ("swipe up", 'do(action="Swipe", start=[500,800], end=[500,200])'),
            ("向左滑动", 'do(action="Swipe", start=[800,500], end=[200,500])'),
            ("wait 5 seconds", 'do(action="Wait", duration="5 seconds")'),
            ("Go back", 'do(action="Back")'),
            ("回到桌面", 'do(action="Home")'),
            ("We are done", 'finish(message="The task is done.")'),
            ("请登录", 'do(action="Take_over", message="请您登录。")'),
            ("hello", "I have read your message: hello"),
        ],
    )
    def test_the_answer_to_a_task(self, plain: Talker, question: str, answer: str) -> None:
        text = plain.text(question)
        assert text.startswith("<think>")
        assert text.split("</think>\n<answer>")[1] == answer

    def test_it_says_what_it_is(self, plain: Talker) -> None:
        assert "scripted server that stands in for AutoGLM-Phone-9B" in plain.text("Who are you?")
        assert "脚本服务器" in plain.text("你是谁？")

    @pytest.mark.parametrize(
        ("form", "size", "point"),
        [
            ("PNG", (1080, 2400), "93,83"),
            ("PNG", (60, 90), "500,500"),
            ("JPEG", (720, 1600), "139,125"),
            ("WEBP", (360, 800), "278,250"),
        ],
    )
    def test_a_tap_is_100_pixels_from_the_left_and_200_from_the_top(
        self, plain: Talker, size: tuple[int, int], point: str, form: str
    ) -> None:
        for task in ("Tap the button", "点击按钮", "What now?"):
            assert plain.text([picture(*size, form=form), words(task)]).endswith(f'do(action="Tap", element=[{point}])')
        assert 'action="Long Press"' in plain.text([picture(*size), words("long press it")])

    @pytest.mark.parametrize("lossless", [True, False])
    def test_other_webp_headers(self, plain: Talker, lossless: bool) -> None:
        file = BytesIO()
        Image.new("RGBA", (400, 800), (1, 2, 3, 4)).save(file, "WEBP", lossless=lossless)
        assert "[250,250]" in plain.text([part(file.getvalue()), words("tap")])

    def test_the_step_after_an_action_finishes(self, plain: Talker) -> None:
        history = [
            {"role": "user", "content": [picture(), words('Open Settings\n\n{"current_app": "微信"}')]},
            {"role": "assistant", "content": '<think>x</think><answer>do(action="Launch", app="Settings")</answer>'},
            {"role": "user", "content": [picture(), words('** Screen Info **\n\n{"current_app": "设置"}')]},
        ]
        assert plain.text(messages=history).endswith('<answer>finish(message="The task is done.")')

    def test_without_a_picture_there_is_nothing_to_tap(self, plain: Talker) -> None:
        assert plain.text("Tap the home button").endswith('do(action="Home")')
        assert "element=" in plain.text([picture(), words("Tap the home button")])

    def test_the_last_picture_counts(self, plain: Talker) -> None:
        assert "[250,250]" in plain.text([picture(), picture(400, 800), words("tap")])

    def test_long_thinking_and_a_loop(self, plain: Talker) -> None:
        assert plain.body("think long")["usage"]["completion_tokens"] > 300
        body = plain.body("loop please", max_tokens=500)
        assert body["choices"][0]["finish_reason"] == "length"
        assert body["choices"][0]["message"]["content"].count("interact with the phone") > 30
        assert body["usage"]["completion_tokens"] == 500

    def test_max_tokens_is_the_number_of_tokens(self, plain: Talker) -> None:
        whole = plain.body()
        count = whole["usage"]["completion_tokens"]
        for limit in range(1, count):
            body = plain.body(max_tokens=limit)
            assert body["choices"][0]["finish_reason"] == "length"
            assert body["choices"][0]["stop_reason"] is None
            assert body["usage"]["completion_tokens"] == limit
            assert whole["choices"][0]["message"]["content"].startswith(body["choices"][0]["message"]["content"])
        assert plain.body(max_completion_tokens=count)["choices"] == whole["choices"]

    def test_stop_strings(self, plain: Talker) -> None:
        choice = plain.body(stop=["app"], skip_special_tokens=False)["choices"][0]
        assert choice["message"]["content"] == "<think>I need the "
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "app")
        assert plain.text(stop="ed th", include_stop_str_in_output=True) == "<think>I need th"

    def test_continuing_the_last_message(self, plain: Talker) -> None:
        whole = plain.text()
        for at in (1, 12, len(whole) - 3):
            messages = [{"role": "user", "content": "Open Settings"}, {"role": "assistant", "content": whole[:at]}]
            options = {"continue_final_message": True, "add_generation_prompt": False, "messages": messages}
            assert whole[:at] + plain.text(**options) == whole

    def test_continuing_inside_the_thinking(self, start: Start) -> None:
        messages = [{"role": "user", "content": "Go back"}, {"role": "assistant", "content": "<think>I go"}]
        message = start(reasoning="reasoning").message(
            messages=messages, continue_final_message=True, add_generation_prompt=False
        )
        assert (message["reasoning"], message["content"]) == (" back.", '\ndo(action="Back")')

    def test_a_rule_of_ones_own(self, start: Start) -> None:
        def rule(request: dict[str, Any]) -> str | Answer | None:
            question = request["messages"][-1]["content"]
            own: dict[str, str | Answer] = {
                "text": "<think>t</think>a</answer>",
                "call": Answer("hm", (ToolCall("f", '{"x": 1}'),)),
            }
            return own.get(question)

        talker = start(answer=rule)
        assert talker.text("text") == "<think>t</think>a</answer>"
        message = talker.message("call")
        assert message["content"] == "hm"
        assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
        assert talker.text("Go back").endswith('do(action="Back")')


class TestTools:
    def call(self, message: dict[str, Any]) -> list[tuple[str, Any]]:
        for it in message["tool_calls"]:
            assert list(it) == ["id", "type", "function"]
            assert re.fullmatch("chatcmpl-tool-[0-9a-f]{16}", it["id"])
        return [(it["function"]["name"], json.loads(it["function"]["arguments"])) for it in message["tool_calls"]]

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ("auto", ("magic_function", {"input": 3})),
            ("required", ("magic_function", {"input": 3})),
            ({"type": "function", "function": {"name": "get_weather"}}, ("get_weather", {"city": "Beijing"})),
        ],
    )
    def test_a_call(self, plain: Talker, choice: object, expected: tuple[str, Any]) -> None:
        body = plain.body("What is magic function of 1 and 3?", tools=[WEATHER, MAGIC], tool_choice=choice)
        message = body["choices"][0]["message"]
        assert message["content"] is None
        assert list(message) == [*MESSAGE_KEYS[:-1], "tool_calls", "reasoning"]
        assert self.call(message) == [expected]
        assert body["choices"][0]["finish_reason"] == ("stop" if isinstance(choice, dict) else "tool_calls")

    def test_none_and_the_answer_after_a_tool(self, plain: Talker) -> None:
        assert "tool_calls" not in plain.message(tools=[WEATHER], tool_choice="none")
        history = [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function"}]},
            {"role": "tool", "tool_call_id": "1", "content": "sunny"},
        ]
        assert plain.message(messages=history, tools=[WEATHER])["content"].endswith("The tool says: sunny")

    def test_several_calls(self, plain: Talker) -> None:
        both = plain.message("Do both in Paris", tools=[WEATHER, MAGIC])
        assert self.call(both) == [("get_weather", {"city": "Paris"}), ("magic_function", {"input": 1})]
        twice = plain.message("Both 3 and 5", tools=[MAGIC])
        assert self.call(twice) == [("magic_function", {"input": 3}), ("magic_function", {"input": 5})]
        assert len(self.call(plain.message("Do both", tools=[WEATHER, MAGIC], parallel_tool_calls=False))) == 1

    def test_quoted_words_and_no_arguments(self, plain: Talker) -> None:
        parameters = {"type": "object", "properties": {"name": {"type": "string"}}}
        tool = {"type": "function", "function": {"name": "greet", "parameters": parameters}}
        assert self.call(plain.message("Greet '你好啊集团'", tools=[tool])) == [("greet", {"name": "你好啊集团"})]
        bare = {"type": "function", "function": {"name": "ping"}}
        assert self.call(plain.message("go", tools=[bare])) == [("ping", {})]

    def test_the_stream_of_a_call(self, start: Start) -> None:
        chunks = start(reasoning="reasoning").chunks("magic 3", tools=[MAGIC])
        deltas = [it["choices"][0]["delta"] for it in chunks]
        first = next(number for number, it in enumerate(deltas) if "tool_calls" in it)
        assert all("reasoning" in it for it in deltas[1:first])
        assert deltas[first]["content"] is None
        assert list(deltas[first]["tool_calls"][0]) == ["id", "type", "index", "function"]
        assert deltas[first]["tool_calls"][0]["function"] == {"name": "magic_function"}
        assert deltas[first + 1] == {"content": None, "tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}
        assert (deltas[-1], chunks[-1]["choices"][0]["finish_reason"]) == ({}, "tool_calls")


SCHEMA = {
    "type": "object",
    "properties": {
        "app": {"enum": ["Settings", "WeChat"]},
        "ok": {"type": "boolean"},
        "point": {"$ref": "#/$defs/Point"},
        "steps": {"type": "array", "items": {"type": "string", "minLength": 8}, "minItems": 2},
        "note": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 3}]},
        "kind": {"const": "phone"},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d{3}$"},
    },
    "required": ["app", "ok", "point", "steps", "note", "kind", "code"],
    "$defs": {
        "Point": {"type": "object", "properties": {"x": {"type": "integer", "minimum": 5, "maximum": 9}}},
    },
}


class TestConstraints:
    @pytest.mark.parametrize("form", ["tags", "reasoning"])
    @pytest.mark.parametrize(
        "options",
        [
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
            {"structured_outputs": {"json": SCHEMA}},
            {"structured_outputs": {"json": json.dumps(SCHEMA)}},
        ],
    )
    def test_a_schema_is_filled(self, start: Start, form: Any, options: dict[str, Any]) -> None:
        message = start(reasoning=form).message("Open WeChat at 700", **options)
        value = json.loads(message["content"])
        assert value == {
            "app": "WeChat",
            "ok": True,
            "point": {"x": 9},
            "steps": ["stepsxxx", "stepsxxx"],
            "note": "not",
            "kind": "phone",
            "code": "AA-555",
        }
        assert bool(message["reasoning"]) == (form == "reasoning")

    def test_a_schema_that_contains_itself(self, plain: Talker) -> None:
        node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}}}
        schema = {"$ref": "#/$defs/Node", "$defs": {"Node": node}}
        assert json.loads(plain.message(structured_outputs={"json": schema})["content"])["next"]

    @pytest.mark.parametrize("keys", ["a `setup` and a `punchline` key", "'setup' and \"punchline\" keys"])
    def test_json_mode(self, plain: Talker, keys: str) -> None:
        question = f'Tell me a "joke" as JSON. Return it with {keys}.'
        message = plain.message(question, response_format={"type": "json_object"})
        assert set(json.loads(message["content"])) == {"setup", "punchline"}

    @pytest.mark.parametrize(
        "pattern",
        [
            r'<think>[a-z]{3,9}</think><answer>do\(action="Tap", element=\[[1-9][0-9]{2},[1-9][0-9]{2}\]\)</answer>',
            r"(?:yes|no)+ \w+\.?",
            r"[^a-z]\s\d{2,}x*",
            r"[\]\d]{2}[^\w\s][一-龥]?",
        ],
    )
    def test_a_pattern_is_matched(self, plain: Talker, pattern: str) -> None:
        assert re.fullmatch(pattern, plain.text(structured_outputs={"regex": pattern}))

    def test_a_choice_is_made(self, plain: Talker) -> None:
        choice = {"choice": ["yes", "no"]}
        assert plain.message("x", structured_outputs=choice)["content"] == "yes"
        assert plain.message("say no", structured_outputs=choice)["content"] == "no"

    @pytest.mark.parametrize("constraint", [{"regex": "(a"}, {"regex": "(?=a)b"}, {"grammar": "root ::= 'a'"}])
    def test_what_cannot_be_followed_is_refused(self, plain: Talker, constraint: dict[str, str]) -> None:
        assert plain.error(structured_outputs=constraint)["message"].startswith("Failed to transform")


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message", "param"),
        [
            (
                {"temperature": -1},
                "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)",
                "temperature",
            ),
            ({"max_tokens": 0}, "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", "max_tokens"),
            (
                {"max_tokens": 30000},
                (
                    "max_tokens=30000 cannot be greater than max_model_len=25480. Please request fewer output tokens. "
                    "(parameter=max_tokens, value=30000)"
                ),
                "max_tokens",
            ),
            (
                {"messages": []},
                "Cannot apply chat template to an empty conversation. Provide at least one message.",
                None,
            ),
            ({"n": 0}, "n must be at least 1, got 0.", None),
            ({"n": 2, "temperature": 0}, "n must be 1 when using greedy sampling, got 2.", None),
            (
                {"tools": []},
                (
                    "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely. "
                    "(parameter=tools)"
                ),
                "tools",
            ),
            (
                {"tools": [WEATHER], "tool_choice": "any"},
                (
                    'Invalid value for `tool_choice`: any! Only named tools, "none", "auto" or "required" are '
                    "supported. (parameter=tool_choice)"
                ),
                "tool_choice",
            ),
            (
                {"tool_choice": "auto"},
                "When using `tool_choice`, `tools` must be set. (parameter=tool_choice)",
                "tool_choice",
            ),
            (
                {"stream_options": {"include_usage": True}},
                "Stream options can only be defined when `stream=True`. (parameter=stream_options)",
                "stream_options",
            ),
            (
                {"continue_final_message": True, "add_generation_prompt": True},
                "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
                None,
            ),
            ({"stop": ""}, "stop cannot contain an empty string.", None),
        ],
    )
    def test_options(self, plain: Talker, options: dict[str, Any], message: str, param: str | None) -> None:
        expected = {"message": message, "type": "BadRequestError", "param": param, "code": 400}
        assert plain.error(**options) == expected
        if "stream_options" not in options:
            assert plain.error(**options, stream=True) == expected

    def test_continuing_needs_no_new_turn(self, plain: Talker) -> None:
        assert "are not compatible" in plain.error(continue_final_message=True)["message"]

    @pytest.mark.parametrize(
        ("given", "message", "param", "status"),
        [
            (part(b"\0\0\0"), "Failed to load image: cannot identify image file <_io.BytesIO object>", None, 400),
            (
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                "At most 0 audio(s) may be provided in one prompt. (parameter=audio)",
                "audio",
                400,
            ),
            (
                {"type": "file", "file": {}},
                (
                    "Unsupported chat content part type: 'file'. Supported types: audio_embeds, audio_url, "
                    "image_embeds, image_pil, image_url, input_audio, input_image, input_text, output_text, "
                    "prompt_embeds, refusal, text, thinking, tool_reference, video_embeds, video_url. "
                    "(parameter=type, value=file)"
                ),
                "type",
                400,
            ),
            (
                url_part("http://example.com/a.png"),
                "The URL must be from one of the allowed domains: ['none.invalid']. Input URL domain: example.com",
                None,
                400,
            ),
            (
                url_part("file:///etc/passwd"),
                "Cannot load local files without `--allowed-local-media-path`.",
                None,
                500,
            ),
            (url_part("/etc/passwd"), "The URL must be either a HTTP, data or file URL.", None, 400),
        ],
    )
    def test_parts(self, plain: Talker, given: object, message: str, param: str | None, status: int) -> None:
        kind = {400: "BadRequestError", 500: "InternalServerError"}[status]
        expected = {"message": message, "type": kind, "param": param, "code": status}
        assert plain.error([given, words("x")]) == expected

    def test_a_picture_of_an_allowed_domain_is_taken_for_granted(self, start: Start) -> None:
        talker = start(allowed_media_domains=["example.com"])
        by_url, sent = url_part("https://example.com/a.png"), picture(1080, 2400)
        assert talker.body([by_url])["usage"] == talker.body([sent])["usage"]
        refused = talker.error([url_part("https://example.org/a.png")])["message"]
        assert refused.endswith("allowed domains: ['example.com']. Input URL domain: example.org")

    def test_too_many_pictures(self, plain: Talker) -> None:
        assert plain.post([picture(56, 56)] * 10).status_code == 200
        message = "At most 10 image(s) may be provided in one prompt. (parameter=image)"
        assert plain.error([picture(56, 56)] * 11)["message"] == message

    def test_an_unknown_model(self, start: Start) -> None:
        talker = start(aliases=["autoglm-phone"])
        assert talker.error(model="nope") == {
            "message": "The model `nope` does not exist. Valid aliases: autoglm-phone-9b, autoglm-phone.",
            "type": "NotFoundError",
            "param": "model",
            "code": 404,
        }
        assert talker.body(model="autoglm-phone")["model"] == MODEL

    def test_too_long_a_prompt(self, start: Start) -> None:
        talker = start(max_model_len=4096)
        assert talker.error("x " * 5000, max_tokens=96) == {
            "message": "This model's maximum context length is 4096 tokens. However, your prompt contains at least "
            "4097 input tokens, which exceeds this limit even without any output tokens. Please reduce the length of "
            "the input prompt. (parameter=input_tokens, value=4097)",
            "type": "BadRequestError",
            "param": "input_tokens",
            "code": 400,
        }
        assert "longer than the maximum model length of 4096" in talker.error([picture(), picture()])["message"]
        room = 4096 - talker.body("x " * 2000)["usage"]["prompt_tokens"]
        assert talker.body("x " * 2000 + "loop")["usage"]["total_tokens"] <= 4096
        assert room > 0

    @pytest.mark.parametrize(
        ("choice", "said"), [("auto", '"auto" tool choice'), ("required", 'tool_choice="required"')]
    )
    def test_no_tool_parser(self, start: Start, choice: str, said: str) -> None:
        talker = start(tool_parser=False)
        needs = {
            "auto": "requires --enable-auto-tool-choice and --tool-call-parser to be set",
            "required": "requires --tool-call-parser to be set",
        }
        assert talker.error(tools=[WEATHER], tool_choice=choice)["message"] == f"{said} {needs[choice]}"
        assert talker.post(tools=[WEATHER], tool_choice="none").status_code == 200

    def test_a_body_of_the_wrong_form(self, plain: Talker) -> None:
        url = f"{plain.server.base_url}/chat/completions"
        headers = {"content-type": "application/json"}
        broken = plain.http.post(url, content=b'{"a": nope}', headers=headers)
        assert broken.status_code == 400
        assert broken.json()["error"] == {
            "message": "1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.6', 'msg': 'JSON decode error', "
            "'input': '<dict of 0 items>', 'ctx': {'error': 'Expecting value'}}",
            "type": "Bad Request",
            "param": "body.6",
            "code": 400,
        }
        missing = plain.http.post(url, json={"model": MODEL}).json()["error"]
        assert (missing["param"], missing["type"]) == ("body.messages", "Bad Request")
        for content in (b"[]", b"", b"\xff"):
            assert plain.http.post(url, content=content, headers=headers).status_code == 400
        assert plain.http.post(url, content=b"{}", headers={"content-type": "text/plain"}).status_code == 400
        assert plain.error(temperature="hot")["param"] == "body.temperature"
        assert plain.error(messages=["x"])["param"] == "body.messages.0.role"

    def test_unknown_fields_are_ignored(self, plain: Talker) -> None:
        assert plain.text(enable_thinking=True, return_reasoning=True, frobnicate={"a": 1}) == plain.text()

    def test_the_key(self, start: Start) -> None:
        talker = start(api_key="secret")
        for key in (None, "Bearer wrong", "Basic secret"):
            headers = {"authorization": key} if key else {}
            response = talker.http.get(f"{talker.server.base_url}/models", headers=headers)
            assert (response.status_code, response.json()) == (401, {"error": "Unauthorized"})
        good = {"authorization": "Bearer secret"}
        assert talker.http.get(f"{talker.server.base_url}/models", headers=good).status_code == 200
        assert talker.http.get(f"{talker.root}/health").status_code == 200

    def test_ordered_failures(self, plain: Talker) -> None:
        plain.server.fail(429, times=2, retry_after="1")
        for _ in range(2):
            response = plain.post()
            assert (response.status_code, response.headers["retry-after"]) == (429, "1")
            assert response.json()["error"]["code"] == 429
        assert plain.post().status_code == 200


class TestRoutes:
    def test_health_version_and_models(self, plain: Talker) -> None:
        for route in ("health", "ping"):
            response = plain.http.get(f"{plain.root}/{route}")
            assert (response.status_code, response.content) == (200, b"")
            assert response.headers["content-length"] == "0"
        assert plain.http.get(f"{plain.root}/version").json() == {"version": "0.32.0"}
        body = plain.http.get(f"{plain.server.base_url}/models").json()
        assert list(body) == ["object", "data"]
        assert [(it["id"], it["max_model_len"]) for it in body["data"]] == [(MODEL, 25480)]

    def test_unknown_routes_and_methods(self, plain: Talker) -> None:
        for path in ("/", "/v1", "/v1/completions", "/metrics/"):
            response = plain.http.get(plain.root + path)
            assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
        wrong = plain.http.get(f"{plain.server.base_url}/chat/completions")
        assert (wrong.status_code, wrong.json()) == (405, {"detail": "Method Not Allowed"})
        assert wrong.headers["allow"] == "POST"
        assert plain.http.delete(f"{plain.root}/health").status_code == 405

    def test_tokenize_counts_what_usage_counts(self, plain: Talker) -> None:
        for content in (
            "Open Settings",
            "打开 微信 now!",
            [picture(), words("tap")],
            [picture(60, 90), picture(720, 1600)],
        ):
            messages = [{"role": "system", "content": "You are."}, {"role": "user", "content": content}]
            body = plain.http.post(f"{plain.root}/tokenize", json={"messages": messages}).json()
            assert body["count"] == len(body["tokens"]) == plain.body(messages=messages)["usage"]["prompt_tokens"]
            assert (body["max_model_len"], body["token_strs"]) == (25480, None)

    @pytest.mark.parametrize(
        ("size", "tokens"), [((720, 1600), 1482), ((1080, 1920), 2691), ((1080, 2400), 3108), ((1440, 3200), 3108)]
    )
    def test_what_a_picture_costs(self, plain: Talker, size: tuple[int, int], tokens: int) -> None:
        messages = [{"role": "user", "content": [picture(*size)]}]
        request = {"messages": messages, "return_token_strs": True}
        body = plain.http.post(f"{plain.root}/tokenize", json=request).json()
        assert body["token_strs"].count("<|image|>") == tokens

    def test_tokenize_a_prompt(self, plain: Talker) -> None:
        request = {"prompt": "Open 设置</think>", "return_token_strs": True}
        body = plain.http.post(f"{plain.root}/tokenize", json=request).json()
        assert body["token_strs"] == ["Open", " ", "设", "置", "</think>"]
        assert plain.http.post(f"{plain.root}/tokenize", json={}).status_code == 400

    def test_the_request_id_names_the_answer(self, plain: Talker) -> None:
        assert plain.body(request_id="mine")["id"] == "chatcmpl-mine"

    def test_requests_are_recorded(self, plain: Talker) -> None:
        plain.post("x", temperature=0)
        (recorded,) = plain.server.requests
        assert isinstance(recorded, RecordedRequest)
        assert recorded.body == {"model": MODEL, "messages": [{"role": "user", "content": "x"}], "temperature": 0}
        assert (recorded.path, recorded.headers["content-type"]) == ("/v1/chat/completions", "application/json")


def running(talker: Talker) -> float:
    text = talker.http.get(f"{talker.root}/metrics").text
    found = re.search(r'^vllm:num_requests_running\{engine="0",model_name="autoglm-phone-9b"\} (\S+)$', text, re.M)
    assert found
    return float(found[1])


def until(true: Callable[[], bool], seconds: float = 2.0) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


class TestManners:
    def test_openai_reads_it(self, plain: Talker) -> None:
        with openai.OpenAI(base_url=plain.server.base_url, api_key="-", max_retries=0) as client:
            asked: Any = [{"role": "user", "content": "Open Settings"}]
            body = client.chat.completions.create(model=MODEL, messages=asked)
            with client.chat.completions.create(model=MODEL, messages=asked, stream=True) as stream:
                text = "".join(it.choices[0].delta.content or "" for it in stream)
            assert text == body.choices[0].message.content
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model="nope", messages=asked)
            assert [it.id for it in client.models.list()] == [MODEL]

    @pytest.mark.parametrize("stream", [True, False])
    def test_a_client_that_leaves_ends_the_generation(self, start: Start, stream: bool) -> None:
        talker = start(pace=5)
        body = json.dumps({"stream": stream, "messages": [{"role": "user", "content": "hello"}]})
        with socket.create_connection(("127.0.0.1", talker.server.port)) as connection:
            head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json"
            connection.sendall(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
            assert until(lambda: running(talker) == 1)
        assert until(lambda: running(talker) == 0)

    def test_the_pace(self, start: Start) -> None:
        talker = start(pace=0.01)
        for stream in (False, True):
            begin = time.monotonic()
            talker.post("Go back", stream=stream)
            assert 0.15 < time.monotonic() - begin < 5

    def test_closing_is_prompt_and_cuts_streams(self, start: Start) -> None:
        talker = start(pace=5)
        with talker.http.stream("GET", f"{talker.root}/health") as idle:
            idle.read()
        request = {"stream": True, "messages": [{"role": "user", "content": "hi"}]}
        with talker.http.stream("POST", f"{talker.server.base_url}/chat/completions", json=request) as response:
            begin = time.monotonic()
            talker.server.close()
            assert time.monotonic() - begin < 0.5
            with suppress(httpx2.RemoteProtocolError):
                response.read()
                pytest.fail("a cut stream ended as if it were complete")
        with pytest.raises(httpx2.ConnectError):
            talker.post()

    def test_several_at_once_and_a_second_start(self, start: Start) -> None:
        first, second = start(), start()
        assert first.server.port != second.server.port
        first.server.close()
        first.server.close()
        assert second.post().status_code == 200

    def test_connections_are_kept_and_reused(self, plain: Talker) -> None:
        with socket.create_connection(("127.0.0.1", plain.server.port)) as connection:
            file = connection.makefile("rb")
            for _ in range(2):
                connection.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                assert file.readline() == b"HTTP/1.1 200 OK\r\n"
                while file.readline().strip():
                    pass
            connection.sendall(b"nonsense\r\n\r\n")
            assert file.readline() == b"HTTP/1.1 400 Bad Request\r\n"
            assert file.read().endswith(b"Invalid HTTP request received.")
            file.close()

    def test_a_body_in_chunks_and_one_too_large(self, plain: Talker) -> None:
        body = json.dumps({"messages": [{"role": "user", "content": "Go back"}]}).encode()
        url = f"{plain.server.base_url}/chat/completions"
        headers = {"content-type": "application/json"}
        sent = plain.http.post(url, content=iter([body[:9], body[9:]]), headers=headers)
        assert sent.status_code == 200
        with socket.create_connection(("127.0.0.1", plain.server.port)) as connection:
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")

    def test_lengths_that_cannot_be_read(self, plain: Talker) -> None:
        for header, body in (
            ("content-length: x", ""),
            ("content-length: -1", ""),
            ("transfer-encoding: chunked", "zz\r\n"),
        ):
            with socket.create_connection(("127.0.0.1", plain.server.port)) as connection:
                connection.sendall(f"POST /tokenize HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n{body}".encode())
                assert connection.recv(100).startswith(b"HTTP/1.1 400 ")

    def test_a_rule_that_fails_is_told(self, start: Start, capsys: pytest.CaptureFixture[str]) -> None:
        def rule(_: object) -> str:
            raise LookupError("no such rule")

        talker = start(answer=rule)
        error = {"message": "no such rule", "type": "InternalServerError", "param": None, "code": 500}
        assert talker.error() == error
        talker.server.close()
        assert "LookupError: no such rule" in capsys.readouterr().err

    def test_a_lone_surrogate_breaks_nothing(self, plain: Talker) -> None:
        url = f"{plain.server.base_url}/chat/completions"
        body = b'{"messages": [{"role": "user", "content": "hello \\ud800"}]}'
        response = plain.http.post(url, content=body, headers={"content-type": "application/json"})
        assert response.json()["choices"][0]["message"]["content"].endswith("hello ?")

    def test_a_wrong_form_of_reasoning(self) -> None:
        with pytest.raises(ValueError, match="reasoning must be one of"):
            ScriptedServer(reasoning="loud")  # type: ignore[arg-type]


class TestCommand:
    @pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
    def test_it_serves_until_told_to_stop(self, http: httpx2.Client, stop: signal.Signals) -> None:
        command = [sys.executable, "-m", "server_stub", "--scripted", "--port", "0", "--reasoning", "reasoning"]
        begin = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            base_url = process.stdout.readline().strip()
            assert time.monotonic() - begin < 5
            assert http.get(f"{base_url}/models").status_code == 200
            process.send_signal(stop)
            try:
                assert process.wait(5) == 0
            finally:
                process.kill()
