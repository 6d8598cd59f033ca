"""What can go wrong in serving with vLLM: each has its message and its exit status, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from autoglm_client import AutoGLMError, ServerDied, StreamInterrupted
from server_stub import EngineFailed
from server_stub.profiles import TINY_WEIGHTS
from server_stub.supervisor.records import running

from .engine import Engine, serving, tiny
from .launching import Launching
from .leftovers import Family, is_free, shared_memory

ROOT = Path(__file__).parents[2]


def serve(home: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "server_stub", *map(str, options)],
        cwd=ROOT,
        env=os.environ | {"XDG_STATE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_refused(home: Path, *options: object, words: str) -> None:
    """By the look at the machine: at once, in words, and nothing was started."""
    done = serve(home, "--profile", "tiny", "--port", 0, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert "\n  -> " in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(home.rglob("*.log"))


def test_the_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert_refused(tmp_path, "--port", port, words=f"127.0.0.1:{port} is taken by pid {os.getpid()}")


def test_there_are_no_weights(tmp_path: Path) -> None:
    assert_refused(tmp_path, "--model", tmp_path / "nothing", words="is not there, and it is no hub id")
    model = copy_of_the_model(tmp_path)
    (model / "model.safetensors").unlink()
    assert_refused(tmp_path, "--model", model, words="no weights (model.safetensors")


def test_half_of_the_shards_are_missing(tmp_path: Path) -> None:
    model = copy_of_the_model(tmp_path)
    first, second = split_in_two(model)
    assert serve(tmp_path, "--profile", "tiny", "--port", 0, "--model", model, "--check").returncode == 0
    second.unlink()
    assert_refused(tmp_path, "--model", model, words=f"1 of 2 shards, missing {second.name}")
    second.write_bytes(first.read_bytes()[:-1])
    assert_refused(tmp_path, "--model", model, words=f"{second.name} is not whole: ")


def test_there_is_too_little_memory(tmp_path: Path) -> None:
    assert_refused(tmp_path, "--kv-cache-gib", 9000, words="GiB free, about 9002.0 needed")


def test_the_profile_is_for_gpus(tmp_path: Path) -> None:
    done = serve(tmp_path, "--profile", "2x24gb", "--port", 0, "--model", TINY_WEIGHTS)
    assert done.returncode == 1
    assert "GPUs: " in done.stderr
    assert "is built for CPUs" in done.stderr
    assert "--profile tiny" in done.stderr


def test_vllm_is_not_installed(tmp_path: Path) -> None:
    words = f"vLLM is not installed for {sys.executable}"
    assert_refused(tmp_path, "--python", sys.executable, words=words)


class Starting(NamedTuple):
    """Engines that will not become ready, all at once: each start takes half a minute."""

    too_large: Launching
    strange: Launching
    slow: Launching
    interrupted: Launching


@pytest.fixture(scope="module")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starting]:
    folder = tmp_path_factory.mktemp("failures")
    strange = copy_of_the_model(folder)
    set_head_size_16(strange)
    options: dict[str, tuple[object, ...]] = {
        "too_large": ("--kv-cache-gib", 9000, "--force"),
        "strange": ("--model", strange, "--load-format", "dummy"),
        "slow": ("--timeout", 12),
        "interrupted": (),
    }
    for name in options:
        (folder / name).mkdir()
    started = Starting(
        **{
            name: Launching(folder / name, "server_stub", "--profile", "tiny", "--port", 0, *more)
            for name, more in options.items()
        }
    )
    yield started
    for launching in started:
        launching.kill()


def assert_failed(launching: Launching, *words: str, status: int = 1) -> None:
    assert launching.end() == status, launching.said
    last = launching.said.splitlines()[-1]
    assert not [word for word in words if word not in last], launching.said
    assert launching.family.living() == []


def test_ctrl_c_while_it_loads(starting: Starting) -> None:
    starting.interrupted.wait_for("starting the engine's processes")
    starting.interrupted.signal(signal.SIGINT)
    assert_failed(starting.interrupted, "stopped", status=130)


def test_it_hangs_at_the_start(starting: Starting) -> None:
    assert_failed(starting.slow, "vLLM did not answer within 12 s and was stopped before it was ready", "The log: ")


def test_it_dies_at_the_start(starting: Starting) -> None:
    assert_failed(starting.too_large, "vLLM ended with exit code 1 before it was ready", "less free memory than")


def test_it_dies_of_the_first_request(starting: Starting) -> None:
    assert_failed(
        starting.strange, "vLLM ended with exit code 0 before it was ready", "head sizes below 32 are not supported"
    )


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Engine]]:
    folder = tmp_path_factory.mktemp("victims")
    both = tiny(folder / "one.log"), tiny(folder / "two.log")
    with serving(*both):
        yield both


@pytest.mark.parametrize(
    ("number", "title", "error", "words"),
    [
        (0, "vllm.entrypoints", StreamInterrupted, r"killed by signal 9 .* while serving\. .*want of memory"),
        (1, "VLLM::EngineCore", ServerDied, r"exit code 0 while serving\. .*inner process ended while it worked"),
    ],
    ids=["server", "core"],
)
def test_it_is_killed_while_serving(
    victims: tuple[Engine, Engine], number: int, title: str, error: type[AutoGLMError], words: str
) -> None:
    engine, before = victims[number], shared_memory()
    family = Family(next(record.pid for record in running() if record.url == engine.base_url))
    with engine.client(max_attempts=1) as glm, glm.stream("Go on", max_tokens=4000, ignore_eos=True) as stream:
        next(stream)
        os.kill(family.find(title), signal.SIGKILL)
        with pytest.raises(error) as broken:
            stream.finish()
    assert broken.value.partial is not None
    assert broken.value.partial.raw
    with pytest.raises(EngineFailed, match=words):
        engine.wait_for_exit()
    assert family.living() == []
    assert is_free(engine.options.port)
    assert shared_memory() <= before


def copy_of_the_model(folder: Path) -> Path:
    return Path(shutil.copytree(TINY_WEIGHTS, folder / "model"))


def set_head_size_16(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    text = config["text_config"]
    text["num_attention_heads"] *= 2
    text["rope_parameters"]["mrope_section"] = [1, 1, 2]  # adds up to half of the rotary half of a head
    (model / "config.json").write_text(json.dumps(config))


def split_in_two(model: Path) -> tuple[Path, Path]:
    """Make two shards and their index of the one file."""
    whole = model / "model.safetensors"
    data = whole.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    tensors = {name: it for name, it in json.loads(data[8:start]).items() if name != "__metadata__"}
    names = sorted(tensors)
    shards = model / "model-00001-of-00002.safetensors", model / "model-00002-of-00002.safetensors"
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    for shard, half in zip(shards, halves, strict=True):
        write_shard(shard, {name: (tensors[name], data[start:]) for name in half})
    index = {name: shard.name for shard, half in zip(shards, halves, strict=True) for name in half}
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    whole.unlink()
    return shards


def write_shard(shard: Path, tensors: dict[str, tuple[dict[str, Any], bytes]]) -> None:
    header, body = {}, b""
    for name, (tensor, data) in tensors.items():
        begin, end = tensor["data_offsets"]
        header[name] = {**tensor, "data_offsets": [len(body), len(body) + end - begin]}
        body += data[begin:end]
    head = json.dumps(header).encode()
    shard.write_bytes(struct.pack("<Q", len(head)) + head + body)
