"""The sentences from which the tiny tokenizer learns its words: tasks on a phone, thoughts, and the action grammar.

Byte-level BPE spells whatever is missing, so this list decides how short a text becomes, never what can be said.
"""

from __future__ import annotations

from itertools import product

__all__ = ["sentences"]

_APPS = ("微信", "淘宝", "美团", "小红书", "设置", "Settings", "Chrome", "Gmail", "Maps", "Camera", "Messages")

_PLACES = ("左上角", "右上角", "中间", "底部", "at the top left", "at the top right", "in the middle", "at the bottom")

_THINGS = ("搜索框", "发送按钮", "返回按钮", "输入框", "the search box", "the send button", "the menu", "the text")

_TASKS = (
    "打开{app}",
    "在{app}里搜索附近的咖啡店",
    "用{app}给张三发一条消息:今天晚上一起吃饭吗?",
    "Open {app}",
    "Search for coffee nearby in {app}",
    "Open {app} and turn on Wi-Fi",
    "Turn off Bluetooth in {app}",
)

_THOUGHTS = (
    "用户想要打开{app},我需要先启动它。",
    "当前在{app}的首页,我需要点击{place}的{thing}。",
    "任务已经完成,我可以结束了。",
    "The user wants to open {app}, so I launch it first.",
    "I am in {app} now. I can see {thing} {place}, so I tap it.",
    "The page is still loading, so I wait for a few seconds.",
    "The task is done.",
)

_ACTIONS = (
    'do(action="Launch", app="{app}")',
    'do(action="Tap", element=[500,320])',
    'do(action="Tap", element=[87,945], message="重要操作")',
    'do(action="Type", text="附近的咖啡店")',
    'do(action="Type_Name", text="张三")',
    'do(action="Swipe", start=[499,702], end=[499,218])',
    'do(action="Long Press", element=[613,640])',
    'do(action="Double Tap", element=[351,468])',
    'do(action="Interact")',
    'do(action="Note", message="True")',
    'do(action="Call_API", instruction="总结当前页面的内容")',
    'do(action="Take_over", message="请登录")',
    'do(action="Wait", duration="3 seconds")',
    'do(action="Back")',
    'do(action="Home")',
    'finish(message="任务完成")',
    'finish(message="The task is done.")',
)

_FRAMES = (
    '{{"current_app": "{app}"}}',
    "** Screen Info **",
    "今天的日期是: 2025年12月11日 星期四",
    "The current date: 2025-12-11, Thursday",
    "You are a helpful assistant. 你是谁? Who are you?",
)


def sentences() -> list[str]:
    """Every template filled with every word, in a fixed order."""
    templates = (*_TASKS, *_THOUGHTS, *_ACTIONS, *_FRAMES)
    words = product(_APPS, zip(_PLACES, _THINGS, strict=True))
    return [
        template.format(app=app, place=place, thing=thing) for app, (place, thing) in words for template in templates
    ]
