"""Replicas behind Ray Serve: what Ray is told, what is left when it stops, and what our clients read in its answers."""

from __future__ import annotations

import json
import multiprocessing.shared_memory as memory
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from autoglm_client import (
    AutoGLM,
    BadRequest,
    ContextOverflow,
    NotFound,
    ServerFailed,
    StatusError,
    StreamInterrupted,
)
from autoglm_client._check import check
from server_stub.cluster import ray_app
from server_stub.cluster.ray_config import engine_arguments, llm_config, serve_file, settings
from server_stub.engines import engine_for
from server_stub.errors import ServeError
from server_stub.options import ServeOptions
from server_stub.profiles import PROFILES, TINY_WEIGHTS

from .conftest import ClientFactory
from .raw_server import Step, plain, raw_server
from .wire_samples import RAY_SAMPLES, body_of

PYTHON = Path("/env/bin/python")
REPLICAS = {"replicas": 2}


def replicated(profile: str, **changes: Any) -> ServeOptions:
    return PROFILES[profile].options(**{**REPLICAS, **changes})


TWO_GPUS = {
    "model_loading_config": {"model_id": "autoglm-phone-9b", "model_source": "zai-org/AutoGLM-Phone-9B"},
    "engine_kwargs": {
        "tensor_parallel_size": 2,
        "mm_encoder_tp_mode": "data",
        "mm_processor_cache_type": "shm",
        "max_model_len": 25480,
        "max_num_seqs": 16,
        "max_num_queued_reqs": 80,
        "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"image": 10, "video": 0},
        "mm_processor_kwargs": {"max_pixels": 5_000_000},
        "allowed_media_domains": ["none.invalid"],
        "chat_template_content_format": "string",
    },
    "deployment_config": {
        "num_replicas": 2,
        "autoscaling_config": None,
        "health_check_period_s": 1,
        "graceful_shutdown_timeout_s": 5,
    },
    "placement_group_config": {"bundle_per_worker": {"CPU": 1, "GPU": 1}, "strategy": "STRICT_PACK"},
    "runtime_env": {
        "env_vars": {
            "VLLM_MAX_IMAGE_PIXELS": "25000000",
            "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        }
    },
}


def test_two_gpus_for_each_replica() -> None:
    assert llm_config(replicated("2x24gb")) == TWO_GPUS


def test_the_tiny_model_needs_no_gpu() -> None:
    config = llm_config(replicated("tiny"))
    assert config["model_loading_config"]["model_source"] == str(TINY_WEIGHTS.absolute())
    assert config["placement_group_config"] == {"bundles": [{"CPU": 1}]}
    assert config["engine_kwargs"]["dtype"] == "float32"
    assert config["engine_kwargs"]["enforce_eager"] is True
    assert config["runtime_env"]["env_vars"].items() >= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}.items()


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_safe_behind_ray_too(name: str) -> None:
    engine = llm_config(replicated(name))["engine_kwargs"]
    assert engine["allowed_media_domains"] == ["none.invalid"]
    assert "allowed_local_media_path" not in engine
    assert engine["limit_mm_per_prompt"]["video"] == 0
    assert engine["chat_template_content_format"] == "string"
    assert not {"host", "port", "model", "served_model_name"} & set(engine)  # Ray refuses these


@pytest.mark.parametrize(
    ("argv", "arguments"),
    [
        (["python", "-m", "vllm", "--max-model-len", "4096"], {"max_model_len": 4096}),
        (["--enforce-eager", "--dtype", "half"], {"enforce_eager": True, "dtype": "half"}),
        (["--no-enable-prefix-caching"], {"enable_prefix_caching": False}),
        (["--seed=7", "--limit-mm-per-prompt", '{"image":1}'], {"seed": 7, "limit_mm_per_prompt": {"image": 1}}),
        (["--revision", "1e9"], {"revision": "1e9"}),
        (["--allowed-media-domains", "a.example"], {"allowed_media_domains": ["a.example"]}),
        (["--cudagraph-capture-sizes", "1", "2"], {"cudagraph_capture_sizes": [1, 2]}),
        (["--host", "::1", "--port", "1", "--model", "m", "--served-model-name", "a", "b"], {}),
        ([], {}),
    ],
    ids=str,
)
def test_a_command_line_as_arguments(argv: list[str], arguments: dict[str, Any]) -> None:
    assert engine_arguments(argv) == arguments


def test_replicas_come_and_go_with_the_requests() -> None:
    deployment = llm_config(replicated("48gb", max_replicas=5))["deployment_config"]
    assert deployment["autoscaling_config"] == {"min_replicas": 2, "max_replicas": 5, "target_ongoing_requests": 16}
    assert "num_replicas" not in deployment


def test_a_replica_may_spread_over_machines_when_it_is_told_to() -> None:
    spread = llm_config(replicated("2x24gb", nodes=2))
    assert spread["placement_group_config"]["strategy"] == "PACK"
    assert "distributed_executor_backend" not in spread["engine_kwargs"]  # Ray sets its own, and refuses others


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "sglang"}, "Ray Serve runs vLLM"),
        ({"served_names": ("a", "b")}, "one name"),
        ({"max_replicas": 1}, "at least replicas=2"),
        ({"nodes": 2, "api_key": "k"}, "a proxy that checks one"),
        ({"nodes": 2, "host": "0.0.0.0"}, "a proxy that checks one"),
    ],
    ids=str,
)
def test_what_ray_cannot_do_is_said(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ServeError, match=words):
        settings(replicated("2x24gb", **changes))


def test_the_file_for_serve_deploy() -> None:
    file = json.loads(serve_file(replicated("2x24gb", port=9000, api_key="secret")))
    assert file["http_options"] == {"host": "127.0.0.1", "port": 9000}
    (application,) = file["applications"]
    assert application["import_path"] == "ray.serve.llm:build_openai_app"
    assert application["args"] == {"llm_configs": [TWO_GPUS]}
    assert "secret" not in str(file)


def test_the_command_shows_no_key() -> None:
    options = replicated("tiny", api_key="secret")
    engine = engine_for(options)
    command = engine.command(options, PYTHON)
    assert (engine.module, engine.health) == ("ray", "/-/healthz")
    assert command.argv == (str(PYTHON), ray_app.__file__)
    assert command.environment["VLLM_API_KEY"] == "secret"
    told = json.loads(command.environment["AUTOGLM_RAY"])
    assert (told["host"], told["port"], told["existing"], told["cpus"]) == ("127.0.0.1", 8000, False, 8)
    assert "runtime_env" not in told["llm"]  # the environment of this machine holds, and what the user set in it
    assert command.defaults["HF_HUB_OFFLINE"] == "1"
    assert "secret" not in " ".join([*command.argv, *command.shown_environment()])


DRIVER = """
import mmap, multiprocessing, multiprocessing.shared_memory as memory, os, signal, subprocess, sys, time
from multiprocessing.resource_tracker import _resource_tracker as tracker
for stubborn in (signal.SIGTERM, signal.SIGINT):
    signal.signal(stubborn, signal.SIG_IGN)
segment = memory.SharedMemory(create=True, size=1000)
held = multiprocessing.get_context("spawn").Semaphore()
semaphore = held._semlock.name.replace("/", "sem.")
os.kill(tracker._pid, signal.SIGKILL)  # or it would remove both
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"], process_group=0)
print(os.getpid(), child.pid, segment.name, semaphore, os.environ["TMPDIR"], flush=True)
time.sleep(0.5)
with open(f"/dev/shm/psm_late_{os.getpid()}", "w+b") as file:  # a replacement that was just starting
    file.truncate(1000)
    late = mmap.mmap(file.fileno(), 0)
time.sleep(100)
"""


@pytest.fixture
def application(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """``ray_app.py`` with a driver beside it that clings to life."""
    shutil.copy(ray_app.__file__, tmp_path)
    (tmp_path / "ray_driver.py").write_text(DRIVER)
    told = json.dumps({"existing": False})
    with subprocess.Popen(
        [sys.executable, tmp_path / "ray_app.py"],
        env=os.environ | {"AUTOGLM_RAY": told},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /dev/shm")
def test_nothing_is_left_of_a_driver_that_does_not_end(application: subprocess.Popen[str]) -> None:
    assert application.stdout is not None
    driver, child, *shared, scratch = application.stdout.readline().split()
    others = memory.SharedMemory(create=True, size=1000)
    assert [(Path("/dev/shm") / name).exists() for name in shared] == [True, True]
    assert Path(scratch).is_dir()
    began = time.monotonic()
    os.killpg(application.pid, signal.SIGTERM)
    assert application.wait(20) == 0
    assert time.monotonic() - began < 12  # a launcher kills after 15
    assert [pid for pid in (driver, child) if is_alive(pid)] == []
    assert [(Path("/dev/shm") / name).exists() for name in (*shared, f"psm_late_{driver}")] == [False, False, False]
    assert (Path("/dev/shm") / others.name).exists()
    others.close()
    others.unlink()
    assert not Path(scratch).exists()


def is_alive(pid: str) -> bool:
    stat = Path("/proc") / pid / "stat"
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_exit_status_is_the_drivers(tmp_path: Path) -> None:
    shutil.copy(ray_app.__file__, tmp_path)
    (tmp_path / "ray_driver.py").write_text("raise SystemExit(7)")
    environment = os.environ | {"AUTOGLM_RAY": '{"existing": true}'}
    assert subprocess.run([sys.executable, tmp_path / "ray_app.py"], env=environment, check=False).returncode == 7


def recorded(name: str) -> bytes:
    """An answer of Ray's ingress, as it came."""
    sample = RAY_SAMPLES[name]
    status = sample["status"]
    head = plain(body_of(name, RAY_SAMPLES), f"{status} {HTTPStatus(status).phrase}")
    return head.replace(b"application/json", sample["headers"].get("content-type", "").encode())


REFUSED: dict[str, tuple[type[StatusError], str]] = {
    "unknown model": (NotFound, 'Could not find base model with ID "gpt".'),
    "temperature": (BadRequest, "temperature must be non-negative, got -1.0. (parameter=temperature, value=-1.0)"),
    "too long": (ContextOverflow, "This model's maximum context length is 4096 tokens."),
    "too long.stream": (ContextOverflow, "This model's maximum context length is 4096 tokens."),
    "more than the context wanted": (BadRequest, "max_tokens=5000 cannot be greater than max_model_len"),
    "broken picture": (BadRequest, "Failed to load image: cannot identify image file"),
    "remote picture": (BadRequest, "The URL must be from one of the allowed domains"),
    "local picture": (ServerFailed, ": RuntimeError: Cannot load local files without `--allowed-local-media-path`."),
    "no messages": (BadRequest, "Input should be a valid list"),
    "no json": (BadRequest, "JSON decode error"),
    "wrong method": (BadRequest, "Method Not Allowed"),
    "tokenize": (BadRequest, "Field required"),
    "killed": (ServerFailed, ": The actor is dead because its worker process has died."),
    "dead engine": (ServerFailed, "EngineDeadError: EngineCore encountered an issue."),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_of_the_ingress(make_client: ClientFactory, name: str) -> None:
    kind, words = REFUSED[name]
    with raw_server([recorded(name)]) as server, pytest.raises(StatusError) as caught:
        make_client(server.url, max_attempts=1).chat("Hi")
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert caught.value.retryable is (kind is ServerFailed)
    assert not any(noise in str(caught.value) for noise in ("Internal exception", "Request ID", "\n"))


def test_health_and_models(make_client: ClientFactory) -> None:
    with raw_server([recorded("health")], [recorded("healthz")], [recorded("models")]) as server:
        glm = make_client(server.url)
        assert glm.health() is True
        (model,) = glm.models()
    assert (model.id, model.max_model_len) == ("autoglm-phone-9b", 4096)
    assert [request.split()[1] for request in server.requests] == [b"/health", b"/-/healthz", b"/v1/models"]


@pytest.mark.parametrize("name", ["hello", "tags"])
def test_answers_through_the_ingress(make_client: ClientFactory, name: str) -> None:
    with raw_server([recorded(name)], [recorded(f"{name}.stream")]) as server:
        glm = make_client(server.url)
        whole = glm.chat("Hi")
        with glm.stream("Hi") as stream:
            streamed = stream.finish()
    assert streamed.raw == whole.raw
    assert streamed.usage is not None
    assert whole.usage is not None
    assert streamed.usage.completion_tokens == whole.usage.completion_tokens
    assert streamed.reasoning == whole.reasoning
    assert bool(whole.reasoning) is (name == "hello")  # recorded with a reasoning parser, and without


@pytest.mark.parametrize("name", ["killed", "dead engine"])
def test_another_replica_is_asked(make_client: ClientFactory, name: str) -> None:
    with raw_server([recorded(name)], [recorded("hello")]) as server:
        assert make_client(server.url).chat("Hi").attempts == 2


def test_a_replica_that_is_killed_while_it_streams(make_client: ClientFactory) -> None:
    with (
        raw_server([recorded("killed.stream")]) as server,
        make_client(server.url).stream("Hi") as stream,
        pytest.raises(StreamInterrupted) as caught,
    ):
        stream.finish()
    assert caught.value.partial is not None
    assert caught.value.partial.reasoning
    assert len(server.requests) == 1


def test_a_replica_that_is_killed_before_its_first_token(make_client: ClientFactory) -> None:
    role_alone = recorded("killed.stream").partition(b"\n\n")[0] + b"\n\n"
    cut = b"\r\n".join(line for line in role_alone.split(b"\r\n") if not line.startswith(b"Content-Length"))
    with raw_server([cut], [recorded("hello.stream")]) as server, make_client(server.url).stream("Hi") as stream:
        assert stream.finish().attempts == 2


def test_check_understands_the_ingress() -> None:
    answers = ["models", "health", "healthz", "tags", "tags", "tags.stream"]
    scripts: list[list[Step]] = [[recorded(name)] for name in answers]
    with raw_server(*scripts) as server, AutoGLM(server.url, max_attempts=1) as glm:
        states = {finding.name: (finding.state, finding.detail) for finding in check(glm)}
    assert {state for state, _ in states.values()} <= {"ok", "note"}
    assert states["model"] == ("ok", "autoglm-phone-9b, context of 4096 tokens")
    assert states["health"][0] == states["text"][0] == states["image"][0] == states["stream"][0] == "ok"


def test_a_file_for_a_cluster_is_never_open_to_all() -> None:
    with pytest.raises(ServeError, match="checks no API key"):
        serve_file(PROFILES["48gb"].options(host="0.0.0.0", api_key="secret", replicas=2))
