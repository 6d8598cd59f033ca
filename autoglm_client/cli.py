"""The command ``autoglm``: ask a question, see a demo, check a server, start one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from server_stub.errors import ServeError
from server_stub.serve import add_arguments as add_serve_arguments

from ._check import check
from ._terminal import Terminal, visible
from .actions import Action, DoubleTap, LongPress, Swipe, Tap
from .client import AutoGLM
from .defaults import __version__
from .errors import AutoGLMError, ConfigurationError
from .events import ActionReady, ReasoningDelta, RepetitionDetected, TextDelta, TextWasReasoning
from .media import image, image_size
from .messages import Message, first_turn, system, user
from .prompts import system_prompt
from .reply import Reply
from .wire import SAMPLING

__all__ = ["main"]

DEMO_TASK = "Tap the green button"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; errors are one line on stderr and exit status 1."""
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no Chinese is no reason to fail
    try:
        status: int = options.run(options)
        if sys.stdout is not None:  # it was closed before we were started
            sys.stdout.flush()
    except AutoGLMError as error:
        return _fail(_one_line(error))
    except ServeError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _drop_unwritten()
        return 0
    except OSError as error:
        _drop_unwritten()
        return _fail(str(error))
    return status


def _drop_unwritten() -> None:
    """Python would try once more at its exit, and end with a status of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> int:
    print(f"autoglm: {visible(message)}", file=sys.stderr)  # noqa: T201
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="autoglm", description="Talk to AutoGLM-Phone-9B.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="ask | demo | check | serve")

    server = argparse.ArgumentParser(add_help=False)
    server.add_argument("--base-url", help="the server (default: AUTOGLM_BASE_URL, or a vLLM on this machine)")
    server.add_argument("--model", help="the model's name there (default: AUTOGLM_MODEL)")
    server.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="default: %(default)s")
    server.epilog = "The API key is read from AUTOGLM_API_KEY."

    ask = commands.add_parser("ask", parents=[server], help="ask a question, or give a task with a screenshot")
    ask.add_argument("question", help="what to ask; - reads it from standard input")
    ask.add_argument(
        "--image", metavar="FILE", type=_file, help="a screenshot: the question is then a task for the phone"
    )
    ask.add_argument("--app", default="System Home", help="the app on the screenshot (default: %(default)s)")
    ask.add_argument("--prompt", metavar="FILE", help="a system prompt of your own")
    ask.add_argument("--json", action="store_true", help="print the reply as one line of JSON")
    ask.set_defaults(run=_ask)

    demo = commands.add_parser("demo", help="see the main job done, without a GPU")
    demo.add_argument(
        "--engine",
        default="scripted",
        choices=("scripted", "vllm"),
        help="vllm: a tiny model that really sees, where vLLM is installed (default: a script, without any model)",
    )
    demo.set_defaults(run=_demo)

    checked = commands.add_parser("check", parents=[server], help="find out what works on a server, and what to do")
    checked.set_defaults(run=_check)

    add_serve_arguments(commands.add_parser("serve", help="serve the model; first of all, find out what is missing"))
    return parser


def _file(path: str) -> str:
    """The path of a picture, which is read here; an address is one for the server to fetch, and nobody allowed it."""
    if path.lower().startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{path!r} is an address; download it, and give the file")
    return path


def _ask(options: argparse.Namespace) -> int:
    question = sys.stdin.read() if options.question == "-" else options.question
    messages = _messages(question, options.image, options.app, options.prompt)
    with _client(options) as glm:
        if options.json:
            print(visible(json.dumps(_as_json(glm.chat(messages)), ensure_ascii=False)))  # noqa: T201
        else:
            _show(glm, messages, options.image)
    return 0


def _demo(options: argparse.Namespace) -> int:
    from server_stub.screen import Button, draw_screen

    screen = draw_screen(1080, 2160, [Button("green", 60, 160, 320, 120), Button("red", 600, 1500, 320, 120)])
    messages = [system(system_prompt()), first_turn(DEMO_TASK, image(screen), {"current_app": "Demo"})]
    terminal = Terminal(sys.stdout)
    with _demo_client(options.engine) as glm:
        terminal.line(f"Task      {DEMO_TASK} (on a drawn screen of 1080 x 2160 pixels)")
        _show(glm, messages, screen)
    terminal.line("")
    kind = "scripted, it has no model" if options.engine == "scripted" else "real, its model a tiny test model"
    terminal.line(
        f'This server is {kind}. With AutoGLM-Phone-9B: autoglm ask "Open Wi-Fi" --image screen.png '
        "--base-url http://HOST:8000/v1"
    )
    return 0


@contextmanager
def _demo_client(engine: str) -> Iterator[AutoGLM]:
    if engine == "scripted":
        from server_stub import ScriptedServer

        with ScriptedServer(pace=0.03) as scripted, AutoGLM(scripted.base_url, options=SAMPLING) as glm:
            yield glm
    else:
        from server_stub import Server

        server = Server(profile="tiny", port=0, report=lambda line: print(line, file=sys.stderr))  # noqa: T201
        with server, server.client(options=SAMPLING) as glm:  # which knows the server's key and model
            yield glm


def _check(options: argparse.Namespace) -> int:
    with _client(options) as glm:
        terminal = Terminal(sys.stdout)
        terminal.line(f"{glm.base_url}, model {glm.model}")
        findings = check(glm)
        for finding in findings:
            terminal.finding(finding.state, f"{finding.name:12}  {finding.detail}")
            if finding.remedy:
                terminal.line(f"      {'':12}  -> {finding.remedy}")
    return int(any(finding.state == "FAIL" for finding in findings))


@contextmanager
def _client(options: argparse.Namespace) -> Iterator[AutoGLM]:
    with AutoGLM(options.base_url, model=options.model, timeout=options.timeout, options=SAMPLING) as glm:
        yield glm


def _messages(question: str, screenshot: str | None, app: str, prompt: str | None) -> list[Message]:
    if screenshot is None and prompt is None:
        return [user(question)]
    chinese = any("\u4e00" <= character <= "\u9fff" for character in question)
    instructions = system_prompt("zh" if chinese else "en", source=Path(prompt) if prompt else None)
    turn = first_turn(question, image(screenshot), {"current_app": app}) if screenshot else user(question)
    return [system(instructions), turn]


def _show(glm: AutoGLM, messages: list[Message], screenshot: str | bytes | None) -> None:
    """Print an answer as it comes: thinking, text, and the action with its place on the screen."""
    terminal = Terminal(sys.stdout)
    with glm.stream(messages) as stream:
        for event in stream:
            match event:
                case ReasoningDelta(text):
                    terminal.write("Thinking", text, dim=True)
                case TextDelta(text):
                    terminal.write("Answer", text)
                case ActionReady(action):
                    terminal.line(f"Action    {action}")
                    if screenshot is not None and (place := _in_pixels(action, *image_size(screenshot))):
                        terminal.line(f"Pixels    {place}")
                case TextWasReasoning():
                    terminal.line("Note      that was thinking; the answer follows")
                case RepetitionDetected():
                    terminal.line("Note      the model repeats itself")
        terminal.line("")
    for note in _notes(stream.reply):
        terminal.line(f"Note      {note}")


def _notes(reply: Reply) -> Iterator[str]:
    error = reply.action_error
    if reply.finish_reason == "length":
        yield "the answer was cut: it reached max_tokens"
    elif error is not None and error.code != "no_action":
        yield f"no action: {error}"
    for call in reply.tool_calls:
        yield f"the model calls the tool {call.name}({call.arguments})"


def _in_pixels(action: Action, width: int, height: int) -> str:
    match action:
        case Tap() | LongPress() | DoubleTap():
            return str(action.at(width, height))
        case Swipe():
            return " to ".join(map(str, action.at(width, height)))
    return ""


def _as_json(reply: Reply) -> dict[str, Any]:
    action, error = reply.action, reply.action_error
    return {
        "text": reply.text,
        "reasoning": reply.reasoning,
        "action": {"name": action.name, **action.params()} if action else None,
        "action_error": error.code if error else None,
        "finish_reason": reply.finish_reason,
        "model": reply.model,
        "usage": asdict(reply.usage) if reply.usage else None,
        "seconds": round(reply.timing.total, 3),
    }


def _one_line(error: AutoGLMError) -> str:
    words = " ".join(str(error).split())
    hint = " (`autoglm demo` works without a server)" if isinstance(error, ConfigurationError) else ""
    return words + (hint if "base_url" in words else "")
