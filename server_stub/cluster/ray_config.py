"""The options as Ray Serve LLM takes them, as plain data: one model, its replicas, and a file for ``serve deploy``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..command import SECRETS, Command
from ..engines.vllm import VLLM
from ..errors import ServeError
from ..options import ServeOptions

__all__ = ["engine_arguments", "llm_config", "serve_file", "settings"]

APPLICATION = "autoglm"

# What Ray's ingress does in vLLM's place, or Ray decides by itself; everything else vLLM gets as it would from us.
_OF_THE_SERVER = frozenset(
    {
        *("model", "served_model_name", "host", "port", "enable_request_id_headers", "disable_fastapi_docs"),
        *("distributed_executor_backend", "nnodes", "node_rank", "master_addr", "master_port", "headless"),
    }
)
_LISTS = frozenset({"allowed_media_domains"})
_WORDS = frozenset({"revision"})  # a commit's name may look like a number


def llm_config(options: ServeOptions) -> dict[str, Any]:
    """The arguments of Ray's ``LLMConfig``."""
    _check(options)
    engine = _one_vllm(options)
    return {
        "model_loading_config": {"model_id": options.served_names[0], "model_source": _source(options)},
        "engine_kwargs": engine_arguments(engine.argv),
        "deployment_config": _deployment(options),
        "placement_group_config": _placement(options),
        "runtime_env": {"env_vars": _environment(engine)},
    }


def serve_file(options: ServeOptions) -> str:
    """A file for ``serve deploy`` on a cluster that is there: YAML, written as the JSON that every YAML reader takes.

    It holds no key, because Ray Serve checks none: so it is refused for an address that others can reach.
    """
    if not options.is_local:
        raise ServeError(
            f"host={options.host!r}: Ray's own proxy checks no API key; serve on 127.0.0.1, behind one that does"
        )
    application = {
        "name": APPLICATION,
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [llm_config(options)]},
    }
    file = {
        "proxy_location": "EveryNode",
        "http_options": {"host": options.host, "port": options.port},
        "applications": [application],
    }
    return json.dumps(file, indent=2) + "\n"


def settings(options: ServeOptions) -> dict[str, Any]:
    """What ``ray_app.py`` is told."""
    if options.nodes > 1 and (options.api_key or not options.is_local):
        raise ServeError(
            f"nodes={options.nodes}, replicas={options.replicas}: Ray's proxies on other machines check no API key; "
            "serve on 127.0.0.1, and put a proxy that checks one in front"
        )
    return {
        "application": APPLICATION,
        "host": options.host,
        "port": options.port,
        "existing": options.nodes > 1,
        # A replica takes two (itself, its engine), the ingress and Ray Serve's own parts one each.
        "cpus": 2 * (options.max_replicas or options.replicas) + 4,
        "llm": llm_config(options),
    }


def engine_arguments(argv: Iterable[str]) -> dict[str, Any]:
    """A command line of vLLM as the keyword arguments that mean the same, without those of its own HTTP server.

    >>> engine_arguments(["--dtype", "half", "--port", "8000", "--max-num-seqs=8", "--no-enable-prefix-caching"])
    {'dtype': 'half', 'max_num_seqs': 8, 'enable_prefix_caching': False}
    """
    found = dict(_switched(name, _value(name, words)) for name, words in _flags(argv))
    return {name: value for name, value in found.items() if name not in _OF_THE_SERVER}


def _flags(argv: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Each flag, named as Python would, with the words behind it."""
    found: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--"):
            flag, equals, value = word.removeprefix("--").partition("=")
            found.append((flag.replace("-", "_"), [value] if equals else []))
        elif found:
            found[-1][1].append(word)
    return found


def _switched(name: str, value: Any) -> tuple[str, Any]:
    return (name.removeprefix("no_"), False) if name.startswith("no_") and value is True else (name, value)


def _value(name: str, words: list[str]) -> Any:
    if not words:
        return True
    if name in _WORDS:
        return words[0]
    values = [_decoded(word) for word in words]
    return values if name in _LISTS or len(values) > 1 else values[0]


def _decoded(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def _check(options: ServeOptions) -> None:
    if options.engine != "vllm":
        raise ServeError(
            f"replicas={options.replicas}: Ray Serve runs vLLM here; for {options.engine}, start one server for each"
        )
    if len(options.served_names) != 1:
        raise ServeError(f"served_names={options.served_names}: behind Ray Serve a model has one name")
    if options.max_replicas is not None and options.max_replicas < options.replicas:
        raise ServeError(f"max_replicas={options.max_replicas}: at least replicas={options.replicas}")


def _one_vllm(options: ServeOptions) -> Command:
    return VLLM.command(options.with_(replicas=1), Path("python"))


def _source(options: ServeOptions) -> str:
    """A folder by its whole path: Ray's processes work in folders of their own."""
    return str(options.folder.absolute()) if options.folder else options.model


def _environment(engine: Command) -> dict[str, str]:
    """What every machine must set: the same as for one vLLM, without secrets, for Ray shows it."""
    return {name: value for name, value in {**engine.defaults, **engine.environment}.items() if name not in SECRETS}


def _deployment(options: ServeOptions) -> dict[str, Any]:
    usual = {
        "health_check_period_s": 1,  # three in a row must fail; at Ray's 10 s a dead engine refused requests for 24 s
        "graceful_shutdown_timeout_s": 5,
    }
    if options.max_replicas is None:
        return {"num_replicas": options.replicas, "autoscaling_config": None, **usual}
    scaling = {
        "min_replicas": options.replicas,
        "max_replicas": options.max_replicas,
        "target_ongoing_requests": options.max_sequences,
    }
    return {"autoscaling_config": scaling, **usual}


def _placement(options: ServeOptions) -> dict[str, Any]:
    if options.device == "cpu":
        return {"bundles": [{"CPU": 1}]}
    # The GPUs of one replica talk at every layer: on one machine, unless it is meant to spread over several.
    strategy = "PACK" if options.nodes > 1 else "STRICT_PACK"
    return {"bundle_per_worker": {"CPU": 1, "GPU": 1}, "strategy": strategy}
