"""P25: what the launcher starts listens to this machine alone and takes nothing but pictures within a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server_stub.command import Command
from server_stub.engines import engine_for
from server_stub.errors import ServeError
from server_stub.options import ServeOptions
from server_stub.process import Server
from server_stub.profiles import PROFILES

from .. import fake_servers
from ..fake_servers import MakeServer, engines_on, quiet_read

own_state, make_server = fake_servers.own_state, fake_servers.make_server  # fixtures hold where they are named

KEY = "sk-that-nobody-may-see"
EVERYWHERE = ["0.0.0.0", "::", "192.168.1.5", "gpu-box"]
VLLM = [name for name, profile in PROFILES.items() if engine_for(profile.options()).title == "vLLM"]


def command(options: ServeOptions) -> Command:
    return engine_for(options).command(options, Path("/env/bin/python"))


def values(made: Command) -> dict[str, str]:
    """Each flag with what follows it."""
    return dict(zip(made.argv, [*made.argv[1:], ""], strict=True))


@pytest.mark.parametrize("name", VLLM)
def test_p25_every_profile_is_closed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "1")
    made = command(PROFILES[name].options())
    said = values(made)
    assert said["--host"] == "127.0.0.1"
    assert said["--allowed-media-domains"] == "none.invalid"
    assert json.loads(said["--limit-mm-per-prompt"])["video"] == 0
    assert "--allowed-local-media-path" not in said
    assert "--trust-remote-code" not in said
    assert "--api-key" not in said
    assert made.full_environment()["VLLM_MEDIA_URL_ALLOW_REDIRECTS"] == "0"
    assert made.full_environment()["VLLM_MAX_IMAGE_PIXELS"] == "25000000"


@pytest.mark.parametrize("host", EVERYWHERE)
@pytest.mark.parametrize("engine", ["vllm", "sglang", "tensorrt-llm", "transformers"])
def test_p25_no_public_address_without_a_key(engine: Any, host: str) -> None:
    with pytest.raises(ServeError, match="key"):
        command(ServeOptions(engine=engine, host=host))


@pytest.mark.parametrize("host", EVERYWHERE)
def test_p25_the_key_goes_by_the_environment(host: str) -> None:
    made = command(ServeOptions(host=host, api_key=KEY))
    assert KEY not in f"{made} {made!r} {made.shown_environment()}"
    assert made.full_environment()["VLLM_API_KEY"] == KEY
    assert Server(host=host).api_key, "one is made where none is given"


@pytest.mark.parametrize("option", ["--host", "--port=1", "--api-key", "--api_key=x"])
def test_p25_no_option_opens_what_is_closed_here(option: str) -> None:
    with pytest.raises(ServeError):
        Server(ServeOptions(extra=(option, "x")))


def test_p25_as_the_process_runs(make_server: MakeServer, tmp_path: Path) -> None:
    with make_server(api_key=KEY) as server:
        (engine,) = engines_on(server.options.port)
        assert KEY.encode() not in quiet_read(Path(f"/proc/{engine}/cmdline"))
        assert f"VLLM_API_KEY={KEY}".encode() in quiet_read(Path(f"/proc/{engine}/environ")).split(b"\0")
        shown = [path for path in Path("/proc").glob("[0-9]*/cmdline") if KEY.encode() in quiet_read(path)]
        assert shown == []
        assert _addresses(server.options.port) == {"127.0.0.1"}
        with server.client() as glm:
            assert glm.chat("Hi").text == "Hello"
        written: list[Any] = [
            path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
        ]
        assert written == []


def _addresses(port: int) -> set[str]:
    """Where this machine listens on a port, from the kernel's own table."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, number = line.split()[1].split(":")
        if int(number, 16) == port and line.split()[3] == "0A":
            found.add(".".join(str(part) for part in reversed(bytes.fromhex(address))))
    return found
