"""The launcher's command lines, read by the engines' own argument parsers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from server_stub.engines import engine_for
from server_stub.options import ServeOptions
from server_stub.process import engine_python
from server_stub.profiles import PROFILES

HERE = Path(__file__).parent

TINY = PROFILES["tiny"]

WHOLE: dict[str, ServeOptions] = {name: profile.options() for name, profile in PROFILES.items()}

# fmt: off
CHANGES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("vllm", {}, {"host": "127.0.0.1", "port": 8000, "served_model_name": ["autoglm-phone-9b"],
                  "chat_template_content_format": "string", "limit_mm_per_prompt": {"image": 10, "video": 0},
                  "mm_processor_kwargs": {"max_pixels": 5_000_000}, "max_model_len": 25480, "max_num_seqs": 16,
                  "max_num_queued_reqs": 80, "enable_prefix_caching": True, "allowed_media_domains": ["none.invalid"],
                  "allowed_local_media_path": "", "enable_request_id_headers": True, "disable_fastapi_docs": True,
                  "api_key": None, "mm_processor_cache_type": "lru", "tensor_parallel_size": 1, "revision": None,
                  "enforce_eager": False, "reasoning_parser": "", "enable_auto_tool_choice": False}),
    ("vllm", {"model": "/models/autoglm"}, {"model": "/models/autoglm"}),
    ("vllm", {"revision": "abc123"}, {"revision": "abc123"}),
    ("vllm", {"served_names": ("one", "two")}, {"served_model_name": ["one", "two"]}),
    ("vllm", {"host": "::1", "port": 9000}, {"host": "::1", "port": 9000}),
    ("vllm", {"tensor_parallel": 2}, {"tensor_parallel_size": 2, "mm_encoder_tp_mode": "data",
                                      "mm_processor_cache_type": "shm"}),
    ("vllm", {"pipeline_parallel": 2, "nodes": 2}, {"pipeline_parallel_size": 2,
                                                    "distributed_executor_backend": "ray"}),
    ("vllm", {"context": 8192, "max_sequences": 4, "max_queued": 10}, {"max_model_len": 8192, "max_num_seqs": 4,
                                                                       "max_num_queued_reqs": 14}),
    ("vllm", {"gpu_memory": 0.8}, {"gpu_memory_utilization": 0.8}),
    ("vllm", {"dtype": "bfloat16", "load_format": "dummy"}, {"dtype": "bfloat16", "load_format": "dummy"}),
    ("vllm", {"quantization": "fp8"}, {"quantization": "fp8"}),
    ("vllm", {"eager": True}, {"enforce_eager": True}),
    ("vllm", {"images": 3}, {"limit_mm_per_prompt": {"image": 3, "video": 0}}),
    ("vllm", {"max_pixels": None}, {"mm_processor_kwargs": None}),
    ("vllm", {"prefix_caching": False}, {"enable_prefix_caching": False}),
    ("vllm", {"reasoning_parser": "glm45"}, {"reasoning_parser": "glm45"}),
    ("vllm", {"tool_parser": "glm45"}, {"enable_auto_tool_choice": True, "tool_call_parser": "glm45"}),
    ("vllm", {"media_folder": Path("/srv/pictures")}, {"allowed_local_media_path": "/srv/pictures"}),
    ("vllm", {"extra": ("--seed", "7")}, {"seed": 7}),
    ("transformers", {}, {"force_model": "zai-org/AutoGLM-Phone-9B", "device": "cuda", "dtype": "auto",
                          "host": "127.0.0.1", "port": 8000, "quantization": None}),
    ("transformers", {"revision": "abc123"}, {"force_model": "zai-org/AutoGLM-Phone-9B@abc123"}),
    ("transformers", {"quantization": "bnb-4bit", "dtype": "bfloat16"}, {"quantization": "bnb-4bit",
                                                                         "dtype": "bfloat16"}),
    ("transformers", {"device": "cpu", "host": "::1", "port": 9000}, {"device": "cpu", "host": "::1", "port": 9000}),
]
# fmt: on


def command_arguments(options: ServeOptions) -> list[Any]:
    """The engine's name, and what its parser is given."""
    argv = engine_for(options).command(options, Path("python")).argv
    return [options.engine, argv[4 if options.engine == "transformers" else 3 :]]


@pytest.fixture(scope="module")
def parsed() -> list[dict[str, Any]]:
    """All command lines, read in one process: importing vLLM takes seconds."""
    changed = [ServeOptions(**{"engine": engine, **changes}) for engine, changes, _ in CHANGES]
    asked = [command_arguments(options) for options in (*WHOLE.values(), *changed)]
    asked += [[name, [*arguments, "--no-such-flag"]] for name, arguments in (asked[0], asked[-1])]
    done = subprocess.run(
        [str(engine_python()), str(HERE / "parse_commands.py")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == len(asked)
    return answers


@pytest.mark.parametrize("name", WHOLE)
def test_vllm_reads_what_the_profile_says(parsed: list[dict[str, Any]], name: str) -> None:
    options, read = WHOLE[name], parsed[list(WHOLE).index(name)]
    assert "error" not in read, read["error"]
    assert read["model"] == options.model
    assert (read["max_model_len"], read["max_num_seqs"]) == (options.context, options.max_sequences)
    assert read["tensor_parallel_size"] == options.tensor_parallel
    assert read["gpu_memory_utilization"] == (options.gpu_memory or 0.92)
    assert read["enforce_eager"] is options.eager
    assert read["limit_mm_per_prompt"] == {"image": options.images, "video": 0}
    assert read["mm_processor_kwargs"] == (options.max_pixels and {"max_pixels": options.max_pixels})


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_every_option_arrives(parsed: list[dict[str, Any]], number: int) -> None:
    engine, changes, expected = CHANGES[number]
    read = parsed[len(WHOLE) + number]
    assert "error" not in read, (engine, changes, read["error"])
    assert {name: read[name] for name in expected} == expected


@pytest.mark.parametrize("place", [-2, -1], ids=["vllm", "transformers"])
def test_the_parsers_refuse_a_flag_they_do_not_know(parsed: list[dict[str, Any]], place: int) -> None:
    assert "no-such-flag" in parsed[place]["error"]
