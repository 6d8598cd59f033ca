"""LangChain messages of every dialect against the exact JSON that is sent for them."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import date
from typing import Any

import pytest
from hypothesis import given, strategies as st
from langchain_core.language_models._utils import _normalize_messages
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    ChatMessageChunk,
    FunctionMessage,
    FunctionMessageChunk,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
    ToolMessageChunk,
)

from autoglm_client import ConfigurationError, image
from autoglm_client.langchain.convert import ReasoningInHistory, to_wire
from autoglm_client.messages import as_messages
from server_stub.phone import DrawnPhone

PNG = "iVBORw0KGgo="
DATA = f"data:image/png;base64,{PNG}"
URL = "https://example.org/screen.png"
DO = 'do(action="Tap", element=[1, 2])'

SCREEN = DrawnPhone(8, 8).screenshot()

Wire = dict[str, Any]


def picture(url: str = DATA, **more: str) -> Wire:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def text(words: str) -> Wire:
    return {"type": "text", "text": words}


def user(content: Any) -> Wire:
    return {"role": "user", "content": content}


def said(content: Any, **more: Any) -> Wire:
    return {"role": "assistant", "content": content, **more}


def native(name: str, arguments: str, call_id: str) -> Wire:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def call(name: str | None, args: Any, call_id: str | None = None) -> Any:
    return {"name": name, "args": args, "id": call_id}


def ai(content: Any = "", *, reasoning: str | None = None, **more: Any) -> AIMessage:
    kept = {} if reasoning is None else {"reasoning_content": reasoning}
    return AIMessage(content, additional_kwargs=kept | more.pop("kept", {}), **more)


def v1(*blocks: Wire, **more: Any) -> AIMessage:
    return AIMessage(list(blocks), response_metadata={"output_version": "v1"}, **more)


def check(messages: list[BaseMessage], wire: list[Wire], **options: Any) -> None:
    before = [message.model_dump_json() for message in messages]
    result = to_wire(messages, allow_remote_images=True, **options)
    assert json.loads(json.dumps(result)) == wire
    assert as_messages(result, allow_remote_images=True) == wire  # the client takes it
    assert [message.model_dump_json() for message in messages] == before


BLOCKS: dict[str, tuple[Any, Wire]] = {
    "a string": ("Hi", text("Hi")),
    "text": ({"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}, "annotations": []}, text("Hi")),
    "v0 text": ({"type": "text", "source_type": "text", "text": "Hi"}, text("Hi")),
    "refusal": ({"type": "refusal", "refusal": "No."}, text("No.")),
    "reasoning": ({"type": "reasoning", "reasoning": "Hm"}, text("Hm")),
    "OpenAI's reasoning": ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}]}, text("Hm")),
    "thinking": ({"type": "thinking", "thinking": "Hm", "signature": "x"}, text("Hm")),
    "v1 image, url": ({"type": "image", "url": URL}, picture(URL)),
    "v1 image, base64": ({"type": "image", "base64": PNG, "mime_type": "image/png"}, picture()),
    "v1 image, data URI": ({"type": "image", "base64": DATA}, picture()),
    "v1 image, detail": ({"type": "image", "url": URL, "extras": {"detail": "low"}}, picture(URL, detail="low")),
    "v0 image, url": ({"type": "image", "source_type": "url", "url": URL}, picture(URL)),
    "v0 image, base64": (
        {"type": "image", "source_type": "base64", "data": PNG, "mime_type": "image/png", "cache_control": {}},
        picture(),
    ),
    "OpenAI's image": ({"type": "image_url", "image_url": {"url": DATA, "detail": "high"}}, picture(detail="high")),
    "OpenAI's image, bare": ({"type": "image_url", "image_url": URL}, picture(URL)),
    "Anthropic's image, base64": (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}, "cache_control": {}},
        picture(),
    ),
    "Anthropic's image, url": ({"type": "image", "source": {"type": "url", "url": URL}}, picture(URL)),
    "an image, http": ({"type": "image", "url": "HTTP://a/b"}, picture("HTTP://a/b")),
    "our own part": (image(SCREEN), {**image(SCREEN)}),
    "non-standard": ({"type": "non_standard", "value": {"type": "text", "text": "Hi"}}, text("Hi")),
    "audio, base64": (
        {"type": "audio", "base64": "UklGRg==", "mime_type": "audio/x-wav"},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    ),
    "v0 audio, base64": (
        {"type": "audio", "source_type": "base64", "data": "SUQz", "mime_type": "audio/mpeg"},
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
    ),
    "audio, url": ({"type": "audio", "url": URL}, {"type": "audio_url", "audio_url": {"url": URL}}),
    "OpenAI's audio": (
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}, "cache_control": {}},
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
    ),
    "vLLM's audio": (
        {"type": "audio_url", "audio_url": {"url": URL}},
        {"type": "audio_url", "audio_url": {"url": URL}},
    ),
    "video, url": ({"type": "video", "url": URL}, {"type": "video_url", "video_url": {"url": URL}}),
    "video, base64": (
        {"type": "video", "base64": "AAAA", "mime_type": "video/mp4"},
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
    ),
    "vLLM's video": (
        {"type": "video_url", "video_url": {"url": URL}},
        {"type": "video_url", "video_url": {"url": URL}},
    ),
    "file, base64": (
        {"type": "file", "base64": "JVBE", "mime_type": "application/pdf", "extras": {"filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
    ),
    "v0 file, base64": (
        {"type": "file", "source_type": "base64", "data": "JVBE", "mime_type": "application/pdf"},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE"}},
    ),
    "file, id": ({"type": "file", "file_id": "f-1"}, {"type": "file", "file": {"file_id": "f-1"}}),
    "v0 file, id": ({"type": "file", "source_type": "id", "id": "f-1"}, {"type": "file", "file": {"file_id": "f-1"}}),
    "OpenAI's file": (
        {"type": "file", "file": {"file_id": "f-1"}},
        {"type": "file", "file": {"file_id": "f-1"}},
    ),
    "v0 file, text": ({"type": "file", "source_type": "text", "url": "Words"}, text("Words")),
    "Anthropic's document": ({"type": "document", "source": {"type": "text", "data": "Words"}}, text("Words")),
    "Anthropic's PDF": (
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE"}},
    ),
    "plain text": (
        {"type": "text-plain", "text": "Words", "mime_type": "text/plain", "title": "Title", "context": "About"},
        text("Title\nAbout\nWords"),
    ),
    "plain text, base64": ({"type": "text-plain", "base64": "V29yZHM=", "mime_type": "text/plain"}, text("Words")),
    "a call": (
        {"type": "tool_call", "name": "f", "args": {"a": 1}, "id": "1"},
        text('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'),
    ),
    "a chunk of a call": (
        {"type": "tool_call_chunk", "name": "f", "args": '{"a": 1', "id": "1", "index": 0},
        text('<tool_call>{"name": "f", "arguments": {"a": 1}</tool_call>'),
    ),
    "an invalid call": (
        {"type": "invalid_tool_call", "name": "f", "args": "[1]", "id": "1", "error": "no object"},
        text('<tool_call>{"name": "f", "arguments": [1]}</tool_call>'),
    ),
    "Anthropic's call": (
        {"type": "tool_use", "name": "f", "input": {"a": 1}, "id": "1"},
        text('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'),
    ),
    "a call without arguments": (
        {"type": "server_tool_call", "name": "f", "id": "1"},
        text('<tool_call>{"name": "f", "arguments": {}}</tool_call>'),
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name: str) -> None:
    block, part = BLOCKS[name]
    message = HumanMessage(["Look:", block])
    check([message], [user([text("Look:"), part])])
    check(_normalize_messages([message]), [user([text("Look:"), part])])  # as LangChain hands it over


def test_what_only_anthropic_can_read_is_left_out() -> None:
    check([HumanMessage(["Hi", {"type": "redacted_thinking", "data": "x"}])], [user([text("Hi")])])


def test_content_of_every_role() -> None:
    check([HumanMessage("Hi", name="Ann")], [user("Hi") | {"name": "Ann"}])
    check([HumanMessage("")], [user("")])
    check([HumanMessage([])], [user("")])
    check([HumanMessageChunk(content="Hi")], [user("Hi")])
    check([SystemMessage("Be brief.", name="boss")], [{"role": "system", "content": "Be brief.", "name": "boss"}])
    check([SystemMessageChunk(content=["Be", text("brief.")])], [{"role": "system", "content": "Be\nbrief."}])
    check([SystemMessage([picture(), "A"])], [{"role": "system", "content": [picture(), text("A")]}])
    check([ai("Yes.", name="bot")], [said("Yes.", name="bot")])
    check([ai([text("Ye"), "s", text(".")])], [said("Yes.")])
    check([ai([])], [said("")])
    check([AIMessageChunk(content="Yes.")], [said("Yes.")])
    check(
        [ChatMessage(content="Hi", role="human"), ChatMessageChunk(content="Yes.", role="assistant")],
        [user("Hi"), said("Yes.")],
    )
    check([ChatMessage(content="Be brief.", role="developer")], [{"role": "system", "content": "Be brief."}])


REASONING: list[tuple[AIMessage, str, str, str]] = [
    # the message, its reasoning, its text, what "tags" makes of it
    (ai("B"), "", "B", "B"),
    (ai("B", reasoning=""), "", "B", "B"),
    (ai("B", reasoning=" \n"), "", "B", "B"),
    (ai("B", reasoning="A"), "A", "B", "<think>A</think><answer>B</answer>"),
    (ai("", reasoning="A"), "A", "", "<think>A</think><answer></answer>"),
    (ai("<think>A</think>B", reasoning="A"), "A", "<think>A</think>B", "<think>A</think>B"),
    (ai("<answer>B</answer>", reasoning="<think>A"), "A", "<answer>B</answer>", "<think>A</think><answer>B</answer>"),
    (ai("<think>A</think>B"), "", "<think>A</think>B", "<think>A</think>B"),
    (
        v1({"type": "reasoning", "reasoning": "A"}, text("B"), {"type": "reasoning", "reasoning": "C"}, text("D")),
        "A\nC",
        "BD",
        "<think>A\nC</think><answer>BD</answer>",
    ),
    (
        ai([{"type": "thinking", "thinking": "A", "signature": "x"}, text("B")]),
        "A",
        "B",
        "<think>A</think><answer>B</answer>",
    ),
    (
        ai([{"type": "reasoning", "reasoning": "A"}, text("B")], reasoning="A"),
        "A",
        "B",
        "<think>A</think><answer>B</answer>",
    ),
    (
        ai([{"type": "reasoning", "reasoning": "A"}, text("B")], reasoning="0"),
        "0\nA",
        "B",
        "<think>0\nA</think><answer>B</answer>",
    ),
]


@pytest.mark.parametrize(("message", "reasoning", "words", "tagged"), REASONING)
def test_reasoning(message: AIMessage, reasoning: str, words: str, tagged: str) -> None:
    check([message], [said(tagged)])
    check([message], [said(tagged)], phone=True)
    check([message], [said(words)], reasoning="drop")
    check([message], [said(words, **({"reasoning": reasoning} if reasoning else {}))], reasoning="field")


def test_reasoning_of_somebody_else_follows_the_same_switch() -> None:
    message = HumanMessage([{"type": "reasoning", "reasoning": "A"}, "B"])
    check([message], [user([text("A"), text("B")])], reasoning="field")
    check([message], [user([text("B")])], reasoning="drop")


F = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
G = '<tool_call>{"name": "g", "arguments": {}}</tool_call>'
NATIVE_F = native("f", '{"a": 1}', "1")
NATIVE_G = native("g", "{}", "2")
BOTH = [call("f", {"a": 1}, "1"), call("g", {}, "2")]
OPENAI_F = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


CALLS: dict[str, tuple[AIMessage | ChatMessage, str, str | None, list[Wire]]] = {
    # the message, as text, the content beside native calls, the native calls
    "no text": (ai("", tool_calls=BOTH), F + G, None, [NATIVE_F, NATIVE_G]),
    "with text": (ai("Let me see.", tool_calls=BOTH), f"Let me see.\n{F}{G}", "Let me see.", [NATIVE_F, NATIVE_G]),
    "with reasoning": (
        ai("", reasoning="A", tool_calls=BOTH),
        f"<think>A</think>{F}{G}",
        "<think>A</think>",
        [NATIVE_F, NATIVE_G],
    ),
    "with both": (
        ai("<answer>B</answer>", reasoning="A", tool_calls=BOTH[:1]),
        f"<think>A</think>B\n{F}",
        "<think>A</think>B",
        [NATIVE_F],
    ),
    "v1 blocks": (
        v1(
            {"type": "reasoning", "reasoning": "A"},
            text("B"),
            {"type": "tool_call", "name": "f", "args": {"a": 1}, "id": "1"},
            {"type": "tool_call_chunk", "name": "g", "args": "{}", "id": "2", "index": 1},
            tool_calls=BOTH,
        ),
        f"<think>A</think>B\n{F}{G}",
        "<think>A</think>B",
        [NATIVE_F, NATIVE_G],
    ),
    "content_blocks": (
        AIMessage(content_blocks=[{"type": "tool_call", "name": "f", "args": {"a": 1}, "id": "1"}]),
        F,
        None,
        [NATIVE_F],
    ),
    "Anthropic's": (
        ai([text("B"), {"type": "tool_use", "name": "f", "input": {}, "partial_json": '{"a": 1}', "id": "1"}]),
        f"B\n{F}",
        "B",
        [NATIVE_F],
    ),
    "Anthropic's, listed too": (
        ai([{"type": "tool_use", "name": "f", "input": {"a": 1}, "id": "1"}], tool_calls=BOTH),
        F + G,
        None,
        [NATIVE_F, NATIVE_G],
    ),
    "without ids": (
        ai([{"type": "tool_call", "name": "f", "args": {"a": 1}}], tool_calls=[call("f", {"a": 1}), call("g", {})]),
        F + G,
        None,
        [native("f", '{"a": 1}', "call-0-0"), native("g", "{}", "call-0-1")],
    ),
    "OpenAI's": (ai("", kept={"tool_calls": [OPENAI_F]}), F, None, [NATIVE_F]),
    "OpenAI's, in a ChatMessage": (
        ChatMessage(content="", role="assistant", additional_kwargs={"tool_calls": [OPENAI_F]}),
        F,
        None,
        [NATIVE_F],
    ),
    "OpenAI's oldest": (
        ai("", kept={"function_call": {"name": "f", "arguments": '{"a":1}'}}),
        F,
        None,
        [native("f", '{"a":1}', "call-0-0")],
    ),
    "invalid": (
        ai("", tool_calls=BOTH[1:], invalid_tool_calls=[{**call("f", '{"a": ', "1"), "error": None}]),
        G + '<tool_call>{"name": "f", "arguments": {"a": }</tool_call>',
        None,
        [NATIVE_G, native("f", '{"a": ', "1")],
    ),
    "invalid without anything": (
        ai("", invalid_tool_calls=[{**call(None, None), "error": None}]),
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        None,
        [native("", "{}", "call-0-0")],
    ),
    "a chunk": (
        AIMessageChunk(
            content="",
            tool_call_chunks=[{**call("f", '{"a": 1}', "1"), "index": 0}, {**call("g", "", "2"), "index": 1}],
        ),
        F + G,
        None,
        [NATIVE_F, NATIVE_G],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(name: str) -> None:
    message, as_text, content, calls = CALLS[name]
    check([message], [said(as_text)])
    check([message], [said(as_text)], phone=True)
    check([message], [said(content, tool_calls=calls)], native_tools=True)


def test_calls_beside_a_field_of_reasoning() -> None:
    message = ai("", reasoning="A", tool_calls=BOTH[:1])
    options: dict[str, Any] = {"reasoning": "field", "native_tools": True}
    check([message], [said(None, reasoning="A", tool_calls=[NATIVE_F])], **options)
    check([message], [said(F)], reasoning="drop")


def test_tools_that_another_provider_ran_stay_where_they_are() -> None:
    found = {"type": "server_tool_result", "tool_call_id": "s", "status": "error", "output": ["W"]}
    run = {"type": "server_tool_call", "name": "search", "args": {"q": "x"}, "id": "s"}
    call_ = '<tool_call>{"name": "search", "arguments": {"q": "x"}}</tool_call>'
    result = '<tool_response>{"name": "search", "status": "error", "content": "[\\"W\\"]"}</tool_response>'
    check([v1(text("A"), run, found, text("B"))], [said(f"A{call_}{result}B")], native_tools=True)
    listed = v1(text("A"), run, tool_calls=[call("search", {"q": "x"}, "s")])
    check([listed], [said(f"A\n{call_}")])
    check(
        [v1({**found, "output": "W", "status": "success"})], [said('<tool_response>{"content": "W"}</tool_response>')]
    )


def test_blocks_of_other_providers_are_read_by_langchain() -> None:
    blocks = [text("A"), {"type": "function_call", "name": "f", "arguments": '{"a": 1}', "call_id": "1", "id": "x"}]
    message = ai(blocks, tool_calls=BOTH[:1], response_metadata={"model_provider": "openai"})
    check([message], [said(f"A\n{F}")])


def response(content: str, name: str | None = "f", **more: str) -> str:
    body = ({"name": name} if name else {}) | more | {"content": content}
    written = json.dumps(body).replace("<", "\\u003c")
    return f"<tool_response>{written}</tool_response>"


ASKED = ai("", tool_calls=BOTH)


def asked(native_tools: bool = False) -> Wire:
    return said(None, tool_calls=[NATIVE_F, NATIVE_G]) if native_tools else said(F + G)


def result(content: Any, call_id: str = "1", **more: Any) -> ToolMessage:
    return ToolMessage(content, tool_call_id=call_id, **more)


def role_tool(content: str, call_id: str = "1") -> Wire:
    return {"role": "tool", "content": content, "tool_call_id": call_id}


V1_IMAGE = {"type": "image", "base64": PNG, "mime_type": "image/png"}
RESULTS: dict[str, tuple[list[BaseMessage], list[Wire], list[Wire]]] = {
    # the messages after ASKED, as text, natively
    "one": ([result("4")], [user(response("4"))], [role_tool("4")]),
    "a chunk": (
        [ToolMessageChunk(content="4", tool_call_id="2", name="h")],
        [user(response("4", "h"))],
        [role_tool("4", "2")],
    ),
    "two": (
        [result("4"), result("", "2", status="error"), HumanMessage("Go on.")],
        [user(f"{response('4')}\n{response('', 'g', status='error')}"), user("Go on.")],
        [role_tool("4"), role_tool("", "2"), user("Go on.")],
    ),
    "of a call that nobody made": ([result("4", "9")], [user(response("4", None))], [role_tool("4", "9")]),
    "texts": (
        [result(["4", text("5"), {"type": "text-plain", "text": "6"}])],
        [user(response("4\n5\n6"))],
        [role_tool("4\n5\n6")],
    ),
    "pictures": (
        [result([text("Here"), V1_IMAGE]), result([picture(URL)], "2")],
        [user([picture(), text(response("Here")), picture(URL), text(response("", "g"))])],
        [role_tool("Here"), role_tool("", "2"), user([picture(), picture(URL)])],
    ),
    "of a function": ([FunctionMessage(content="4", name="g")], [user(response("4", "g"))], [role_tool("4", "2")]),
    "of a function, a chunk": (
        [FunctionMessageChunk(name="f", content="4")],
        [user(response("4", "f"))],
        [role_tool("4")],
    ),
    "Anthropic's": (
        [
            HumanMessage(
                [
                    {"type": "tool_result", "tool_use_id": "1", "content": [text("4"), V1_IMAGE], "cache_control": {}},
                    {"type": "tool_result", "tool_use_id": "2", "content": "5", "is_error": True},
                    text("Go on."),
                ]
            )
        ],
        [user([picture(), text(response("4")), text(response("5", "g", status="error"))]), user([text("Go on.")])],
        [role_tool("4"), role_tool("5", "2"), user([picture()]), user([text("Go on.")])],
    ),
    "Anthropic's alone": (
        [HumanMessage([{"type": "tool_result", "tool_use_id": "1"}])],
        [user(response(""))],
        [role_tool("")],
    ),
    "a result in a result": (
        [result([{"type": "tool_result", "tool_use_id": "s", "content": "deep"}])],
        [user(response(response("deep", None)))],
        [role_tool(response("deep", None))],
    ),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results(name: str) -> None:
    messages, as_text, natively = RESULTS[name]
    check([ASKED, *messages], [asked(), *as_text])
    check([ASKED, *messages], [asked(native_tools=True), *natively], native_tools=True)


DATA_OF_TOOLS: list[Any] = [
    {"type": "file", "name": "a.txt"},
    {"type": "text", "name": "a.txt"},
    {"type": "json", "json": {"a": "<é>"}},
    {"type": "search_result", "source": "https://a", "title": "T", "content": [text("W")]},
    {"type": "image", "url": "/tmp/x.png"},
    {"name": "no type"},
]


@pytest.mark.parametrize("block", DATA_OF_TOOLS, ids=str)
def test_what_a_tool_gives_back_is_data_where_it_is_no_block(block: Any) -> None:
    written = json.dumps(block, ensure_ascii=False)
    answer = result([text("See"), block])
    check([ASKED, answer], [asked(native_tools=True), role_tool(f"See\n{written}")], native_tools=True)
    wire = to_wire([ASKED, answer])
    assert json.loads(str(wire[1]["content"])[15:-16])["content"] == f"See\n{written}"
    anthropic = {"type": "tool_result", "tool_use_id": "1", "content": [block]}
    check([ASKED, HumanMessage([anthropic])], [asked(native_tools=True), role_tool(written)], native_tools=True)
    with pytest.raises(ConfigurationError, match=r"^messages\[0\]: a block of type"):
        to_wire([HumanMessage([block])])


def test_what_json_cannot_hold_is_said_in_short() -> None:
    block = {"type": "image", "base64": b"GIF", "at": date(2026, 1, 2)}
    (wire,) = to_wire([result([block], "1")], native_tools=True)
    assert wire["content"] == '{"type": "image", "base64": "(bytes)", "at": "2026-01-02"}'
    block["itself"] = block
    with pytest.raises(ConfigurationError, match=r"^messages\[0\]: a block of type 'image' needs"):
        to_wire([ToolMessage.model_construct(content=[block], tool_call_id="1", name=None, status="success")])


TAP = call("tap", {"element": [1, 2]}, "1")
OPEN = call("launch", {"app": 'a "</answer>'}, "2")
LAUNCH = 'do(action="Launch", app="a \\"\\x3c/answer>")'


def test_a_phone_s_turns() -> None:
    messages = [
        SystemMessage("Drive."),
        HumanMessage([picture("https://a/0"), text("Open it")]),
        ai(DO, reasoning="A", tool_calls=[TAP]),
        result([text("** Screen Info **"), picture("https://a/1")]),
        ai("", reasoning="B", tool_calls=[OPEN]),
        result([V1_IMAGE, picture("https://a/2"), text("** Screen Info **")], "2"),
        ai('finish(message="Done")', reasoning="C"),
    ]
    wire = [
        {"role": "system", "content": "Drive."},
        user([text("Open it")]),
        said(f"<think>A</think><answer>{DO}</answer>"),
        user([text("** Screen Info **")]),
        said(f"<think>B</think><answer>{LAUNCH}</answer>"),
        user([picture(), picture("https://a/2"), text("** Screen Info **")]),
        said('<think>C</think><answer>finish(message="Done")</answer>'),
    ]
    check(messages, wire, phone=True)
    check(messages, wire, phone=True, native_tools=True)


ACTIONS: list[tuple[AIMessage, str, str]] = [
    # the message, with tags, without
    (ai("", tool_calls=[TAP]), f"<answer>{DO}</answer>", DO),
    (ai("", reasoning="A", tool_calls=[TAP]), f"<think>A</think><answer>{DO}</answer>", DO),
    (ai(DO, tool_calls=[TAP]), DO, DO),
    (ai("I open it.", tool_calls=[OPEN]), f"I open it.\n{LAUNCH}", f"I open it.\n{LAUNCH}"),
    (ai("", tool_calls=[TAP, BOTH[1]]), f"{DO}\n{G}", f"{DO}\n{G}"),
    (
        ai("", reasoning="A", tool_calls=[TAP, BOTH[1]]),
        f"<think>A</think>{DO}\n{G}",
        f"{DO}\n{G}",
    ),
    (
        ai("", tool_calls=[call("tap", {"element": "there"}, "1")]),
        '<answer><tool_call>{"name": "tap", "arguments": {"element": "there"}}</tool_call></answer>',
        '<tool_call>{"name": "tap", "arguments": {"element": "there"}}</tool_call>',
    ),
]


BACK = 'do(action="Back")'
EDITED: dict[str, tuple[AIMessage, str, str]] = {
    # the message, with tags, without: the call is what was done, whatever the text says
    "the text alone": (ai(BACK, tool_calls=[TAP]), DO, DO),
    "with thinking": (ai(BACK, reasoning="A", tool_calls=[TAP]), f"<think>A</think><answer>{DO}</answer>", DO),
    "with words before": (ai(f"I go.\n{BACK}", tool_calls=[TAP]), f"I go.\n{DO}", f"I go.\n{DO}"),
    "with tags in the text": (
        ai(f"<think>A</think><answer>{BACK}</answer>", tool_calls=[TAP]),
        f"<think>A</think><answer>{DO}</answer>",
        f"<think>A</think><answer>{DO}</answer>",
    ),
    "quoted in the thinking, too": (
        ai(f"<think>{DO} or\n{BACK}</think><answer>{BACK}</answer>", tool_calls=[TAP]),
        f"<think>{DO} or\n{BACK}</think><answer>{DO}</answer>",
        f"<think>{DO} or\n{BACK}</think><answer>{DO}</answer>",
    ),
    "with more planned": (ai(f"{BACK}\n{BACK}", tool_calls=[TAP]), DO, DO),
    "the end, taken back": (ai('finish(message="Done")', tool_calls=[TAP]), DO, DO),
    "to what is none": (
        ai(BACK, tool_calls=[call("tap", {"element": "there"}, "1")]),
        '<tool_call>{"name": "tap", "arguments": {"element": "there"}}</tool_call>',
        '<tool_call>{"name": "tap", "arguments": {"element": "there"}}</tool_call>',
    ),
    "another tool beside it": (ai(BACK, tool_calls=[TAP, BOTH[1]]), f"{DO}\n{G}", f"{DO}\n{G}"),
    "not edited, written otherwise": (
        ai("do(action='Tap', element=[1,2])", tool_calls=[TAP]),
        "do(action='Tap', element=[1,2])",
        "do(action='Tap', element=[1,2])",
    ),
    "one more": (ai(DO, tool_calls=[TAP, OPEN]), f"{DO}\n{LAUNCH}", f"{DO}\n{LAUNCH}"),
    "prose": (
        ai("What can I do(now)? I tap.", tool_calls=[TAP]),
        f"What can I do(now)? I tap.\n{DO}",
        f"What can I do(now)? I tap.\n{DO}",
    ),
}


@pytest.mark.parametrize("name", EDITED)
def test_the_history_shows_the_action_that_was_made(name: str) -> None:
    message, tagged, plain = EDITED[name]
    check([message], [said(tagged)], phone=True)
    check([message], [said(plain)], phone=True, reasoning="drop")


@pytest.mark.parametrize(("message", "tagged", "plain"), ACTIONS)
def test_actions_are_written_as_the_model_writes_them(message: AIMessage, tagged: str, plain: str) -> None:
    check([message], [said(tagged)], phone=True)
    check([message], [said(plain)], phone=True, reasoning="drop")


def test_phone_and_other_tools_at_once() -> None:
    asked_ = ai("", tool_calls=[TAP, BOTH[1]])
    messages = [asked_, result([text("S"), picture()]), result([picture(URL), text("4")], "2")]
    check(
        messages,
        [said(f"{DO}\n{G}"), user([text(response("4", "g"))]), user([picture(), text("S")])],
        phone=True,
    )
    check(
        messages,
        [said(DO, tool_calls=[NATIVE_G]), role_tool("4", "2"), user(""), user([picture(), text("S")])],
        phone=True,
        native_tools=True,
    )


def test_what_a_phone_says_in_text_alone() -> None:
    error = [ai(DO, tool_calls=[TAP]), result("The tap was refused.", status="error")]
    check(error, [said(DO), user("The tap was refused.")], phone=True)
    check([result("4", "?")], [user("4")], phone=True, native_tools=True)
    check([HumanMessage([picture()]), ai("A")], [user([picture()]), said("A")], phone=True)
    check([HumanMessage([picture(URL)]), HumanMessage([picture()])], [user(""), user([picture()])], phone=True)


class Odd(BaseMessage):
    type: str = "odd"


WRONG: list[tuple[BaseMessage, str]] = [
    (RemoveMessage(id="1"), "a RemoveMessage cannot be sent"),
    (Odd(content="x"), "a Odd cannot be sent"),
    (ChatMessage(content="x", role="narrator"), "the role 'narrator'"),
    (HumanMessage([{"type": "hologram"}]), "a block of type 'hologram' cannot be sent; write it as text"),
    (HumanMessage([{"text": "Hi"}]), "a block of type None cannot be sent"),
    (HumanMessage([{"type": ["text"], "text": "Hi"}]), r"a block of type \['text'\] cannot be sent"),
    (HumanMessage([{"type": "non_standard", "value": {"type": "hologram"}}]), "in a block of type 'non_standard': "),
    (HumanMessage([{"type": "non_standard", "value": 1}]), "a int is no content block"),
    (HumanMessage([{"type": "text", "text": None}]), "a block of type 'text' needs a string as its 'text'"),
    (HumanMessage([{"type": "image", "file_id": "f"}]), "a block of type 'image' names a file of another provider"),
    (HumanMessage([{"type": "image", "source_type": "id", "id": "f"}]), "'image' names a file of another provider"),
    (HumanMessage([{"type": "image", "source": {"type": "file", "file_id": "f"}}]), "names a file of another provider"),
    (HumanMessage([{"type": "image", "source": {"type": "?"}}]), "a block of type 'image' has no data"),
    (HumanMessage([{"type": "image"}]), "a block of type 'image' has no data; give it a 'url'"),
    (HumanMessage([{"type": "image", "base64": PNG}]), "'image' has base64, but does not say of what"),
    (HumanMessage([{"type": "image", "base64": b"GIF"}]), "'image' needs a string as its base64"),
    (HumanMessage([{"type": "image", "source_type": "base64", "data": b"GIF"}]), "needs a string as its base64"),
    (HumanMessage([{"type": "audio", "base64": b"RIFF"}]), "'audio' needs a string as its base64"),
    (HumanMessage([{"type": "image", "url": "/tmp/x.png"}]), r"'image' names no .* autoglm_client.image\(path\)"),
    (HumanMessage([{"type": "image", "url": "file:///tmp/x.png"}]), "'image' names no picture"),
    (HumanMessage([{"type": "image_url", "image_url": "x.png"}]), "'image_url' names no picture"),
    (HumanMessage([{"type": "image_url", "image_url": {"url": "x.png"}}]), "'image_url' names no picture"),
    (HumanMessage([{"type": "image_url"}]), "'image_url' needs a dict as its 'image_url'"),
    (HumanMessage([{"type": "image_url", "image_url": {}}]), "'image_url' needs a string as its 'url'"),
    (HumanMessage([{"type": "audio", "file_id": "f"}]), "'audio' names a file"),
    (HumanMessage([{"type": "video", "file_id": "f"}]), "'video' names a file"),
    (HumanMessage([{"type": "input_audio", "input_audio": "x"}]), "needs a dict as its 'input_audio'"),
    (HumanMessage([{"type": "file", "url": URL}]), "'file' has no data with it"),
    (HumanMessage([{"type": "text-plain", "url": URL}]), "'text-plain' has no text with it"),
    (HumanMessage([{"type": "text-plain", "base64": "/w=="}]), "'text-plain' holds no text"),
    (HumanMessage([{"type": "text-plain", "base64": "?"}]), "'text-plain' holds no text"),
    (HumanMessage([{"type": "tool_result", "content": 1}]), "'tool_result' needs a string or a list"),
    (ai([V1_IMAGE]), "a block of type 'image_url' in an answer of the model"),
    (ai([{"type": "hologram"}]), "a block of type 'hologram'"),
    (ai([{"type": "mcp_call"}], response_metadata={"model_provider": "openai"}), "cannot be read"),
    (ai("", tool_calls=[call("f", {"a": object()}, "1")]), "the arguments of the call of 'f' cannot be written"),
    (ChatMessage(content="", role="ai", additional_kwargs={"tool_calls": [1]}), "a call without a function"),
]


@pytest.mark.parametrize(("message", "why"), WRONG)
def test_what_cannot_be_sent(message: BaseMessage, why: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^messages\[1\].*{why}"):
        to_wire([HumanMessage("Hi"), message])


@pytest.mark.parametrize(
    "message",
    [FunctionMessage(content="4", name="f"), ChatMessage(content="4", role="tool"), ToolMessage("4", tool_call_id="")],
)
def test_a_native_result_needs_its_call(message: BaseMessage) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^messages\[0\]: the result of a tool that the answer before did not"
    ):
        to_wire([message], native_tools=True)


def test_arguments_that_are_no_object_or_too_deep_stay_as_they_are_written() -> None:
    deep = "[" * 100_000
    for written in ("[1]", "3", "NaN", deep):
        block = {"type": "invalid_tool_call", "name": "f", "args": written, "id": "1"}
        check([ai([block])], [said(None, tool_calls=[native("f", written, "1")])], native_tools=True)
    check([ai([{"type": "tool_call", "name": "f", "args": [1], "id": "1"}])], [said(F.replace('{"a": 1}', "[1]"))])


def test_no_message_is_no_message() -> None:
    assert to_wire([]) == []


# Any history: nothing but ConfigurationError, and no word is lost.

WORDS = st.text("abcdefghij 你好.", min_size=1, max_size=8).map(str.strip).filter(bool)
NAMES = st.sampled_from(["tap", "launch", "f", "g"])
IDS = st.sampled_from(["1", "2", "3"])
TEXTS = WORDS | st.builds(text, WORDS) | st.builds(lambda words: {"type": "text-plain", "text": words}, WORDS)
MEDIA = st.sampled_from([V1_IMAGE, picture(), picture(URL), *(block for block, _ in BLOCKS.values())])
TYPES = sorted({block["type"] for block, _ in BLOCKS.values() if isinstance(block, dict)} | {"tool_result", "?"})
KEYS = ["text", "url", "base64", "source", "source_type", "id", "args", "name", "content", "summary", "value", "file"]
VALUES = st.none() | st.integers() | WORDS | st.sampled_from([*KEYS, "é", "data:"]) | st.lists(WORDS, max_size=2)
ODD = st.builds(
    lambda kind, block: {**block, "type": kind},
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(KEYS), VALUES | st.dictionaries(st.sampled_from(["type", *KEYS]), VALUES)),
)
CONTENT = WORDS | st.lists(TEXTS, max_size=3)
TOOL_CALLS = st.lists(st.builds(call, NAMES, st.dictionaries(WORDS, WORDS, max_size=2), st.none() | IDS), max_size=2)
KEPT: st.SearchStrategy[dict[str, str]] = st.just({}) | st.builds(lambda words: {"reasoning_content": words}, WORDS)
MESSAGES = (
    st.builds(HumanMessage, CONTENT)
    | st.builds(SystemMessage, CONTENT)
    | st.builds(lambda *a: AIMessage(a[0], tool_calls=a[1], additional_kwargs=a[2]), CONTENT, TOOL_CALLS, KEPT)
    | st.builds(lambda *a: result(a[0], a[1], status=a[2]), CONTENT, IDS, st.sampled_from(["success", "error"]))
    | st.builds(lambda words, name: FunctionMessage(content=words, name=name), WORDS, NAMES)
    | st.builds(
        lambda words, role: ChatMessage(content=words, role=role), WORDS, st.sampled_from(["ai", "user", "developer"])
    )
)
MODES = st.fixed_dictionaries(
    {
        "reasoning": st.sampled_from(["drop", "field", "tags"]),
        "native_tools": st.booleans(),
        "phone": st.booleans(),
        "allow_remote_images": st.booleans(),
    }
)


def words_of(message: BaseMessage, reasoning: ReasoningInHistory) -> list[str]:
    blocks = [message.content] if isinstance(message.content, str) else message.content
    words = [block if isinstance(block, str) else block["text"] for block in blocks]
    if reasoning != "drop":
        words.append(message.additional_kwargs.get("reasoning_content", ""))
    for call_ in getattr(message, "tool_calls", []):
        words += call_["args"].values()
    return words


@given(st.lists(MESSAGES, max_size=6), MODES)
def test_no_word_is_lost(messages: list[BaseMessage], modes: dict[str, Any]) -> None:
    if modes["native_tools"]:  # the result of a function is then taken only after its call
        messages = [message for message in messages if not isinstance(message, FunctionMessage)]
    wire = to_wire(messages, **modes)
    written = json.dumps(wire, ensure_ascii=False)
    for message in messages:
        for words in words_of(message, modes["reasoning"]):
            assert words in written
    if wire:
        as_messages(wire)


@given(st.lists(TEXTS | MEDIA | ODD, max_size=4), st.sampled_from(["human", "ai", "tool", "system"]), MODES)
def test_no_other_error_is_raised(content: list[Any], kind: str, modes: dict[str, Any]) -> None:
    messages: dict[str, BaseMessage] = {
        "human": HumanMessage(content),
        "ai": AIMessage(content),
        "tool": result(content),
        "system": SystemMessage(content),
    }
    with suppress(ConfigurationError):
        json.dumps(to_wire([messages[kind]], **modes))


def test_thinking_that_stands_in_two_places_is_written_once_and_other_thinking_too() -> None:
    def written(kept: str) -> object:
        blocks: list[str | dict[str, Any]] = [
            {"type": "reasoning", "reasoning": "because"},
            {"type": "text", "text": "x"},
        ]
        return to_wire([AIMessage(blocks, additional_kwargs={"reasoning_content": kept})])[0]["content"]

    assert written("because") == "<think>because</think><answer>x</answer>"
    assert written("cause") == "<think>cause\nbecause</think><answer>x</answer>"
