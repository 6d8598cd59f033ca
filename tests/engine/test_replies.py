"""What the engine says and what the client makes of it: the same reply streamed or not, in every form."""

from __future__ import annotations

import pytest

from autoglm_client import (
    AutoGLM,
    Back,
    ChatOptions,
    Finished,
    Message,
    ReasoningDelta,
    Reply,
    TextDelta,
    assistant,
    first_turn,
    image,
    system,
    user,
)

from .clients import screenshot
from .dictation import dictated
from .engine import MODEL, OTHER_NAME, Engine

TAGGED = '<think>The task is done.</think><answer>do(action="Back")</answer>'

QUESTIONS: dict[str, list[Message]] = {
    "english": [user("Open WeChat")],
    "chinese": [user("打开微信,给张三发一条消息:今天晚上一起吃饭吗?")],
    "turns": [system("Be brief."), user("Hi"), assistant("Hello."), user("Go on")],
    "screen": [first_turn("Turn on Wi-Fi", image(screenshot()), {"current_app": "Settings"})],
    "two screens": [user(image(screenshot()), image(screenshot("blue")), "What has changed?")],
}

OPTIONS: dict[str, ChatOptions] = {
    "greedy": {},
    "seeded": {"temperature": 1.0, "seed": 7},
    "several": {"temperature": 1.0, "seed": 7, "n": 2},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "token ids": {"return_token_ids": True},
    "one token": {"max_tokens": 1},
    "no thinking": {"thinking": False},
}


def streamed(glm: AutoGLM, messages: list[Message], options: ChatOptions) -> Reply:
    with glm.stream(messages, **options) as stream:
        return stream.finish()


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_stream_gives_the_reply_of_a_plain_call(either: AutoGLM, question: str) -> None:
    messages = QUESTIONS[question]
    reply, again = either.chat(messages), streamed(either, messages, {})
    assert again == reply
    assert reply.model == MODEL
    assert reply.usage is not None
    assert again.usage is not None
    assert again.usage.total_tokens == reply.usage.total_tokens  # the tokens of reasoning vLLM counts lower in a stream
    assert reply.usage.prompt_tokens == either.tokenize(messages).count
    assert reply.text or reply.reasoning


@pytest.mark.parametrize("options", OPTIONS)
def test_so_it_does_with_other_options(either: AutoGLM, options: str) -> None:
    messages = QUESTIONS["english"]
    assert streamed(either, messages, OPTIONS[options]) == either.chat(messages, **OPTIONS[options])


def test_so_it_does_when_a_stop_string_ends_the_answer(glm: AutoGLM) -> None:
    messages = QUESTIONS["english"]
    whole = glm.chat(messages)
    word = whole.text[12:15]
    reply = glm.chat(messages, stop=word)
    assert whole.text.startswith(reply.text)
    assert (reply.finish_reason, reply.first.stop_reason) == ("stop", word)
    assert streamed(glm, messages, {"stop": word}) == reply


@pytest.mark.parametrize("skip_special_tokens", [False, True])
def test_a_dictated_answer_streams_as_it_is_told_plainly(
    either: AutoGLM, plain: Engine, skip_special_tokens: bool
) -> None:
    words = dictated(plain, TAGGED)
    with either.stream("Hi", skip_special_tokens=skip_special_tokens, **words) as stream:
        assert stream.finish() == either.chat("Hi", skip_special_tokens=skip_special_tokens, **words)


def test_thinking_and_action_are_the_same_with_a_parser_and_without(either: AutoGLM, plain: Engine) -> None:
    reply = either.chat("Hi", **dictated(plain, TAGGED))
    assert (reply.reasoning, reply.text) == ("The task is done.", 'do(action="Back")')
    assert reply.action == Back()
    assert (reply.finish_reason, reply.complete) == ("stop", True)


def test_the_tags_are_seen_although_they_are_special_tokens(glm: AutoGLM, plain: Engine) -> None:
    reply = glm.chat("Hi", **dictated(plain, TAGGED))
    assert reply.raw == TAGGED.removesuffix("</answer>")  # this one ends the turn and is never sent


def test_the_server_says_what_the_tokens_were_spent_on(glm_parser: AutoGLM, plain: Engine) -> None:
    question = "打开 settings " * 100  # longer than a block of the prefix cache
    options = dictated(plain, TAGGED)
    glm_parser.chat(question, **options)
    usage = glm_parser.chat(question, **options).usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.cached_tokens < usage.prompt_tokens
    assert 0 < usage.reasoning_tokens < usage.completion_tokens


def test_the_events_of_a_stream_tell_thinking_from_answer(either: AutoGLM, plain: Engine) -> None:
    with either.stream("Hi", **dictated(plain, TAGGED)) as stream:
        events = list(stream)
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "The task is done."
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == 'do(action="Back")'
    assert events[-1] == Finished("stop")


def test_the_action_is_found_where_the_server_stripped_the_tags(glm: AutoGLM, plain: Engine) -> None:
    options = dictated(plain, '<think>任务完成。</think><answer>do(action="Back")</answer>')
    reply = glm.chat("Hi", skip_special_tokens=True, **options)
    assert (reply.reasoning, reply.text) == ("", '任务完成。do(action="Back")')
    assert reply.action == Back()


def test_the_thinking_can_be_left_out(glm_parser: AutoGLM, plain: Engine) -> None:
    reply = glm_parser.chat("Hi", extra_body={"return_reasoning": False}, **dictated(plain, TAGGED))
    assert (reply.reasoning, reply.text) == ("", 'do(action="Back")')


def test_a_model_that_thinks_against_orders_is_read_all_the_same(glm_parser: AutoGLM, plain: Engine) -> None:
    # Told not to think, the parser takes the whole answer for text; this model's template does not know the switch.
    reply = glm_parser.chat("Hi", thinking=False, **dictated(plain, TAGGED))
    assert (reply.reasoning, reply.text) == ("The task is done.", 'do(action="Back")')
    assert reply.raw.startswith("<think>")


def test_thinking_that_never_ends_is_said_to_be_open(glm_parser: AutoGLM) -> None:
    reply = glm_parser.chat("Open WeChat")
    assert reply.text == ""
    assert reply.reasoning
    assert reply.first.reasoning_open
    assert reply.action_error is not None


def test_history_is_sent_as_the_model_wrote_it(glm: AutoGLM, plain: Engine) -> None:
    reply = glm.chat("Hi", **dictated(plain, TAGGED))
    written = glm.tokenize([user("Hi"), assistant(reply), user("Hi")])
    by_hand = glm.tokenize([user("Hi"), assistant(TAGGED), user("Hi")])
    assert written.tokens == by_hand.tokens


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(64, 64), (112, 224), (720, 1600), (1080, 2400), (2400, 1080), (1440, 3200)])
def test_the_engine_reads_pictures_of_every_size_and_kind(glm: AutoGLM, size: tuple[int, int], kind: str) -> None:
    part = image(screenshot("red", size, kind))
    seen = glm.chat([user(part, "What is this?")], max_tokens=8)
    assert seen.usage is not None
    assert seen.usage.prompt_tokens > glm.tokenize("What is this?").count + 8


def test_it_sees_what_is_in_the_picture(glm: AutoGLM) -> None:
    red, blue = (glm.chat([user(image(screenshot(color)), "What is this?")]) for color in ("red", "blue"))
    assert red != blue


def test_a_model_can_be_asked_by_its_other_name(glm: AutoGLM) -> None:
    assert glm.chat("Hi", model=OTHER_NAME).model == MODEL  # the engine answers with its first name


def test_the_models_are_listed(either: AutoGLM) -> None:
    assert [model.id for model in either.models()] == [MODEL, OTHER_NAME]


def test_ready_is_known(either: AutoGLM) -> None:
    assert either.health()
    either.wait_until_ready(timeout=10)
