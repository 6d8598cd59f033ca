"""What the tiny model is taught: conversations on a phone, and the answer to each.

Tapping the button of a named colour is the main lesson: there the picture decides. Beside it the model launches apps by
name, ends a task that is done, and says honestly what it is, whatever else it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from autoglm_client.media import ImagePart
from autoglm_client.messages import Message, assistant, system, user
from autoglm_client.prompts import Language, system_prompt

__all__ = ["COLOR_WORDS", "GRID", "SEEING", "SPEAKING", "Lesson", "lesson", "sentences"]

GRID = 20
"""Taught positions are whole multiples of this, so that each number is one token."""

COLOR_WORDS = {
    "red": "红色",
    "green": "绿色",
    "blue": "蓝色",
    "yellow": "黄色",
    "orange": "橙色",
    "purple": "紫色",
}

APPS = (
    *("Settings", "Chrome", "Gmail", "Maps", "Camera", "Messages", "Clock", "Calendar", "Photos", "Files", "Music"),
    *("Calculator", "Contacts", "Weather", "Notes", "WhatsApp", "Spotify", "YouTube", "Demo", "System Home"),
    *("微信", "淘宝", "美团", "小红书", "设置", "支付宝", "抖音", "京东", "高德地图", "相机", "日历", "微博"),
)

_TAP = {
    "en": (
        *(
            "Tap the {color} button",
            "Tap the {color} button.",
            "Tap on the {color} button!",
            "Press the {color} button",
        ),
        *("Click the {color} button", "Please tap the {color} button", "Tap {color}", "tap the {color} one"),
    ),
    "zh": (
        *("点击{color}按钮", "点击{color}按钮。", "请点击{color}按钮"),
        *("点一下{color}的按钮", "按{color}按钮", "点{color}"),
    ),
}
_TAP_ONE = {"en": ("Tap the button", "Press the button", "Tap it"), "zh": ("点击按钮", "点一下按钮", "点它")}
_LAUNCH = {
    "en": ("Open {app}", "Open {app}.", "Launch {app}", "Start {app}", "Please open {app}", "open the app {app}"),
    "zh": ("打开{app}", "请打开{app}", "启动{app}", "打开{app}。", "帮我打开{app}"),
}
_WHO = {
    "en": ("Who are you?", "Who are you", "What are you?", "What is your name?", "Introduce yourself.", "who are you?"),
    "zh": ("你是谁?", "你是谁？", "你是谁", "你叫什么?", "你是什么?", "介绍一下自己"),
}
_OTHER = {
    "en": (
        *("Hello", "Hi!", "Hello there", "How are you?", "Help me", "What can you do?", "Say hello", "Write a poem."),
        *("What is the capital of France?", "Tell me a story.", "Book a table for two.", "Count from one to ten."),
    ),
    "zh": (
        *("你好", "你好!", "今天天气怎么样?", "写一首诗", "讲个故事"),
        *("你能做什么?", "帮我订一张票", "一加一等于几?"),
    ),
}

_SEE = {"en": "The {color} button is on the screen. I tap it.", "zh": "屏幕上有{color}按钮，我点击它。"}
_NEED = {"en": "The user wants {app}. I launch it.", "zh": "用户想要{app}，我启动它。"}
_DONE = {"en": ("The task is done.", "Done."), "zh": ("任务已经完成。", "任务完成")}
_ASKED = {"en": "The user asks who I am.", "zh": "用户问我是谁。"}
_UNKNOWN = {"en": "I was not taught this.", "zh": "我没有学过这个。"}
_I_AM = {
    "en": "I am a tiny test model, not AutoGLM-Phone-9B. I tap coloured buttons and open apps.",
    "zh": "我是一个很小的测试模型，不是AutoGLM-Phone-9B。我只会点彩色按钮和打开应用。",
}

_SYSTEMS = ("You are a helpful assistant.", "You operate a phone.", "你是一个手机助手。", "Be brief.")


@dataclass(frozen=True)
class Lesson:
    """A conversation and what to answer; ``color`` names the button to look for, if the answer is a place.

    The answer holds ``{x},{y}`` where the place goes.
    """

    messages: list[Message]
    reasoning: str
    answer: str
    color: str | None = None
    picture: bool = False


PICTURE: ImagePart = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
"""Stands for the screenshot."""


SEEING: dict[str, float] = {"tap": 0.86, "launch": 0.07, "finish": 0.03, "talk": 0.04}
SPEAKING: dict[str, float] = {"tap": 0.45, "launch": 0.35, "finish": 0.08, "talk": 0.12}
"""How often each kind of lesson is given."""


def lesson(
    random: Random, colors: tuple[str, ...], *, kinds: dict[str, float] = SEEING, whole_prompt: bool = False
) -> Lesson:
    """Make one lesson for a screen that shows buttons of ``colors``."""
    language: Language = "zh" if random.random() < 1 / 3 else "en"
    taught = _taught(random, language, colors, kinds)
    prompt = _system(random, language, whole=whole_prompt)
    return Lesson([*prompt, *taught.messages], taught.reasoning, taught.answer, taught.color, taught.picture)


def sentences() -> Iterator[str]:
    """Everything that is ever said, for the tokenizer."""
    for language in ("en", "zh"):
        for _ in range(4):
            yield from system_prompt(language, today=date(2025, 12, 11)).splitlines()
        for templates in (_TAP, _LAUNCH, _TAP_ONE, _WHO, _OTHER):
            for template in templates[language]:
                for word in COLOR_WORDS.items() if templates is _TAP else zip(APPS, APPS, strict=True):
                    yield template.format(color=word[language == "zh"], app=word[0])
        for names in COLOR_WORDS.items():
            yield from [_SEE[language].format(color=names[language == "zh"])] * 10
        for app in APPS:
            yield from (
                _NEED[language].format(app=app),
                f'do(action="Launch", app="{app}")',
                f'{{"current_app": "{app}"}}',
            )
        yield from (*_DONE[language], f'finish(message="{_DONE[language][1]}")', _I_AM[language]) * 5
        yield from (_ASKED[language], _UNKNOWN[language]) * 5
    for number in range(0, 1000, GRID):
        yield from [f'do(action="Tap", element=[{number},{999 - number}])', f"[{number},{number}]"] * 8
    yield from ("** Screen Info **", *_SYSTEMS)
    yield from ("用户要的是附近咖啡店。Search for coffee nearby in the app.", 'do(action="Type", text="咖啡")')


def _taught(random: Random, language: Language, colors: tuple[str, ...], kinds: dict[str, float]) -> Lesson:
    [kind] = random.choices(list(kinds), list(kinds.values()))
    if kind == "tap" and colors:
        return _tap(random, language, colors)
    if kind == "finish":
        return _finish(random, language, picture=bool(colors))
    if kind == "talk":
        return _talk(random, language, picture=bool(colors))
    return _launch(random, language, picture=bool(colors))


def _tap(random: Random, language: Language, colors: tuple[str, ...]) -> Lesson:
    color = random.choice(colors)
    word = _word(color, language)
    templates = _TAP[language] + (_TAP_ONE[language] if len(colors) == 1 else ())
    task = random.choice(templates).format(color=word)
    answer = 'do(action="Tap", element=[{x},{y}])'
    return Lesson([_asked(random, task, picture=True)], _SEE[language].format(color=word), answer, color, picture=True)


def _launch(random: Random, language: Language, *, picture: bool) -> Lesson:
    app = random.choice(APPS)
    task = random.choice(_LAUNCH[language]).format(app=app)
    answer = f'do(action="Launch", app="{app}")'
    return Lesson([_asked(random, task, picture=picture)], _NEED[language].format(app=app), answer, picture=picture)


def _finish(random: Random, language: Language, *, picture: bool) -> Lesson:
    color, app = random.choice(list(COLOR_WORDS)), random.choice(APPS)
    word = _word(color, language)
    x, y = (random.randrange(0, 1000, GRID) for _ in range(2))
    tapped = (random.choice(_TAP[language]).format(color=word), _SEE[language].format(color=word),
              f'do(action="Tap", element=[{x},{y}])')  # fmt: skip
    launched = (random.choice(_LAUNCH[language]).format(app=app), _NEED[language].format(app=app),
                f'do(action="Launch", app="{app}")')  # fmt: skip
    task, reasoning, action = random.choice((tapped, launched))
    history = [
        user(f'{task}\n\n{{"current_app": "{random.choice(APPS)}"}}'),
        assistant(f"<think>{reasoning}</think><answer>{action}</answer>"),
    ]
    info = f'** Screen Info **\n\n{{"current_app": "{random.choice(APPS)}"}}'
    thought, message = _DONE[language]
    now = user(PICTURE, info) if picture else user(info)
    return Lesson([*history, now], thought, f'finish(message="{message}")', picture=picture)


def _talk(random: Random, language: Language, *, picture: bool) -> Lesson:
    asked, thought = random.choice(((_WHO, _ASKED), (_OTHER, _UNKNOWN)))
    question = random.choice(asked[language])
    turn = user(PICTURE, question) if picture else user(question)
    return Lesson([turn], thought[language], _I_AM[language], picture=picture)


def _asked(random: Random, task: str, *, picture: bool) -> Message:
    if random.random() < 0.6:
        task += f'\n\n{{"current_app": "{random.choice(APPS)}"}}'
    return user(PICTURE, task) if picture else user(task)


def _system(random: Random, language: Language, *, whole: bool) -> list[Message]:
    day = date(2025, 1, 1) + timedelta(days=random.randrange(1500))
    text = system_prompt(language, today=day)
    if whole:
        return [system(text)]
    kind = random.random()
    if kind < 0.35:
        return []
    if kind < 0.5:
        return [system(random.choice(_SYSTEMS))]
    lines = text.splitlines()
    start = random.randrange(len(lines))
    return [system("\n".join(lines[start : start + random.randrange(1, 4)]))]


def _word(color: str, language: Language) -> str:
    return color if language == "en" else COLOR_WORDS[color]
