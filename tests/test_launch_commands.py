"""What the launcher would start: whole command lines per profile and engine, each option's effect, each refusal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from server_stub.command import Command, flags
from server_stub.engines import engine_for
from server_stub.errors import ServeError
from server_stub.options import ServeOptions
from server_stub.profiles import PROFILES

PYTHON = Path("/env/bin/python")
SERVING = (Path(__file__).parent.parent / "docs" / "serving.md").read_text()
TINY = PROFILES["tiny"].options().model
AUTOGLM = "zai-org/AutoGLM-Phone-9B"

VLLM_START = """
/env/bin/python
-m vllm.entrypoints.openai.api_server
"""
VLLM_SERVER = """
--allowed-media-domains none.invalid
--host 127.0.0.1
--port 8000
--chat-template-content-format string
--enable-request-id-headers
--disable-fastapi-docs
"""
VLLM_ENVIRONMENT = """
VLLM_HTTP_TIMEOUT_KEEP_ALIVE=75
VLLM_MAX_IMAGE_PIXELS=25000000
VLLM_MEDIA_URL_ALLOW_REDIRECTS=0
VLLM_NO_USAGE_STATS=1
"""

VLLM_MIDDLE = {
    "h200": f"""
--model {AUTOGLM}
--served-model-name autoglm-phone-9b
--tensor-parallel-size 1
--max-model-len 25480
--max-num-seqs 64
--max-num-queued-reqs 320
--enable-prefix-caching
--limit-mm-per-prompt {{"image":10,"video":0}}
--mm-processor-kwargs {{"max_pixels":5000000}}
""",
    "2x24gb": f"""
--model {AUTOGLM}
--served-model-name autoglm-phone-9b
--tensor-parallel-size 2
--mm-encoder-tp-mode data
--mm-processor-cache-type shm
--max-model-len 25480
--max-num-seqs 16
--max-num-queued-reqs 80
--enable-prefix-caching
--limit-mm-per-prompt {{"image":10,"video":0}}
--mm-processor-kwargs {{"max_pixels":5000000}}
""",
    "1x24gb": f"""
--model {AUTOGLM}
--served-model-name autoglm-phone-9b
--enforce-eager
--tensor-parallel-size 1
--gpu-memory-utilization 0.95
--max-model-len 8192
--max-num-seqs 2
--max-num-queued-reqs 66
--enable-prefix-caching
--limit-mm-per-prompt {{"image":4,"video":0}}
--mm-processor-kwargs {{"max_pixels":1000000}}
""",
    "tiny": f"""
--model {TINY}
--served-model-name autoglm-phone-9b
--dtype float32
--enforce-eager
--tensor-parallel-size 1
--max-model-len 4096
--max-num-seqs 8
--max-num-queued-reqs 72
--enable-prefix-caching
--limit-mm-per-prompt {{"image":10,"video":0}}
""",
}

VLLM_MIDDLE["48gb"] = VLLM_MIDDLE["h200"].replace("--max-num-seqs 64", "--max-num-seqs 16").replace(" 320", " 80")

# fmt: off
OTHER_ENGINES = {
    ("sglang", "2x24gb"): f"""
/env/bin/python
-m sglang.launch_server
--model-path {AUTOGLM}
--served-model-name autoglm-phone-9b
--device cuda
--tensor-parallel-size 2
--mm-enable-dp-encoder
--context-length 25480
--max-running-requests 16
--max-queued-requests 64
--limit-mm-data-per-request {{"image":10,"video":0}}
--mm-process-config {{"image":{{"max_pixels":5000000}}}}
--host 127.0.0.1
--port 8000
""",
    ("tensorrt-llm", "2x24gb"): f"""
/env/bin/trtllm-serve {AUTOGLM}
--backend pytorch
--tp_size 2
--pp_size 1
--max_seq_len 25480
--max_batch_size 16
--host 127.0.0.1
--port 8000
""",
    ("transformers", "tiny"): f"""
/env/bin/python
-m transformers.cli.transformers serve {TINY}
--device cpu
--dtype float32
--host 127.0.0.1
--port 8000
""",
    ("transformers", "48gb"): f"""
/env/bin/python
-m transformers.cli.transformers serve {AUTOGLM}
--device cuda
--host 127.0.0.1
--port 8000
""",
}
# fmt: on


def table(text: str) -> list[str]:
    return text.split("\n")[1:-1]


def lines(command: Command) -> list[str]:
    """The arguments as a table: each flag on a line of its own, with its values."""
    rows: list[str] = []
    for argument in command.argv:
        if argument.startswith("-") or not rows:
            rows.append(argument)
        else:
            rows[-1] += f" {argument}"
    return rows


def command(**changes: Any) -> Command:
    options = ServeOptions(**changes)
    return engine_for(options).command(options, PYTHON)


def command_or_refusal(**changes: Any) -> Command | ServeError:
    try:
        return command(**changes)
    except ServeError as refusal:
        return refusal


@pytest.fixture(autouse=True)
def _nothing_of_ours_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VLLM_API_KEY", "VLLM_CPU_KVCACHE_SPACE", "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "VLLM_NO_USAGE_STATS",
                 "VLLM_MEDIA_URL_ALLOW_REDIRECTS", "VLLM_MAX_IMAGE_PIXELS", "VLLM_CPU_OMP_THREADS_BIND",
                 "TORCHDYNAMO_DISABLE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", PROFILES)
def test_the_whole_command_of_a_profile(name: str) -> None:
    options = PROFILES[name].options()
    made = engine_for(options).command(options, PYTHON)
    assert lines(made) == [*table(VLLM_START), *table(VLLM_MIDDLE[name]), *table(VLLM_SERVER)]
    assert made.notes == ()


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "tiny"])
def test_the_environment_of_a_profile(name: str) -> None:
    options = PROFILES[name].options()
    assert engine_for(options).command(options, PYTHON).shown_environment() == table(VLLM_ENVIRONMENT)


def test_the_environment_of_the_tiny_profile_keeps_off_the_network_and_the_compiler() -> None:
    options = PROFILES["tiny"].options()
    assert engine_for(options).command(options, PYTHON).shown_environment() == [
        "HF_HUB_OFFLINE=1",
        "TORCHDYNAMO_DISABLE=1",
        "TRANSFORMERS_OFFLINE=1",
        "VLLM_CPU_KVCACHE_SPACE=1",
        "VLLM_CPU_OMP_THREADS_BIND=nobind",
        *table(VLLM_ENVIRONMENT),
    ]


@pytest.mark.parametrize(("engine", "profile"), OTHER_ENGINES)
def test_the_whole_command_of_another_engine(engine: str, profile: str) -> None:
    options = PROFILES[profile].options(engine=engine)
    made = engine_for(options).command(options, PYTHON)
    assert lines(made) == table(OTHER_ENGINES[engine, profile])
    assert made.notes, "what it does not do must be said"


# fmt: off
EFFECTS: list[tuple[str, dict[str, Any], set[str], set[str]]] = [
    ("vllm", {"model": "/m/a"}, {"--model /m/a"}, {f"--model {AUTOGLM}"}),
    ("vllm", {"revision": "abc"}, {"--revision abc"}, set()),
    ("vllm", {"served_names": ("a", "b")}, {"--served-model-name a b"}, {"--served-model-name autoglm-phone-9b"}),
    ("vllm", {"host": "::1"}, {"--host ::1"}, {"--host 127.0.0.1"}),
    ("vllm", {"port": 9000}, {"--port 9000"}, {"--port 8000"}),
    ("vllm", {"tensor_parallel": 2},
     {"--tensor-parallel-size 2", "--mm-encoder-tp-mode data", "--mm-processor-cache-type shm"},
     {"--tensor-parallel-size 1"}),
    ("vllm", {"pipeline_parallel": 2}, {"--pipeline-parallel-size 2"}, set()),
    ("vllm", {"nodes": 2, "pipeline_parallel": 2},
     {"--pipeline-parallel-size 2", "--distributed-executor-backend ray"}, set()),
    ("vllm", {"nodes": 2, "tensor_parallel": 2},  # shared memory ends at the machine's border
     {"--tensor-parallel-size 2", "--mm-encoder-tp-mode data", "--distributed-executor-backend ray"},
     {"--tensor-parallel-size 1"}),
    ("vllm", {"context": 100}, {"--max-model-len 100"}, {"--max-model-len 25480"}),
    ("vllm", {"max_sequences": 4}, {"--max-num-seqs 4", "--max-num-queued-reqs 68"},
     {"--max-num-seqs 16", "--max-num-queued-reqs 80"}),
    ("vllm", {"max_queued": 0}, {"--max-num-queued-reqs 16"}, {"--max-num-queued-reqs 80"}),
    ("vllm", {"gpu_memory": 0.5}, {"--gpu-memory-utilization 0.5"}, set()),
    ("vllm", {"gpu_memory": 0.5, "device": "cpu"}, set(), set()),
    ("vllm", {"dtype": "bfloat16"}, {"--dtype bfloat16"}, set()),
    ("vllm", {"quantization": "fp8"}, {"--quantization fp8"}, set()),
    ("vllm", {"load_format": "dummy"}, {"--load-format dummy"}, set()),
    ("vllm", {"eager": True}, {"--enforce-eager"}, set()),
    ("vllm", {"images": 1}, {'--limit-mm-per-prompt {"image":1,"video":0}'},
     {'--limit-mm-per-prompt {"image":10,"video":0}'}),
    ("vllm", {"max_pixels": None}, set(), {'--mm-processor-kwargs {"max_pixels":5000000}'}),
    ("vllm", {"prefix_caching": False}, {"--no-enable-prefix-caching"}, {"--enable-prefix-caching"}),
    ("vllm", {"reasoning_parser": "glm45"}, {"--reasoning-parser glm45"}, set()),
    ("vllm", {"tool_parser": "glm45"}, {"--enable-auto-tool-choice", "--tool-call-parser glm45"}, set()),
    ("vllm", {"media_folder": Path("/srv")}, {"--allowed-local-media-path /srv"}, set()),
    ("vllm", {"extra": ("--seed", "7")}, {"--seed 7"}, set()),
    ("sglang", {"revision": "abc", "quantization": "fp8", "load_format": "dummy", "dtype": "half"},
     {"--revision abc", "--quantization fp8", "--load-format dummy", "--dtype half"}, set()),
    ("sglang", {"eager": True, "gpu_memory": 0.5}, {"--disable-cuda-graph", "--mem-fraction-static 0.5"}, set()),
    ("sglang", {"pipeline_parallel": 2}, {"--pipeline-parallel-size 2"}, set()),
    ("sglang", {"device": "cpu"}, {"--device cpu"}, {"--device cuda"}),
    ("sglang", {"prefix_caching": False}, {"--disable-radix-cache"}, set()),
    ("sglang", {"max_pixels": None}, set(), {'--mm-process-config {"image":{"max_pixels":5000000}}'}),
    ("sglang", {"reasoning_parser": "glm45", "tool_parser": "glm45"},
     {"--reasoning-parser glm45", "--tool-call-parser glm45"}, set()),
    ("tensorrt-llm", {"revision": "abc", "reasoning_parser": "qwen3", "tool_parser": "qwen3"},
     {"--revision abc", "--reasoning_parser qwen3", "--tool_parser qwen3"}, set()),
    ("transformers", {"revision": "abc"}, {f"-m transformers.cli.transformers serve {AUTOGLM}@abc"},
     {f"-m transformers.cli.transformers serve {AUTOGLM}"}),
    ("transformers", {"quantization": "bnb-8bit", "extra": ("--log-level", "info")},
     {"--quantization bnb-8bit", "--log-level info"}, set()),
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"host": "0.0.0.0"}, "needs an API key"),
    ({"host": "192.168.1.7"}, "needs an API key"),
    ({"host": "phone-server"}, "needs an API key"),
    ({"host": "0.0.0.0", "replicas": 2}, "needs an API key"),
    ({"engine": "sglang", "replicas": 2}, "Ray Serve runs vLLM"),
    ({"nodes": 2}, "set pipeline_parallel=2"),
    ({"model": "AutoGLM.Q4_K_M.gguf"}, "llama.cpp"),
    ({"engine": "sglang", "api_key": "k"}, "api_key would stand in the command line"),
    ({"engine": "sglang", "nodes": 2, "pipeline_parallel": 2}, "nodes needs one command per machine"),
    ({"engine": "sglang", "media_folder": Path("/srv")}, "media_folder cannot be limited"),
    ({"engine": "tensorrt-llm", "api_key": "k"}, "api_key cannot be asked for"),
    ({"engine": "tensorrt-llm", "device": "cpu"}, "device has to be cuda"),
    ({"engine": "tensorrt-llm", "quantization": "fp8"}, "quantization is part of the checkpoint"),
    ({"engine": "transformers", "api_key": "k"}, "api_key cannot be asked for"),
    ({"engine": "transformers", "tensor_parallel": 2}, "tensor_parallel is unknown"),
    ({"engine": "transformers", "quantization": "fp8"}, "bnb-4bit, bnb-8bit"),
    ({"engine": "transformers", "reasoning_parser": "glm45"}, "reasoning_parser is unknown"),
]
# fmt: on


@pytest.mark.parametrize(("engine", "changes", "added", "removed"), EFFECTS)
def test_each_option_changes_its_own_flags_alone(
    engine: str, changes: dict[str, Any], added: set[str], removed: set[str]
) -> None:
    before, after = set(lines(command(engine=engine))), set(lines(command(engine=engine, **changes)))
    assert (after - before, before - after) == (added, removed)


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_what_cannot_be_held_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ServeError, match=words):
        command(**changes)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_this_machine_alone_needs_no_key(host: str) -> None:
    assert f"--host {host}" in lines(command(host=host))


@pytest.mark.parametrize("engine", ["sglang", "tensorrt-llm", "transformers"])
def test_each_option_reaches_the_engine_or_is_refused_or_noted(engine: str) -> None:
    """No option is dropped in silence, neither one of today nor one that is added later."""
    before, notes = command(engine=engine), " ".join(command(engine=engine).notes)
    for name, value in _other_values():
        after = command_or_refusal(engine=engine, **{name: value})
        if isinstance(after, ServeError):
            assert name in str(after)
        else:
            assert after.argv != before.argv or name in notes, f"{engine} drops {name}"


def test_vllm_drops_no_option() -> None:
    for name, value in _other_values():
        device = "cpu" if name == "kv_cache_gib" else "cuda"
        options = ServeOptions(**{"device": device, name: value})
        before = command(device=device)
        after = engine_for(options).command(options, PYTHON) if name != "nodes" else command(nodes=2, tensor_parallel=2)
        assert (after.argv, after.full_environment()) != (before.argv, before.full_environment()), name


def _other_values() -> Iterator[tuple[str, Any]]:
    strings = {"host": "::1", "api_key": "k", "device": "cpu", "quantization": "bnb-4bit"}
    for field in fields(ServeOptions):
        default = field.default
        if field.name in {"engine", "replicas", "max_replicas"}:
            continue  # these choose the engine
        match default:
            case bool():
                yield field.name, not default
            case int():
                yield field.name, default + 1
            case tuple():
                yield field.name, ("other", "another")
            case _ if field.name == "gpu_memory":
                yield field.name, 0.5
            case _ if field.name == "media_folder":
                yield field.name, Path("/srv")
            case _:
                yield field.name, strings.get(field.name, "other")


def test_the_key_is_in_the_environment_and_nowhere_else() -> None:
    made = command(host="0.0.0.0", api_key="sk-secret")
    assert made.full_environment()["VLLM_API_KEY"] == "sk-secret"
    assert "VLLM_API_KEY=***" in made.shown_environment()
    assert "sk-secret" not in f"{made} {made!r} {made.shown_environment()}"
    assert "sk-secret" not in repr(ServeOptions(api_key="sk-secret"))


def test_the_users_environment_wins_save_where_it_would_open_a_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "7")
    monkeypatch.setenv("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "1")
    made = command(device="cpu")
    assert made.full_environment()["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert made.full_environment()["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert {"VLLM_CPU_KVCACHE_SPACE=7", "VLLM_MEDIA_URL_ALLOW_REDIRECTS=0"} <= set(made.shown_environment())


def test_a_command_is_shown_as_a_shell_takes_it() -> None:
    assert """--limit-mm-per-prompt '{"image":10,"video":0}'""" in str(command())


@pytest.mark.parametrize(
    ("value", "arguments"),
    [
        (None, []),
        (False, []),
        (True, ["--x"]),
        (0, ["--x", "0"]),
        (1, ["--x", "1"]),
        ("", ["--x", ""]),
        (("a", "b"), ["--x", "a", "b"]),
    ],
)
def test_flags(value: Any, arguments: list[str]) -> None:
    assert flags({"--x": value}) == arguments


@pytest.mark.parametrize(("changes", "health"), [
    ({}, "/health"),
    ({"replicas": 2}, "/-/healthz"),
    ({"max_replicas": 3}, "/-/healthz"),
    ({"max_replicas": 1}, "/health"),
])  # fmt: skip
def test_more_than_one_replica_is_a_matter_for_ray(changes: dict[str, Any], health: str) -> None:
    assert engine_for(ServeOptions(**changes)).health == health


def test_the_documents_show_the_command_of_two_gpus() -> None:
    options = PROFILES["2x24gb"].options()
    shown = re.search(r"^python -m vllm(?:.*\\\n)+.*", SERVING, re.MULTILINE)
    assert shown is not None
    assert shlex.split(shown[0].replace("\\\n", "")) == list(engine_for(options).command(options, Path("python")).argv)
