"""The command line of the launcher: ``autoglm serve`` and ``python -m server_stub``."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, get_args
from urllib.parse import urlsplit

from .errors import EngineFailed, ServeError
from .machine.gpus import memory_of_gpus
from .options import EngineName, ServeOptions
from .preflight import preflight
from .process import Server
from .profiles import PROFILES, Profile, profile_for
from .supervisor.records import running

__all__ = ["add_arguments", "options_from", "run"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a log's last lines could hold the terminal's own commands
KEY_NAMES = ("AUTOGLM_API_KEY", "VLLM_API_KEY")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options; those left out are the profile's."""
    parser.description = "Serve AutoGLM-Phone-9B. Ctrl-C stops it and all that it started."
    parser.epilog = f"A key that the server shall ask for is read from {' or '.join(KEY_NAMES)}."
    parser.usage = "%(prog)s [--profile NAME] [options] [-- ENGINE_OPTION ...]"
    parser.set_defaults(run=run)
    parser.add_argument("--profile", choices=PROFILES, help="default: by the GPUs of this machine")
    _add_what(parser.add_argument_group("what to serve"))
    _add_where(parser.add_argument_group("where"))
    _add_size(parser.add_argument_group("how large"))
    _add_start(parser.add_argument_group("how to start"))
    _add_others(parser.add_argument_group("instead of starting"))
    parser.add_argument("extra", nargs="*", metavar="ENGINE_OPTION", help="after --, goes to the engine as it is")


class _Arguments(Protocol):
    """A group of an argparse parser."""

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action: ...


def _add_what(group: _Arguments) -> None:
    group.add_argument("--engine", choices=get_args(EngineName))
    group.add_argument("--model", help="a hub id, or the folder of a checkpoint")
    group.add_argument("--revision", help="of a hub id: a branch, a tag, a commit")
    group.add_argument("--served-name", dest="served_names", action="append", metavar="NAME")
    group.add_argument("--quantization", help="fp8 ...; of the engine transformers: bnb-4bit")
    group.add_argument("--load-format", help="dummy: random weights, to try a machine")
    group.add_argument("--dtype")
    group.add_argument("--reasoning-parser", help="the server tells thinking from answer; our client does it anyway")
    group.add_argument("--tool-parser")


def _add_where(group: _Arguments) -> None:
    group.add_argument("--host", help="others can reach the server only with a key; one is made if none is set")
    group.add_argument("--port", type=int, help="0 takes a free one")
    group.add_argument("--media-folder", type=Path, help="let requests name pictures of this folder by file://")


def _add_size(group: _Arguments) -> None:
    group.add_argument("--tensor-parallel", type=int, metavar="GPUS")
    group.add_argument("--pipeline-parallel", type=int, metavar="STAGES")
    group.add_argument("--nodes", type=int, help="machines of a Ray cluster that one copy of the model spans")
    group.add_argument("--replicas", type=int, help="copies behind one address, by Ray Serve")
    group.add_argument("--max-replicas", type=int, metavar="REPLICAS", help="to which Ray may add copies under load")
    group.add_argument("--context", type=int, metavar="TOKENS")
    group.add_argument("--max-sequences", type=int, help="answers generated at the same time")
    group.add_argument("--max-queued", type=int, metavar="REQUESTS", help="that may wait; more are told to come later")
    group.add_argument("--gpu-memory", type=float, metavar="SHARE", help="of each GPU, 0 to 1")
    group.add_argument("--kv-cache-gib", type=int, metavar="GIB", help="of main memory, on a CPU")
    group.add_argument("--images", type=int, help="pictures in one prompt")
    group.add_argument("--max-pixels", type=int, help="of a picture, counted twice")
    group.add_argument("--eager", action="store_true", default=None, help="do not compile: starts sooner, runs slower")
    group.add_argument("--no-prefix-caching", dest="prefix_caching", action="store_false", default=None)


def _add_start(group: _Arguments) -> None:
    group.add_argument(
        "--python", type=Path, metavar="FILE", help="of the engine's environment (default: AUTOGLM_ENGINE_PYTHON)"
    )
    group.add_argument("--force", action="store_true", help="start although a check failed")
    group.add_argument("--log", type=Path, metavar="FILE")
    group.add_argument(
        "--timeout", type=float, default=900.0, metavar="SECONDS", help="until it must be ready (default: %(default)s)"
    )


def _add_others(group: argparse._ArgumentGroup) -> None:
    one = group.add_mutually_exclusive_group()
    one.add_argument("--check", action="store_true", help="look at this machine")
    one.add_argument("--dry-run", action="store_true", help="print the command")
    one.add_argument("--env", action="store_true", help="print what its environment has beyond yours")
    one.add_argument("--status", action="store_true", help="list the servers that run")
    one.add_argument("--stop", action="store_true", help="stop them; with --port, that one")


def run(arguments: argparse.Namespace) -> int:
    """Do what the options say; returns the exit status: 0 after a stop that was asked for, 1 when something failed."""
    try:
        if arguments.status:
            return _status()
        if arguments.stop:
            return _stop(arguments.port)
        return _serve(arguments)
    except EngineFailed as error:
        _say(error.log_tail)
        _say(f"autoglm serve: {error}")
    except ServeError as error:
        _say(f"autoglm serve: {error}")
    return 1


def _serve(arguments: argparse.Namespace) -> int:
    server = Server(
        options_from(arguments),
        python=arguments.python,
        log=arguments.log,
        timeout=arguments.timeout,
        force=arguments.force,
        report=_say,
    )
    for note in server.command.notes:
        _say(f"note: {note}")
    if arguments.dry_run:
        print(server.command)
    elif arguments.env:
        print(*server.command.shown_environment(), sep="\n")
    elif arguments.check:
        return _check(server)
    else:
        return _run(server)
    return 0


def options_from(arguments: argparse.Namespace) -> ServeOptions:
    """The profile's options with the changes of the command line."""
    if arguments.extra and not arguments.extra[0].startswith("-"):
        raise ServeError(f"{arguments.extra[0]!r} is no option; a profile is named by --profile")
    names = {field.name for field in fields(ServeOptions)}
    changes = {name: value for name, value in vars(arguments).items() if name in names and value not in (None, [], ())}
    for name in ("served_names", "extra"):
        if name in changes:
            changes[name] = tuple(changes[name])
    return _profile(arguments.profile).options(api_key=_key(), **changes)


def _profile(name: str | None) -> Profile:
    if name is not None:
        return PROFILES[name]
    found = profile_for(memory_of_gpus())
    if found is None:
        raise ServeError(
            "this machine has no GPU that is large enough for AutoGLM-Phone-9B: `autoglm serve --profile tiny` serves "
            "a tiny test model on any CPU, `autoglm demo` needs no model; --profile names another one all the same"
        )
    return found


def _check(server: Server) -> int:
    findings = preflight(server.options, server.python, server.log)
    for finding in findings:
        print(finding)
    return int(any(finding.state == "FAIL" for finding in findings))


def _run(server: Server) -> int:
    """Serve until somebody stops it: that is success, but not before it was ready."""
    status = 130
    with _signals_interrupt():
        try:
            with server:
                status = 0
                _introduce(server)
                server.wait_for_exit()
        except KeyboardInterrupt:
            pass
    _say("stopped")
    return status


def _introduce(server: Server) -> None:
    _say(f"ready: {server.base_url} serves {_names(server.options)}")
    _say(f"log: {server.log}")
    if server.api_key and server.api_key != _key():
        _say(f"API key, made for this run and shown this once: {server.api_key}")


def _names(options: ServeOptions) -> str:
    """The names that requests may give."""
    names = options.served_names
    return ", ".join(names if options.request_model in names else (options.request_model,))


def _key() -> str | None:
    return next((os.environ[name] for name in KEY_NAMES if os.environ.get(name)), None)


def _status() -> int:
    servers = running()
    for server in servers:
        print(server)
    if not servers:
        print("no server runs")
    return 0


def _stop(port: int | None) -> int:
    servers = [server for server in running() if port in (None, urlsplit(server.url).port)]
    for server in servers:
        server.stop()
        print(f"stopped {server}")
    if not servers:
        print("no server runs" + (f" on port {port}" if port else ""))
    return int(not servers)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the server as Ctrl-C does, also where a shell started us with SIGINT ignored."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` means it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    try:
        sys.stderr.write(_CONTROL.sub("�", line) + "\n")  # at once: print() may be interrupted before the line's end
        sys.stderr.flush()
    except OSError:  # a terminal that has gone, or `head`, stops no server; nor may Python fail at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
