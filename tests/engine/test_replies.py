"""What the engine says and what the client makes of it: the same reply streamed or not, in every form."""

from __future__ import annotations

import pytest

from autoglm_client import (
    AutoGLM,
    ChatOptions,
    Finished,
    Launch,
    Message,
    ReasoningDelta,
    Reply,
    Tap,
    TextDelta,
    assistant,
    first_turn,
    image,
    system,
    system_prompt,
    user,
)

from .clients import button, screenshot
from .engine import MODEL, OTHER_NAME

TASK = "Open Settings"
THINKING = "The user wants Settings. I launch it."
ANSWER = 'do(action="Launch", app="Settings")'
TAGGED = f"<think>{THINKING}</think><answer>{ANSWER}</answer>"

QUESTIONS: dict[str, list[Message]] = {
    "english": [user(TASK)],
    "chinese": [user("打开微信,给张三发一条消息:今天晚上一起吃饭吗?")],
    "turns": [system("Be brief."), user("Hi"), assistant("Hello."), user("Go on")],
    "screen": [first_turn("Tap the red button", image(screenshot()), {"current_app": "Settings"})],
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
    word = ", app"
    reply = glm.chat(messages, stop=word)
    assert reply.text == ANSWER.partition(word)[0]
    assert (reply.finish_reason, reply.first.stop_reason) == ("stop", word)
    assert streamed(glm, messages, {"stop": word}) == reply


@pytest.mark.parametrize("skip_special_tokens", [False, True])
def test_so_it_does_with_tags_and_without(either: AutoGLM, skip_special_tokens: bool) -> None:
    options: ChatOptions = {"skip_special_tokens": skip_special_tokens}
    assert streamed(either, [user(TASK)], options) == either.chat(TASK, **options)


def test_thinking_and_action_are_the_same_with_a_parser_and_without(either: AutoGLM) -> None:
    reply = either.chat(TASK)
    assert (reply.reasoning, reply.text) == (THINKING, ANSWER)
    assert reply.action == Launch("Settings")
    assert (reply.finish_reason, reply.complete) == ("stop", True)


def test_the_tags_are_seen_although_they_are_special_tokens(glm: AutoGLM) -> None:
    reply = glm.chat(TASK)
    assert reply.raw == TAGGED.removesuffix("</answer>")  # this one ends the turn and is never sent


def test_the_server_says_what_the_tokens_were_spent_on(glm_parser: AutoGLM) -> None:
    messages = [system(system_prompt()), user(TASK)]  # longer than a block of the prefix cache
    glm_parser.chat(messages)
    usage = glm_parser.chat(messages).usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.cached_tokens < usage.prompt_tokens
    assert 0 < usage.reasoning_tokens < usage.completion_tokens


def test_the_events_of_a_stream_tell_thinking_from_answer(either: AutoGLM) -> None:
    with either.stream(TASK) as stream:
        events = list(stream)
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == THINKING
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == ANSWER
    assert events[-1] == Finished("stop")


def test_the_action_is_found_where_the_server_stripped_the_tags(glm: AutoGLM) -> None:
    reply = glm.chat("打开微信", skip_special_tokens=True)
    assert (reply.reasoning, reply.text) == ("", '用户想要微信，我启动它。do(action="Launch", app="微信")')
    assert reply.action == Launch("微信")


def test_the_thinking_can_be_left_out(glm_parser: AutoGLM) -> None:
    reply = glm_parser.chat(TASK, extra_body={"return_reasoning": False})
    assert (reply.reasoning, reply.text) == ("", ANSWER)


def test_a_model_that_thinks_against_orders_is_read_all_the_same(glm_parser: AutoGLM) -> None:
    # Told not to think, the parser takes the whole answer for text; this model's template does not know the switch.
    reply = glm_parser.chat(TASK, thinking=False)
    assert (reply.reasoning, reply.text) == (THINKING, ANSWER)
    assert reply.raw.startswith("<think>")


def test_thinking_that_never_ends_is_said_to_be_open(glm_parser: AutoGLM) -> None:
    reply = glm_parser.chat(TASK, max_tokens=4)
    assert reply.text == ""
    assert reply.reasoning == "The user wants"
    assert reply.first.reasoning_open
    assert reply.action_error is not None


def test_history_is_sent_as_the_model_wrote_it(glm: AutoGLM) -> None:
    reply = glm.chat(TASK)
    written = glm.tokenize([user("Hi"), assistant(reply), user("Hi")])
    by_hand = glm.tokenize([user("Hi"), assistant(TAGGED), user("Hi")])
    assert written.tokens == by_hand.tokens


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(64, 64), (112, 224), (720, 1600), (1080, 2400), (2400, 1080), (1440, 3200)])
def test_it_sees_pictures_of_every_size_and_kind(glm: AutoGLM, size: tuple[int, int], kind: str) -> None:
    action = glm.chat([user(image(screenshot("red", size, kind)), "Tap the red button")]).action
    assert isinstance(action, Tap)
    assert button(size).holds(*action.at(*size))


def test_a_model_can_be_asked_by_its_other_name(glm: AutoGLM) -> None:
    assert glm.chat("Hi", model=OTHER_NAME).model == MODEL  # the engine answers with its first name


def test_the_models_are_listed(either: AutoGLM) -> None:
    assert [model.id for model in either.models()] == [MODEL, OTHER_NAME]


def test_ready_is_known(either: AutoGLM) -> None:
    assert either.health()
    either.wait_until_ready(timeout=10)
