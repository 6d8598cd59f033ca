"""Replicas behind Ray Serve on this machine's CPU: 8 GB of memory and two minutes; one of them is killed at work.

They run where ``AUTOGLM_RAY_PYTHON`` names the interpreter of an environment with Ray; ``scripts/install-engine ray``
makes one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from autoglm_client import (
    AsyncAutoGLM,
    AuthenticationFailed,
    AutoGLM,
    AutoGLMError,
    BadRequest,
    ChatOptions,
    ContextOverflow,
    NotFound,
    Reply,
    StreamInterrupted,
    assistant,
    image,
    system,
    user,
)
from autoglm_client._check import check
from server_stub.cluster.ray_config import llm_config, serve_file
from server_stub.engines.vllm import VLLM
from server_stub.process import Server
from server_stub.profiles import PROFILES
from server_stub.supervisor.records import running

from .clients import screenshot
from .leftovers import Family, is_free, shared_memory, ticks

HERE = Path(__file__).parent
PYTHON = os.environ.get("AUTOGLM_RAY_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="AUTOGLM_RAY_PYTHON names no environment with Ray")

TOKENS = 2000  # 600 are generated within two seconds, long before they are delivered: too late to interrupt anything
LONG: ChatOptions = {"temperature": 0, "max_tokens": TOKENS, "ignore_eos": True}
STREAMS = CHATS = 8

CONFIGURATIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"replicas": 2}) for name in PROFILES),
    ("2x24gb", {"replicas": 2, "nodes": 2, "max_replicas": 4}),
    (
        "2x24gb",
        {"replicas": 2, "nodes": 2, "pipeline_parallel": 2, "reasoning_parser": "glm45", "tool_parser": "glm45"},
    ),
    (
        "48gb",
        {"replicas": 3, "quantization": "fp8", "prefix_caching": False, "revision": "1e9", "extra": ("--seed=7",)},
    ),
]


@pytest.fixture(scope="module")
def checked() -> list[list[dict[str, Any]]]:
    """For each configuration: vLLM's settings under Ray, the file for ``serve deploy`` as read, vLLM's own reading."""
    options = [PROFILES[name].options(**changes) for name, changes in CONFIGURATIONS]
    asked = [(llm_config(it), serve_file(it), VLLM.command(it, Path(PYTHON)).argv[3:]) for it in options]
    run = subprocess.run(
        [PYTHON, HERE / "check_ray_configurations.py"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    answers: list[list[dict[str, Any]]] = json.loads(run.stdout.splitlines()[-1])
    return answers


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)), ids=lambda number: CONFIGURATIONS[number][0])
def test_rays_own_classes_take_the_configuration(checked: list[list[dict[str, Any]]], number: int) -> None:
    under_ray, file, alone = checked[number]
    name, changes = CONFIGURATIONS[number]
    options = PROFILES[name].options(**changes)
    given = llm_config(options)["engine_kwargs"]
    assert {key: under_ray[key] for key in given} == {key: alone[key] for key in given}
    assert under_ray["served_model_name"] == list(options.served_names)
    assert len(under_ray["bundles"]) == max(1, options.tensor_parallel * options.pipeline_parallel)
    assert file["http_options"]["host"] == "127.0.0.1"
    assert file["applications"][0]["args"]["llm_configs"] == [llm_config(options)]


@pytest.fixture(scope="module")
def before() -> set[str]:
    """What lay in shared memory before the server was started."""
    return shared_memory()


@pytest.fixture(scope="module")
def server(before: set[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    began = time.monotonic()
    log = tmp_path_factory.mktemp("ray") / "ray.log"
    with Server(profile="tiny", replicas=2, port=0, api_key="ray-key", python=PYTHON, log=log) as server:
        print(f"\ntwo replicas are ready after {time.monotonic() - began:.0f} s")
        yield server


@pytest.fixture
def glm(server: Server) -> Iterator[AutoGLM]:
    with server.client(max_attempts=1) as glm:
        yield glm


def test_the_client_understands_the_ingress(server: Server, glm: AutoGLM) -> None:
    assert glm.health()
    (model,) = glm.models()
    assert (model.id, model.max_model_len) == ("autoglm-phone-9b", server.options.context)
    states = {finding.name: finding.state for finding in check(glm)}
    assert "FAIL" not in states.values()
    assert states["image"] == states["stream"] == states["model"] == "ok"


def test_a_stream_and_a_plain_reply_are_equal(glm: AutoGLM) -> None:
    plain = glm.chat([user(image(screenshot()), "Hi")], temperature=0)
    with glm.stream([user(image(screenshot()), "Hi")], temperature=0) as stream:
        streamed = stream.finish()
    assert (streamed.raw, streamed.usage) == (plain.raw, plain.usage)


def test_refusals_become_our_errors(glm: AutoGLM, server: Server) -> None:
    with pytest.raises(NotFound, match="gpt"):
        glm.chat("Hi", model="gpt")
    with pytest.raises(BadRequest, match=r"temperature must be non-negative, got -1\.0\.") as refused:
        glm.chat("Hi", temperature=-1)
    assert "Internal exception" not in str(refused.value)
    with pytest.raises(ContextOverflow, match="maximum context length is"):
        glm.chat("打开 settings " * 3000)
    with pytest.raises(BadRequest, match="allowed domains"):
        glm.chat(user(image("http://127.0.0.1:9/x.png"), "Hi"), allow_remote_images=True)


def test_the_key_is_asked_for(server: Server) -> None:
    with server.client(api_key="wrong") as other, pytest.raises(AuthenticationFailed):
        other.models()
    assert "ray-key" not in server.log.read_text()


def test_the_prompt_is_rendered_as_text(glm: AutoGLM) -> None:
    """Lists printed into the prompt would cost many tokens for each of these turns."""
    turns = [system("a"), user("b"), assistant("c"), user("d")]
    usage = glm.chat(turns, max_tokens=1).usage
    assert usage is not None
    assert usage.prompt_tokens is not None
    assert usage.prompt_tokens < 25


async def test_a_replica_is_killed_at_work(server: Server) -> None:
    begun = asyncio.Semaphore(0)
    async with server.async_client() as glm:
        calls: list[asyncio.Task[Any]] = [asyncio.create_task(streamed(glm, begun)) for _ in range(STREAMS)]
        async with asyncio.timeout(60):
            for _ in range(STREAMS):
                await begun.acquire()
        victim = await busiest(engine_processes())  # while streams are all its work: chats may go to the other alone
        calls += [asyncio.create_task(asked(glm)) for _ in range(CHATS)]
        await asyncio.sleep(0.3)
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        outcomes = await asyncio.gather(*calls)
        after = await asyncio.gather(*(asked(glm, max_tokens=4) for _ in range(6)))
        await asyncio.to_thread(wait_for_replicas, 2)
        replaced = time.monotonic() - killed
        later = [await asked(glm, max_tokens=4) for _ in range(6)]

    streams, chats = outcomes[:STREAMS], [*outcomes[STREAMS:], *after]
    print(
        f"\nstreams {Counter(map(told, streams))}, chats {Counter(map(told, chats))}; replaced after {replaced:.0f} s"
    )
    for outcome in outcomes:
        if isinstance(outcome, Reply):
            assert (outcome.finish_reason, outcome.usage and outcome.usage.completion_tokens) == ("length", TOKENS)
    for stream in streams:
        assert isinstance(stream, Reply) or (stream.partial and stream.partial.raw)
    assert "interrupted" in [told(stream) for stream in streams]  # the killed replica had work
    refused = [chat for chat in chats if not isinstance(chat, Reply)]  # when the budget of retries is used up
    assert all(chat.retryable and chat.partial is None for chat in refused)
    assert len(refused) <= len(chats) / 2  # the other replica lives
    assert [told(reply) for reply in later if not isinstance(reply, Reply)] == []


def wait_for_replicas(count: int, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while len(engine_processes()) < count:
        assert time.monotonic() < deadline, "the replica was not replaced"
        time.sleep(0.5)


async def busiest(engines: list[int]) -> int:
    """The one that works most for a moment."""
    before = {engine: work(engine) for engine in engines}
    await asyncio.sleep(0.3)
    return max(engines, key=lambda engine: work(engine) - before[engine])


def work(engine: int) -> int:
    """Ticks of the processors that an engine and its children have used."""
    return sum(map(ticks, Family(engine).living()))


async def streamed(glm: AsyncAutoGLM, begun: asyncio.Semaphore) -> Reply | StreamInterrupted:
    try:
        async with glm.stream("Who are you?", **LONG) as stream:
            begun.release()  # a stream is open when its first event is there
            return await stream.finish()
    except StreamInterrupted as error:
        return error


async def asked(glm: AsyncAutoGLM, **options: Any) -> Reply | AutoGLMError:
    try:
        return await glm.chat("Who are you?", **{**LONG, **options})
    except AutoGLMError as error:
        return error


def told(outcome: Reply | AutoGLMError) -> str:
    if isinstance(outcome, Reply):
        return "whole" if outcome.attempts == 1 else "asked again"
    return "interrupted" if isinstance(outcome, StreamInterrupted) else f"refused after {outcome.attempts}"


def test_nothing_is_left(server: Server, before: set[str]) -> None:
    [guard] = [record.pid for record in running() if record.url == server.base_url]
    family = Family(guard)
    assert len(family.living()) > 10
    server.stop()
    assert family.living() == []
    assert is_free(server.options.port)
    assert shared_memory() <= before


def engine_processes() -> list[int]:
    """The processes of vLLM that Ray started."""
    return [int(process.name) for process in Path("/proc").glob("[0-9]*") if is_engine(process)]


def is_engine(process: Path) -> bool:
    with suppress(OSError):
        under_ray = b"\0RAY_TMPDIR=" in (process / "environ").read_bytes()
        return under_ray and (process / "cmdline").read_bytes().startswith(b"VLLM::EngineCore")
    return False
