"""Run by the engine's own interpreter: command lines in, as JSON, what vLLM and Transformers read in them out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any


def vllm_parser() -> Callable[[Sequence[str]], dict[str, Any]]:
    """What ``python -m vllm.entrypoints.openai.api_server`` does with its arguments before it loads anything."""
    cli_args = import_module("vllm.entrypoints.launchers.cli_args")
    flexible = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
    engine_arguments = import_module("vllm.engine.arg_utils").AsyncEngineArgs
    parser = cli_args.make_arg_parser(flexible())

    def parse(arguments: Sequence[str]) -> dict[str, Any]:
        parsed = parser.parse_args(list(arguments))
        cli_args.validate_parsed_serve_args(parsed)
        engine_arguments.from_cli_args(parsed)
        return dict(vars(parsed))

    return parse


def transformers_parser() -> Callable[[Sequence[str]], dict[str, Any]]:
    """What ``transformers serve`` does with its arguments before it loads anything."""
    command = import_module("transformers.cli.transformers").app.commands["serve"]

    def parse(arguments: Sequence[str]) -> dict[str, Any]:
        return dict(command.make_context("serve", list(arguments)).params)

    return parse


PARSERS = {"vllm": vllm_parser, "transformers": transformers_parser}


def main() -> None:
    """Standard input has ``[[engine, arguments], ...]``; the last line of the output has the answers in that order."""
    asked = json.load(sys.stdin)
    parsers = {name: PARSERS[name]() for name in {name for name, _ in asked}}
    answers = [answer(parsers[name], arguments) for name, arguments in asked]
    print("\n" + json.dumps(answers, default=str))


def answer(parse: Callable[[Sequence[str]], dict[str, Any]], arguments: Sequence[str]) -> dict[str, Any]:
    """The parsed values, or ``{"error": ...}`` with what the parser said."""
    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return parse(arguments)
    except (SystemExit, Exception) as error:
        return {"error": f"{error!r} {said.getvalue()}"}


if __name__ == "__main__":
    main()
