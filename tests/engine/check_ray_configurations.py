"""Run by the interpreter of Ray's environment: configurations in, as JSON, what Ray's own classes make of them out."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from typing import Any


def engine_settings(configuration: dict[str, Any]) -> dict[str, Any]:
    """What Ray gives to vLLM: the settings of its engine, and of the layer that speaks OpenAI's protocol."""
    config = import_module("ray.serve.llm").LLMConfig(**configuration).get_engine_config()
    normalized = import_module("ray.llm._internal.serve.engines.vllm.vllm_engine")._normalize_vllm_engine_kwargs
    settings = normalized(config.get_initialization_kwargs())
    engine = import_module("vllm.engine.arg_utils").AsyncEngineArgs(**settings)
    frontend = import_module("vllm.entrypoints.launchers.cli_args").FrontendArgs(**config.frontend_kwargs)
    return {**vars(frontend), **vars(engine), "bundles": config.placement_bundles}


def main() -> None:
    """Standard input has ``[[configuration, serve file, vLLM's command line], ...]``."""
    parse = import_module("parse_commands").vllm_parser()  # the file beside this one
    schema = import_module("ray.serve.schema").ServeDeploySchema
    yaml = import_module("yaml")
    answers = [
        (engine_settings(configuration), schema(**yaml.safe_load(file)).model_dump(mode="json"), parse(arguments))
        for configuration, file, arguments in json.load(sys.stdin)
    ]
    print("\n" + json.dumps(answers, default=str))


if __name__ == "__main__":
    main()
