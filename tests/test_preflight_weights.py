"""Are the weights whole, in a folder or in the cache of the hub, and can the hub be reached."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server_stub import preflight as preflight_module
from server_stub.findings import Finding
from server_stub.machine import hub
from server_stub.options import ServeOptions
from server_stub.preflight import check_weights

from .machines import (
    ON_GPU,
    environment,
    failed,
    only,
    write_checkpoint,
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "a model")


def weights(model: Path | str, **changes: Any) -> Iterator[Finding]:
    return check_weights(ServeOptions(model=str(model), **changes), environment())


def test_a_whole_checkpoint(checkpoint: Path) -> None:
    assert only(weights(checkpoint)) == Finding("weights", "ok", f"{checkpoint}: 2 shards, 0.0 MiB")


def test_a_checkpoint_at_home(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    assert only(weights(f"~/{checkpoint.name}")).state == "ok"


def test_a_checkpoint_of_one_file(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors.index.json").unlink()
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    assert only(weights(checkpoint)).detail.endswith(": 1 shard, 0.0 MiB")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("config.json", "no config.json"),
        ("tokenizer.json", "no tokenizer (tokenizer.json or tokenizer.model)"),
        ("preprocessor_config.json", "no picture processor (preprocessor_config.json or processor_config.json)"),
        ("chat_template.jinja", "no chat template (chat_template.jinja)"),
        ("model-00002-of-00002.safetensors", "1 of 2 shards, missing model-00002-of-00002.safetensors"),
    ],
)
def test_a_missing_file(file: str, said: str, checkpoint: Path) -> None:
    (checkpoint / file).unlink()
    finding = failed(weights(checkpoint))
    assert finding.detail == f"{checkpoint}: {said}"
    assert finding.remedy == f"hf download zai-org/AutoGLM-Phone-9B --local-dir '{checkpoint}'"


def test_a_template_in_the_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").unlink()
    (checkpoint / "tokenizer_config.json").write_text('{"chat_template": "..."}')
    assert only(weights(checkpoint)).state == "ok"


def test_no_weights_at_all(checkpoint: Path) -> None:
    for file in checkpoint.glob("model*"):
        file.unlink()
    assert "no weights (model.safetensors" in failed(weights(checkpoint)).detail
    assert only(weights(checkpoint, load_format="dummy")).state == "ok"


def test_a_shard_that_is_not_whole(checkpoint: Path) -> None:
    shard = checkpoint / "model-00001-of-00002.safetensors"
    whole = shard.read_bytes()
    for length, said in [
        (len(whole) - 1, f"is not whole: {len(whole) - 1} of {len(whole)} bytes"),
        (20, "is broken: its header cannot be read (20 bytes)"),
        (0, "is broken: its header cannot be read (0 bytes)"),
    ]:
        shard.write_bytes(whole[:length])
        finding = failed(weights(checkpoint))
        assert finding.detail == f"{checkpoint}: {shard.name} {said}"
        assert finding.remedy.startswith(f"rm '{shard}' && hf download")


def test_a_shard_that_git_left_out(checkpoint: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4980000000\n"
    (checkpoint / "model-00001-of-00002.safetensors").write_text(pointer)
    finding = failed(weights(checkpoint))
    assert finding.detail.endswith("model-00001-of-00002.safetensors is git's pointer to the file")
    assert finding.remedy == f"git -C '{checkpoint}' lfs pull"


def test_another_architecture_is_worth_a_note(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    ok, note = weights(checkpoint)
    assert (ok.state, note.state) == ("ok", "note")
    assert note.detail == "the architecture is LlamaForCausalLM, AutoGLM's is Glm4vForConditionalGeneration"


def test_gguf(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + bytes(60))
    assert only(weights(file, engine="transformers")).state == "ok"
    assert failed(weights(file)).remedy == f"llama-server -m {file}  # of llama.cpp"
    file.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert failed(weights(file)).remedy == f"git -C {tmp_path} lfs pull"
    file.write_text("<html>")
    assert failed(weights(file)).detail == f"{file} is no GGUF file"


@pytest.mark.parametrize("model", ["/no/such/folder", "./folder", "a/b/c", "~/model", "model.gguf", "a/b/"])
def test_a_path_that_is_not_there_is_no_hub_id(model: str) -> None:
    finding = failed(weights(model))
    assert finding.detail == f"{model} is not there, and it is no hub id (owner/name)"
    assert finding.remedy == "--model zai-org/AutoGLM-Phone-9B, or the folder of a checkpoint"


def test_the_weights_of_this_package_are_not_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight_module, "TINY_WEIGHTS", tmp_path / "weights")
    assert failed(weights(tmp_path / "weights")).remedy == "pip install --force-reinstall autoglm-client"
    (write_checkpoint(tmp_path / "weights") / "tokenizer.json").unlink()
    assert failed(weights(tmp_path / "weights")).remedy == "pip install --force-reinstall autoglm-client"


# The hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, for AutoGLM-Phone-9B."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home" / "hub" / "models--zai-org--AutoGLM-Phone-9B"


def fill(cache: Path, branch: str = "main") -> Path:
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / branch).write_text(COMMIT)
    return write_checkpoint(cache / "snapshots" / COMMIT)


@pytest.fixture
def the_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A server in the place of the hub: it answers ``status``, and keeps what it was asked for."""
    hub = SimpleNamespace(status=200, asked=[])

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            hub.asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(hub.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


def test_whole_in_the_cache(cache: Path, the_hub: SimpleNamespace) -> None:
    folder = fill(cache)
    assert only(check_weights(ON_GPU, environment())).detail.startswith(f"{folder}: 2 shards")
    assert the_hub.asked == []


@pytest.mark.parametrize("revision", ["v2", COMMIT])
def test_the_revision_in_the_cache(revision: str, cache: Path, the_hub: SimpleNamespace) -> None:
    fill(cache, "v2")
    assert only(check_weights(ON_GPU.with_(revision=revision), environment())).state == "ok"
    list(check_weights(ON_GPU, environment()))
    assert the_hub.asked == [("/zai-org/AutoGLM-Phone-9B/resolve/main/config.json", None)]


def test_a_half_download_is_finished_from_the_hub(cache: Path, the_hub: SimpleNamespace) -> None:
    (fill(cache) / "model-00002-of-00002.safetensors").unlink()
    reach, _ = check_weights(ON_GPU, environment())
    assert reach.state == "ok"
    lacking = "1 of 2 shards, missing model-00002-of-00002.safetensors"
    assert reach.detail.endswith(f"the start fetches it (in the cache: {lacking})")


def test_a_truncated_download_is_not_finished_by_itself(cache: Path, the_hub: SimpleNamespace) -> None:
    shard = fill(cache) / "model-00002-of-00002.safetensors"
    blob = cache / "blobs" / "00"
    blob.parent.mkdir()
    blob.write_bytes(shard.read_bytes()[:-1])
    shard.unlink()
    shard.symlink_to(blob)
    finding = failed(check_weights(ON_GPU, environment()))
    assert finding.remedy == f"rm {blob} && hf download zai-org/AutoGLM-Phone-9B"


def test_offline(cache: Path, the_hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    finding = failed(check_weights(ON_GPU, environment()))
    assert "HF_HUB_OFFLINE forbids to fetch it" in finding.detail
    assert finding.remedy == "unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE; hf download zai-org/AutoGLM-Phone-9B"
    (fill(cache) / "config.json").unlink()
    assert failed(check_weights(ON_GPU, environment())).detail.endswith(": no config.json")
    assert the_hub.asked == []


def test_not_on_the_hub(cache: Path, the_hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    the_hub.status = 401
    finding = failed(weights("zai-org/AutoGLM", revision="a/b"))
    assert finding.detail == f"{the_hub.url} has no public zai-org/AutoGLM (it answers 401)"
    assert finding.remedy == "--model zai-org/AutoGLM-Phone-9B, or a folder; HF_TOKEN for a private one"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    note, _ = weights("zai-org/AutoGLM", revision="a/b")
    assert (note.state, note.remedy) == ("note", "try: hf download zai-org/AutoGLM --revision a/b")
    assert the_hub.asked == [("/zai-org/AutoGLM/resolve/a%2Fb/config.json", None)] * 2, "and the token stays here"


def test_the_hub_cannot_be_reached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setattr(hub, "SECONDS", 0.2)
        slow = failed(check_weights(ON_GPU, environment()))
    closed = failed(check_weights(ON_GPU, environment()))
    assert f"{url} cannot be reached (" in slow.detail
    assert closed.detail.startswith(f"{url} cannot be reached ([Errno 111] Connection refused)")
    assert closed.detail.endswith(f" for zai-org/AutoGLM-Phone-9B (not in {cache.parent})")
    assert closed.remedy == "--model FOLDER of a checkpoint, export HF_ENDPOINT=MIRROR, or --profile tiny"


def test_no_room_for_the_download(cache: Path, the_hub: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DOWNLOAD_GIB", 10**6)
    finding = failed(check_weights(ON_GPU, environment()))
    assert finding.detail.endswith("1000000 needed for the download")
    assert finding.remedy == "export HF_HOME=FOLDER on a larger disk"
