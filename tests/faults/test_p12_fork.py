"""P12: safe after fork: a child makes connections of its own, and the parent's go on unharmed."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from autoglm_client import AsyncAutoGLM, AutoGLM, ConfigurationError, StreamInterrupted, _pool
from server_stub import ScriptedServer

from ..raw_server import DONE, HEAD, RawServer, Step, delta, finish, kept, next_request, plain, raw_server
from ..wire_samples import DATA

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def answer(text: str) -> bytes:
    return kept(plain(b'{"choices":[{"index":0,"message":{"content":"%s"},"finish_reason":"stop"}]}' % text.encode()))


def run(program: str, server: RawServer, scheme: str = "http") -> list[str]:
    """What a program says that forks, in a process of its own, as this one has threads."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program)],
        env={**os.environ, "URL": server.url.replace("http", scheme, 1), "SSL_CERT_FILE": str(DATA / "localhost.pem")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Exception" not in done.stderr, done.stderr
    return done.stdout.split()


SYNC = """
    import os, sys
    from autoglm_client import AutoGLM

    glm = AutoGLM(os.environ["URL"], timeout=20)
    print("before", glm.chat("x").text, flush=True)
    if not (child := os.fork()):
        print("child", glm.chat("x").text, flush=True)
        glm.close()
        del glm
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
    print("after", glm.chat("x").text, flush=True)
    glm.close()
"""
ASYNC = """
    import asyncio, os, sys
    from autoglm_client import AsyncAutoGLM

    glm = AsyncAutoGLM(os.environ["URL"], timeout=20)

    async def ask():
        return (await glm.chat("x")).text

    with asyncio.Runner() as runner:
        print("before", runner.run(ask()), flush=True)
        if not (child := os.fork()):
            print("child", asyncio.run(ask()), flush=True)
            os._exit(0)  # the inherited loop shares its registrations with the parent's: asyncio must not close it
        assert os.waitpid(child, 0)[1] == 0
        print("after", runner.run(ask()), flush=True)
        runner.run(glm.close())
"""


def tls() -> Callable[[Any], Any]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(DATA / "localhost.pem")
    return lambda connection: context.wrap_socket(connection, server_side=True)


@pytest.mark.parametrize("program", [SYNC, ASYNC], ids=["sync", "async"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_p12_a_child_makes_connections_of_its_own(program: str, scheme: str) -> None:
    first: list[Step] = [answer("first"), next_request, answer("second"), 20.0]
    with raw_server(first, [answer("other"), 20.0], wrap=tls() if scheme == "https" else None) as server:
        assert run(program, server, scheme) == ["before", "first", "child", "other", "after", "second"]
        assert len(server.requests) == 2


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_p12_a_stream_that_is_open_belongs_to_the_parent(scheme: str) -> None:
    program = """
        import os, sys
        from autoglm_client import AutoGLM, StreamInterrupted

        glm = AutoGLM(os.environ["URL"], timeout=20)
        with glm.stream("x") as stream:
            next(stream)
            child = os.fork()
            if not child:
                try:
                    next(stream)
                except StreamInterrupted as error:
                    print(error.partial.text, flush=True)
                stream.cancel()
        if not child:
            with glm.stream("x") as stream:
                print(stream.finish().text, flush=True)
            sys.exit()
        print("unreachable")
    """
    program = program.replace(
        "            if not child:\n                try",
        "            if child:\n                assert os.waitpid(child, 0)[1] == 0\n"
        "                print(stream.finish().text, flush=True)\n"
        "                sys.exit()\n"
        "            if not child:\n                try",
    )
    open_one: list[Step] = [HEAD, delta("a"), 1.5, delta("b"), finish(), DONE]
    script: list[Step] = [HEAD, delta("other"), finish(), DONE]
    with raw_server(open_one, script, wrap=tls() if scheme == "https" else None) as server:
        assert run(program, server, scheme) == ["a", "other", "ab"]


def test_p12_many_children_at_once() -> None:
    """Every process asks for an app of its own name, again and again, beside the others."""
    program = """
        import os, sys
        from autoglm_client import AutoGLM

        glm = AutoGLM(os.environ["URL"], timeout=20)
        glm.chat("Open Warm")
        children = []
        for number in range(6):
            if not (child := os.fork()):
                children = None
                break
            children.append(child)
        name = f"App{os.getpid()}"
        for _ in range(10):
            assert glm.chat(f"Open {name}").action.app == name
        glm.close()
        for child in children or ():
            assert os.waitpid(child, 0)[1] == 0
    """
    with ScriptedServer() as server:
        assert run(program, RawServer(url=server.base_url)) == []


def test_p12_a_hang_up_of_the_parent_is_seen_though_a_child_holds_the_descriptor() -> None:
    program = """
        import asyncio, os, time
        from autoglm_client import AsyncAutoGLM

        async def leave():
            async with AsyncAutoGLM(os.environ["URL"]) as glm, glm.stream("x") as stream:
                await anext(stream)
                if not (child := os.fork()):
                    time.sleep(5)
                    os._exit(0)
            return child

        child = asyncio.run(leave())
        os.waitpid(child, 0)
    """
    with raw_server([HEAD, delta("a"), 20.0]) as server:
        thread = threading.Thread(target=run, args=(program, server))
        thread.start()
        server.wait_for(1, 20)
        assert server.hung_up.wait(4), "only when the child has ended"
        thread.join()


def test_p12_a_client_of_ones_own_is_refused_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    with httpx2.Client() as own, raw_server([answer("first")]) as server:
        glm = AutoGLM(server.url, http_client=own)
        assert glm.chat("x").text == "first"
        monkeypatch.setattr("os.getpid", lambda: 1)
        with pytest.raises(ConfigurationError, match="before a fork"):
            glm.chat("x")


async def test_p12_an_async_client_of_ones_own_is_refused_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    async with httpx2.AsyncClient() as own:
        glm = AsyncAutoGLM("http://127.0.0.1:9/v1", http_client=own)
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda: 1)
            with pytest.raises(ConfigurationError, match="before a fork"):
                await glm.chat("x")


def test_p12_every_pool_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    never, asked = AutoGLM("http://127.0.0.1:9/v1"), AsyncAutoGLM("http://127.0.0.1:9/v1")
    pools = {never._pool, asked._pool}
    monkeypatch.setattr(_pool, "_pools", lambda: pools)
    inherited = len(_pool._inherited)
    _pool._forget_all()
    assert len(_pool._inherited) == inherited + len(pools)


def test_p12_a_system_that_cannot_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.register_at_fork")
    assert len(_pool._pools.__wrapped__()) == 0


def test_p12_what_was_inherited_is_kept_and_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps of a child, in this process: it believes to be another one."""
    script: list[Step] = [answer("first"), next_request, HEAD, delta("a"), 1.5, delta("b"), finish()]
    with raw_server(script, [answer("other"), 20.0]) as server, AutoGLM(server.url) as glm:
        assert glm.chat("x").text == "first"
        with glm.stream("x") as stream:
            next(stream)
            inherited = len(_pool._inherited)
            with monkeypatch.context() as patch:
                patch.setattr("autoglm_client._transport.getpid", lambda: 1)
                patch.setattr("os.getpid", lambda: 1)
                glm._pool.forget()
                assert len(_pool._inherited) == inherited + 1
                assert stream._answer._response is not None
                connection = stream._answer._response.extensions["network_stream"]
                connection.close()
                stream.close()
                stream.cancel()
                with pytest.raises(httpx2.ReadError, match="process"):
                    next(stream._answer.chunks)
            assert not server.hung_up.wait(0.3)
            connection.close()
        assert glm.chat("x").text == "other"
        _pool._inherited.pop()


async def test_p12_what_was_inherited_by_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server([HEAD, delta("a"), 20.0], [answer("other"), 20.0]) as server:
        async with AsyncAutoGLM(server.url) as glm, glm.stream("x") as stream:
            await anext(stream)
            with monkeypatch.context() as patch:
                patch.setattr("autoglm_client._transport.getpid", lambda: 1)
                glm._pool.forget()
                assert stream._answer._response is not None
                connection = stream._answer._response.extensions["network_stream"]
                await connection.aclose()
                with pytest.raises(StreamInterrupted, match="process"):
                    await stream.finish()
            assert not server.hung_up.is_set()
            await connection.aclose()
            assert (await glm.chat("x")).text == "other"
        clients = _pool._inherited.pop()
        assert isinstance(clients, tuple)
        for client in list(clients[1].values()):
            await client.aclose()
