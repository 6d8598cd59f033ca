"""The rules of the script: a chat request in, always the same answer out.

The question is the last user message, without the screen information that follows the task. A user message with
``<tool_response>{"content": ...}</tool_response>`` in it is a tool's. In this order:

==============================================  ====================================================================
the request                                     the answer
==============================================  ====================================================================
``response_format``, ``structured_outputs``     a value filled from the schema, the pattern or the choices
a structural tag (in one of these two)          text of that form: thinking where it may be, then calls as below where
                                                it has tags for them, else the object or what would be said anyway
tools, and the last message is the user's       a call: of the tool named in the question, else of the first one; of
                                                all of them for "both", "in parallel", 同时, 分别
the last message is a tool's                    what the tool said
"who are you", 你是谁                            who it is: a script standing in for the model
"think long", 仔细想                             several hundred tokens of thinking
"loop", 循环                                     one sentence over and over, until ``max_tokens``
no task, only the next screen                   ``finish(message=...)``
"open X", 打开 X, type, swipe, wait, tap,        that action, in this order of preference
finish, log in, back, home
a picture                                       ``Tap``, 100 pixels from its left edge and 200 from its top
anything else                                   a few words of chat
==============================================  ====================================================================
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .filling import Hints, fill, matching
from .pictures import Size
from .prompt import Prompt, plain_text
from .refusal import Refusal
from .structure import Script, structure_of, write

__all__ = ["Answer", "ToolCall", "respond", "tap_point"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool, its arguments as JSON."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says: raw text with its tags, then tool calls; ``loop`` is repeated until ``max_tokens``."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    loop: str = ""


def respond(request: dict[str, Any], prompt: Prompt, *, parser: bool) -> Answer:
    """Answer by the script; with a reasoning ``parser`` on the server a constrained answer begins with thinking."""
    question = _Question.of(request, prompt)
    constrained = _structured(request, question, parser=parser)
    if constrained is None:
        constrained = _constrained(request, question)
    answer = _call(request, question) or _said(question) if constrained is None else Answer(constrained)
    if parser and (constrained is not None or answer.tool_calls):
        answer = Answer(f"<think>{question.format_thinking}</think>{answer.text}", answer.tool_calls)
    if (request.get("chat_template_kwargs") or {}).get("enable_thinking", True) is False:
        answer = Answer(re.sub(r"<think>.*?</think>\n?", "", answer.text, flags=re.DOTALL), answer.tool_calls)
    return answer


def tap_point(size: Size) -> tuple[int, int]:
    """Where the script taps a picture, in thousandths: 100 pixels from the left and 200 from the top, or the middle.

    ``x = min(999, round(1000 * min(100, width // 2) / width))``, and ``y`` likewise with 200 and the height.
    """
    x, y = (
        min(999, round(1000 * min(pixels, side // 2) / side)) for pixels, side in zip((100, 200), size, strict=True)
    )
    return x, y


@dataclass(frozen=True, slots=True)
class _Question:
    text: str
    picture: Size | None
    tool_said: str | None
    later_step: bool
    chinese: bool

    @classmethod
    def of(cls, request: dict[str, Any], prompt: Prompt) -> _Question:
        said = [(it["role"], plain_text(it)) for it in request["messages"] if it.get("role") in ("user", "tool")]
        said = [("tool", results) if (results := _results(text)) else (role, text) for role, text in said]
        tasks = [_task(text) for role, text in said if role == "user"] or [""]
        tool_said = said[-1][1] if said and said[-1][0] == "tool" else None
        later_step = len(tasks) > 1 and not tasks[-1]  # nothing but the next screen
        chinese = re.search(r"[\u3400-\u9fff]", tasks[0] if later_step else tasks[-1]) is not None
        return cls(tasks[-1], prompt.last_image, tool_said, later_step, chinese)

    @property
    def format_thinking(self) -> str:
        """What is thought before an answer whose form is given."""
        return self.either("用户要的是固定格式的回答。", "The answer has to follow the given format.")

    def either(self, chinese: str, english: str) -> str:
        """Choose the wording in the language of the question."""
        return chinese if self.chinese else english


def _task(text: str) -> str:
    """Drop the screen information: a line of JSON, with or without its title."""
    return text.split("\n\n{")[0].strip().removesuffix("** Screen Info **").strip()


def _results(text: str) -> str:
    """What tools said in a user message, a line each; empty when it is none of theirs."""
    found = re.findall(r"<tool_response>(.*?)</tool_response>", text, re.DOTALL)
    return "\n".join(_result(it) for it in found)


def _result(written: str) -> str:
    try:
        return str(json.loads(written)["content"])
    except (ValueError, LookupError, TypeError):
        return written


def _structured(request: dict[str, Any], question: _Question, *, parser: bool) -> str | None:
    """Write the text that a structural tag asks for; with a ``parser``, the thinking is over when it begins."""
    form = structure_of(request)
    if form is None:
        return None
    calls = question.tool_said is None
    thinking, _, said = _said(question).text.removeprefix("<think>").partition("</think>")
    script = Script(
        hints=Hints.of(question.text),
        thinking="" if parser else question.format_thinking if calls else thinking,
        said=said,
        calls=calls,
        pick=lambda names, several: _picked(names, question, several=several),
    )
    return write(form, script)


def _constrained(request: dict[str, Any], question: _Question) -> str | None:
    """Write the text that the request's schema, pattern or choice asks for; None if it asks for none."""
    given = request.get("structured_outputs") or {}
    form = request.get("response_format") or {}
    if choices := given.get("choice"):
        return next((it for it in choices if it.lower() in question.text.lower()), str(choices[0]))
    if regex := given.get("regex"):
        return matching(regex)
    if given.get("grammar"):
        raise Refusal("Failed to transform the grammar: the scripted server knows no grammars.")
    if (schema := given.get("json")) is not None:
        schema = json.loads(schema) if isinstance(schema, str) else schema
    elif form.get("type") == "json_schema":
        wrapped = form["json_schema"]
        schema = wrapped.get("schema", wrapped.get("json_schema", {}))
    elif form.get("type") == "json_object" or given.get("json_object"):
        schema = {"type": "object", "properties": {key: {"type": "string"} for key in _keys(question.text)}}
    else:
        return None
    return _json(fill(schema, Hints.of(question.text)))


def _keys(text: str) -> list[str]:
    """Find the keys that a question wants in its JSON: in backticks, or in quotes before the word "keys"."""
    found = re.findall(r"`(\w+)`|[\"'](\w+)[\"'](?=[^.!?\n]*\bkeys?\b)", text)
    return ["".join(it) for it in found] or ["answer"]


def _call(request: dict[str, Any], question: _Question) -> Answer | None:
    """Call tools: where it is forced, or where they are offered and the user has the last word."""
    tools = [tool["function"] for tool in request.get("tools") or ()]
    choice = request.get("tool_choice") or "auto"
    if not tools or choice == "none" or (choice == "auto" and question.tool_said is not None):
        return None
    by_name = {tool["name"]: tool for tool in reversed(tools)}
    named = [choice["function"]["name"]] if isinstance(choice, dict) else []
    several = not named and request.get("parallel_tool_calls") is not False
    picked = _picked(named or [tool["name"] for tool in tools], question, several=several)
    return Answer(tool_calls=tuple(_filled(by_name[name], hints) for name, hints in picked))


def _picked(names: list[str], question: _Question, *, several: bool) -> list[tuple[str, Hints]]:
    """Choose the tools to call: the one that is named, or several if that is wanted, with what is to go into each."""
    hints = Hints.of(question.text)
    if not several or not re.search(r"\bboth\b|\bin parallel\b|同时|分别", question.text, re.IGNORECASE):
        return [(_named(names, question.text), hints)]
    if len(names) > 1:
        return [(name, hints) for name in names]
    numbers = hints.numbers[-2:] or [1.0, 2.0]  # the same tool for each number, or twice
    return [(names[0], Hints([it], hints.quoted, hints.text)) for it in numbers]


def _named(names: list[str], text: str) -> str:
    words = text.lower()
    return next((it for it in names if it.lower() in words or _spoken(it) in words), names[0])


def _spoken(name: str) -> str:
    return name.lower().replace("_", " ")


def _filled(tool: dict[str, Any], hints: Hints) -> ToolCall:
    return ToolCall(tool["name"], _json(fill(tool.get("parameters") or {"type": "object"}, hints)))


def _said(question: _Question) -> Answer:
    if question.tool_said is not None:
        return _thought(
            question.either("工具已经回答。", "The tool has answered."),
            question.either(f"工具的结果：{question.tool_said}", f"The tool says: {question.tool_said}"),
        )
    if question.later_step:
        return _finish(question, None)
    for pattern, rule in _RULES:
        if (found := pattern.search(question.text)) and (answer := rule(question, found)):
            return answer
    words = question.text[:60]
    return _tap(question, None) or _thought(
        question.either("用户在聊天。", "The user is chatting."),
        question.either(f"我收到了：{words}", f"I have read your message: {words}"),
    )


def _thought(thinking: str, answer: str) -> Answer:
    """Raw text as the model writes it: ``</answer>`` is the token that ends it, and is never part of the text."""
    return Answer(f"<think>{thinking}</think>\n<answer>{answer}")


def _who(question: _Question, _: re.Match[str]) -> Answer:
    return _thought(
        question.either("用户问我是谁。", "The user asks who I am."),
        question.either(
            "我是脚本服务器，代替 AutoGLM-Phone-9B 回答：这里没有真正的模型。",
            "I am the scripted server that stands in for AutoGLM-Phone-9B: there is no model behind these words.",
        ),
    )


def _long(question: _Question, _: re.Match[str]) -> Answer:
    step = question.either(
        "第 {} 步：我再看一遍屏幕，还没有决定。\n", "Step {}: I look at the screen again, not decided yet.\n"
    )
    steps = "".join(step.format(number) for number in range(1, 41))
    return _thought(steps, question.either("我想好了。", "I have thought about it."))


def _loop(question: _Question, _: re.Match[str]) -> Answer:
    sentence = question.either("实际上，我应该点击弹窗外的区域。", "The user wants me to interact with the phone. ")
    return Answer("<think>", loop=sentence)


def _do(name: str, **arguments: object) -> str:
    written = [f'do(action="{name}"'] + [f"{key}={_literal(value)}" for key, value in arguments.items()]
    return ", ".join(written) + ")"


def _literal(value: object) -> str:
    return f"[{value[0]},{value[1]}]" if isinstance(value, tuple) else _json(value)


def _launch(question: _Question, found: re.Match[str]) -> Answer:
    app = _name(found)
    return _thought(question.either(f"我需要打开{app}。", f"I need the app {app}."), _do("Launch", app=app))


def _type(question: _Question, found: re.Match[str]) -> Answer:
    return _thought(question.either("我输入文字。", "I type the text."), _do("Type", text=_name(found, whole=True)))


def _swipe(question: _Question, found: re.Match[str]) -> Answer:
    way = next(filter(None, found.groups())).lower()
    ends = {"up": (500, 800, 500, 200), "down": (500, 200, 500, 800), "left": (800, 500, 200, 500)}
    x, y, to_x, to_y = ends.get({"上": "up", "下": "down", "左": "left"}.get(way, way), (200, 500, 800, 500))
    return _thought(
        question.either("我滑动屏幕。", "I swipe the screen."), _do("Swipe", start=(x, y), end=(to_x, to_y))
    )


def _wait(question: _Question, found: re.Match[str]) -> Answer:
    seconds = found.group("seconds") or "2"
    return _thought(question.either("我等一会儿。", "I wait a moment."), _do("Wait", duration=f"{seconds} seconds"))


def _finish(question: _Question, _: re.Match[str] | None) -> Answer:
    message = question.either("任务完成。", "The task is done.")
    return _thought(message, f"finish(message={_json(message)})")


def _take_over(question: _Question, _: re.Match[str]) -> Answer:
    message = question.either("请您登录。", "Please log in.")
    return _thought(question.either("这需要用户。", "This needs the user."), _do("Take_over", message=message))


def _tap(question: _Question, found: re.Match[str] | None) -> Answer | None:
    """Tap where `tap_point` says; "long press" and "double tap" make it that. Without a picture, it is just chat."""
    if question.picture is None:
        return None
    how = found.group(0).lower() if found else ""
    name = "Long Press" if how in ("long press", "长按") else "Double Tap" if how in ("double tap", "双击") else "Tap"
    thinking = question.either("目标在左上方。", "The target is at the upper left.")
    return _thought(thinking, _do(name, element=tap_point(question.picture)))


def _plain(name: str, chinese: str, english: str) -> _Rule:
    return lambda question, _: _thought(question.either(chinese, english), _do(name))


def _name(found: re.Match[str], *, whole: bool = False) -> str:
    """Take what follows the verb, without quotes and final stop, and unless ``whole`` only up to the next clause."""
    text = next(filter(None, found.groups()), "").split("\n")[0].strip()
    if not whole:
        text = re.split(r"[,，;；。]|\s+(?:and|then|app|to)\b|然后|并|应用", text, maxsplit=1)[0]
    return text.strip(" 。.!！?？\"'“”「」")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _rule(pattern: str, rule: _Rule) -> tuple[re.Pattern[str], _Rule]:
    return re.compile(pattern, re.IGNORECASE), rule


_Rule = Callable[[_Question, re.Match[str]], Answer | None]
_RULES = [
    _rule(r"who are you|what are you|your name|你是谁|你叫什么|介绍.{0,4}自己", _who),
    _rule(r"think (?:very )?(?:long|hard)|long thinking|仔细想|想久一点|长考", _long),
    _rule(r"\bloop\b|repeat for ?ever|循环", _loop),
    _rule(r"\b(?:open|launch|start)\s+(?:the\s+)?(.+)|(?:打开|启动|运行)\s*(.+)", _launch),
    _rule(r"\btype\s+(.+)|输入\s*(.+)", _type),
    _rule(r"\b(?:swipe|scroll)\s+(up|down|left|right)|([上下左右])[滑划]|[滑划]动?到?向?([上下左右])", _swipe),
    _rule(r"\bwait\b(?:\s+(?:for\s+)?(?P<seconds>\d+))?|等(?:待|一)", _wait),
    _rule(r"long press|double tap|长按|双击", _tap),
    _rule(r"\b(?:tap|click)\b|\bpress\b(?! (?:the )?(?:back|home))|点击|按下", _tap),
    _rule(r"\b(?:done|finish(?:ed)?)\b|完成|结束", _finish),
    _rule(r"\b(?:take over|log ?in)\b|登录|验证码", _take_over),
    _rule(r"\b(?:go\s+)?back\b|返回|后退", _plain("Back", "我返回上一页。", "I go back.")),
    _rule(r"\bhome\b|主屏|桌面", _plain("Home", "我回到主屏幕。", "I go to the home screen.")),
]
