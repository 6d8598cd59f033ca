"""P20: the key, and what else is secret among the headers, is shown to nobody but the server."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import json
import logging
import pickle
import traceback
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import CodeType, FrameType, FunctionType, GeneratorType, ModuleType, TracebackType
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from langchain_core.load import dumps
from langchain_core.runnables import Runnable

from autoglm_client import AsyncAutoGLM, AutoGLM, AutoGLMError, ConfigurationError, RequestTimedOut, Timeouts
from autoglm_client._call import Guard
from autoglm_client._secret import Secret, SecretHeaders
from autoglm_client.langchain import ChatAutoGLM

from ..conftest import ClientFactory
from ..raw_server import HEAD, Step, deaf_server, delta, event, finish, plain, raw_server, reset


class Hidden:
    """Holds the keys of a test, so that its own frames do not show them."""

    def __init__(self) -> None:
        self.key = "/".join(["sk-live", "0123456789abcdef\\\"+'xyz"])
        self.header = "-".join(["hk", "fedcba9876543210"])

    def among(self, text: str) -> bool:
        return any(one in text for secret in (self.key, self.header) for one in self.written(secret))

    def written(self, secret: str) -> list[str]:
        """As it is, its beginning, and as somebody may still read it."""
        escaped = "".join(f"\\u{ord(char):04x}" for char in secret)
        encoded = [b64encode(b"-" * before + secret.encode())[4:-4].decode() for before in range(3)]
        return [secret, secret[:16], repr(secret)[1:-1], escaped, escaped.upper().replace("U", "u"), *encoded]

    def settings(self) -> dict[str, Any]:
        return {"api_key": self.key, "headers": {"X-Team-Key": self.header}}


HIDDEN = Hidden()
ANSWER = plain(b'{"choices":[{"index":0,"message":{"content":"hello"},"finish_reason":"stop"}]}')
STREAM: list[Step] = [HEAD, delta("a"), finish()]


def found(root: object, *, foreign: bool = True) -> list[str]:
    """The ways that lead from an object to a secret; the two holders are where it may be.

    The frames of a traceback are left to `told`, which shows what a reporter of errors would.
    """
    ways: list[str] = []
    seen: dict[int, object] = {}
    waiting: deque[tuple[str, object]] = deque([("", root)])
    while waiting:
        way, one = waiting.popleft()
        if id(one) in seen or isinstance(
            one, Secret | SecretHeaders | type | ModuleType | CodeType | FrameType | TracebackType | Hidden
        ):
            continue
        seen[id(one)] = one  # kept, or its number would be given again
        if isinstance(one, str | bytes | bytearray | memoryview):
            text = one if isinstance(one, str) else bytes(one).decode("latin-1")
            ways += [way] if HIDDEN.among(text) else []
        elif foreign or _is_ours(one):
            waiting.extend((f"{way}.{name}", part) for name, part in _parts(one))
    return ways


def _is_ours(one: object) -> bool:
    kind = type(one).__module__
    return kind.startswith("autoglm_client") or kind in {"builtins", "collections", "functools"}


def _parts(one: object) -> Iterable[tuple[str, object]]:
    if isinstance(one, FunctionType):
        return [("closure", cell.cell_contents) for cell in one.__closure__ or () if cell != type(cell)()]
    if isinstance(one, Mapping):
        return [*((f"[{key!r}]", value) for key, value in one.items()), *(("key", key) for key in one)]
    slots = [slot for kind in type(one).__mro__ for slot in getattr(kind, "__slots__", ())]
    named = [(slot, getattr(one, slot)) for slot in slots if isinstance(slot, str) and hasattr(one, slot)]
    held = [(type(part).__name__, part) for part in gc.get_referents(one) if not isinstance(part, FunctionType)]
    more = [(name, getattr(one, name)) for name in ("__cause__", "__context__") if hasattr(one, name)]
    return [*named, *held, *more] if not isinstance(one, GeneratorType) else held


def told(error: BaseException) -> str:
    """All that a reporter of errors may show: words, attributes, tracebacks with every local, a pickle."""
    assert error.__traceback__ is not None
    error = error.with_traceback(error.__traceback__.tb_next)  # without the test itself
    kept = pickle.dumps(error).decode("latin-1") if isinstance(error, AutoGLMError) else ""
    lines = traceback.TracebackException.from_exception(error, capture_locals=True).format()
    return "".join([str(error), repr(error), str(vars(error)), *lines, kept])


ASKS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda glm: glm.chat("x"),
    "stream": lambda glm: glm.stream("x").__enter__().finish(),
    "models": lambda glm: glm.models(),
}


def test_the_walk_finds_what_is_there() -> None:
    class Slotted:
        __slots__ = ("part",)

    deep: Any = Slotted()
    deep.part = {"a": [lambda: HIDDEN.key, {"b": (b"x" + HIDDEN.key.encode(),)}]}
    assert len(found(deep)) == 1
    assert found(HIDDEN.settings()) == [".['api_key']", ".['headers'].['X-Team-Key']"]


def test_p20_no_object_shows_it(make_client: ClientFactory) -> None:
    with raw_server(STREAM) as server:
        glm = make_client(server.url, **HIDDEN.settings(), options={"extra_headers": {"api-key": HIDDEN.header}})
        reply = glm.chat("x")
        assert HIDDEN.key.encode() in server.requests[0]
        stream = glm.stream("x")
        with stream:
            assert found(stream, foreign=False) == []
            stream.finish()
        for one in (glm, reply, stream):
            assert found(one) == []
            assert not HIDDEN.among(repr(one) + str(one) + str(getattr(one, "__dict__", "")))


@pytest.mark.parametrize(
    "url",
    [
        "http://user:SECRET@host/v1",
        "http://SECRET@host/v1",
        "http://user:SECRET@host:99999/v1",
        "ftp://SECRET@host",
        "ftp://user:SECRET@host",
        "user:SECRET@host:8000/v1",
        "http://user:SECRET#x@host",
        "http://user:SECRET/x@host",
        "http://:SECRET@/v1",
        "http://user:SECRET@[::1/v1",
        "http://host:SECRET/v1",
        "http://host?key=SECRET",
        "http://host#SECRET",
    ],
)
def test_p20_no_wrong_address_shows_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url") as caught:
        AutoGLM(url.replace("SECRET", HIDDEN.key))
    assert not HIDDEN.among(str(caught.value))


@pytest.mark.parametrize("kind", [AutoGLM, AsyncAutoGLM])
def test_p20_the_plain_client_shows_it_in_its_holders_alone(kind: Any) -> None:
    glm = kind("http://127.0.0.1:9/v1", **HIDDEN.settings())
    assert found(glm) == []
    assert not HIDDEN.among(str(vars(glm)) + str(vars(glm._configuration)))
    assert len(glm._configuration._headers) == 1
    for holder in (glm._configuration._key, glm._configuration._headers):
        assert not HIDDEN.among(f"{holder} {holder!r}")
        with pytest.raises(TypeError, match="pickled"):
            pickle.dumps(holder)


def echo(secret: str) -> str:
    """In every way in which a server may write it."""
    return json.dumps(
        {
            "plain": secret,
            "header": f"Authorization: Bearer {secret}",
            "url": quote(secret, safe=""),
            "url, little": quote(secret).lower(),
            "base64": [b64encode(b"-" * before + secret.encode() + b"-").decode() for before in range(4)],
        }
    ).replace("slashes", "")


ESCAPED = "".join(f"\\u{ord(char):04x}" for char in HIDDEN.key)
SAID = (
    echo(HIDDEN.key),
    echo(HIDDEN.key).replace("/", "\\/"),
    f'"{ESCAPED}"',
    f'"{HIDDEN.header} and {ESCAPED.upper().replace("U", "u")}"',
)


def failing() -> dict[str, list[Step]]:
    scripts: dict[str, list[Step]] = {
        "reset": [reset],
        "nothing": [b""],
        "cut": [HEAD, delta("a")],
        "status line": [f"HTTP/1.1 {HIDDEN.key}\r\n\r\n".encode()],
        "reason": [plain(b"{}", f"401 bad key {HIDDEN.key}")],
        "redirect to another path": [plain(b"", "307 Moved", f"Location: /v1/{HIDDEN.key}")],
        "header line": [f"HTTP/1.1 200 OK\r\nX-\x01{HIDDEN.key}: {HIDDEN.header}\r\n\r\n".encode()],
        "content type": [plain(b"{}", "200 OK", f"X-Key: {HIDDEN.key}")],
        "compressed": [plain(b"", "200 OK", "Content-Encoding: gzip", f"X: {HIDDEN.key}")],
        "redirect": [plain(b"", "307 Moved", f"Location: http://other/{HIDDEN.key}")],
        "request id": [plain(b"{}", "500 Failed", f"X-Request-Id: {HIDDEN.key}")],
        "no event": [HEAD, event(HIDDEN.key)],
        "no text": [plain(HIDDEN.key.encode())],
        "cut key": [plain(b"x" * 190 + HIDDEN.key.encode())],
        "large": [plain(b"x" * (64 * 1024 - 10) + HIDDEN.key.encode(), "400 Bad")],
        "silent": [20.0],
    }
    for number, said in enumerate(SAID):
        body = f'{{"error":{{"message":{said if said[0] == chr(34) else json.dumps(said)},"x":{said}}}}}'
        scripts[f"refused {number}"] = [plain(body.encode(), "401 Unauthorized")]
        scripts[f"said in the stream {number}"] = [HEAD, delta("a"), event(body)]
    for length in range(460, 500, 7):
        message = json.dumps({"error": {"message": "x" * length + HIDDEN.key + "x" * 100}})
        scripts[f"cut at {length}"] = [plain(message.encode(), "400 Bad")]
        scripts[f"cut in the stream at {length}"] = [HEAD, event(message)]
    return scripts


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
def test_p20_no_error_shows_it(make_client: ClientFactory, ask: Callable[[Any], Any]) -> None:
    shown: dict[str, Any] = {}
    for name, script in failing().items():
        with raw_server(script) as server:
            glm = make_client(server.url, **HIDDEN.settings(), max_attempts=1, timeout=1.0 if name == "silent" else 20)
            try:
                ask(glm)
            except AutoGLMError as error:
                caught = error
            else:
                continue  # the first pieces of some are a list of models
            if HIDDEN.among(told(caught)) or found(caught):
                shown[name] = (str(caught), told(caught)[-2000:], found(caught))
    assert shown == {}


def test_p20_nor_does_a_call_that_ends_while_it_sends_its_headers() -> None:
    """The HTTP library holds all of them as bytes then."""
    settings = HIDDEN.settings()
    settings["headers"] |= {"X-Large": "x" * 8_000_000}

    async def cancel(url: str) -> BaseException:
        async with AsyncAutoGLM(url, **settings) as glm:
            stream = glm.stream("x")
            task = asyncio.create_task(stream.__aenter__())
            async with asyncio.timeout(8):
                while stream._call.clock.link == "unknown":  # noqa: ASYNC110 - nobody tells when it begins to write
                    await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            return caught.value

    with deaf_server() as address:
        assert not HIDDEN.among(told(asyncio.run(cancel(f"http://{address}"))))
        timeout = Timeouts(send=0.5)
        with pytest.raises(RequestTimedOut) as caught:
            AutoGLM(f"http://{address}", **settings, timeout=timeout, max_attempts=1).chat("x")
        assert not HIDDEN.among(told(caught.value))


def test_p20_what_the_user_was_about_before_is_left_alone() -> None:
    def ask_elsewhere() -> None:
        mine = "my own local"
        raise httpx2.ReadError(mine[:2], request=httpx2.Request("GET", "http://elsewhere"))

    call = AutoGLM("http://127.0.0.1:9/v1")._configuration.request("GET", "http://h")
    with pytest.raises(AutoGLMError) as caught:
        try:
            ask_elsewhere()
        except httpx2.ReadError:
            with Guard(call):
                raise httpx2.WriteError("x") from None
    assert caught.value.__cause__ is not None
    earlier: Any = caught.value.__cause__.__context__
    assert (str(earlier), str(earlier.request.url)) == ("my", "http://elsewhere")
    shown = traceback.TracebackException.from_exception(earlier, capture_locals=True).format()
    assert "my own local" in "".join(shown)


@pytest.mark.parametrize(
    "wrong",
    [{"base_url": "nowhere"}, {"max_attempts": 0}, {"options": {"n": 0}}, {"timeout": -1}, {"api_key": 1}],
    ids=str,
)
def test_p20_no_constructor_shows_what_the_environment_holds(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    monkeypatch.setenv("AUTOGLM_API_KEY", HIDDEN.key)
    for kind in (AutoGLM, AsyncAutoGLM):
        with pytest.raises(ConfigurationError) as caught:
            kind(**({"base_url": "http://127.0.0.1:9/v1"} | wrong))
        assert not HIDDEN.among(told(caught.value))


def test_p20_nor_a_key_or_a_header_that_cannot_be_sent() -> None:
    glm = AutoGLM("http://127.0.0.1:9/v1", **HIDDEN.settings())
    asks: list[Callable[[], Any]] = [
        lambda: AutoGLM("http://127.0.0.1:9/v1", api_key=HIDDEN.key + "\n-"),
        lambda: glm.chat("x", extra_headers={"bad": "\n"}),
        lambda: glm.chat("x", temperature=float("nan")),
    ]
    for ask in asks:
        with pytest.raises(ConfigurationError) as caught:
            ask()
        assert not HIDDEN.among(told(caught.value))
    for headers in ({"api-key": HIDDEN.header + "\n"}, [("api-key", HIDDEN.header)]):
        with pytest.raises(ConfigurationError) as caught:
            AutoGLM("http://127.0.0.1:9/v1", headers=headers)  # type: ignore[arg-type]
        assert not HIDDEN.among(str(caught.value))
    with pytest.raises(ConfigurationError) as caught:
        AutoGLM(f"http://h/v1?key={HIDDEN.key}")
    assert not HIDDEN.among(str(caught.value))


@pytest.fixture
def logged() -> Iterable[io.StringIO]:
    """All that anybody logs at any level."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    root, loud = logging.getLogger(), [logging.getLogger(name) for name in ("httpx2", "httpcore2", "h11", "asyncio")]
    before = [(logger, logger.level) for logger in (root, *loud)]
    for logger, _ in before:
        logger.setLevel(1)
    root.addHandler(handler)
    yield said
    root.removeHandler(handler)
    for logger, level in before:
        logger.setLevel(level)


@pytest.mark.parametrize("script", [STREAM, *failing().values()], ids=["whole", *failing()])
def test_p20_no_log_shows_it(logged: io.StringIO, script: list[Step]) -> None:
    async def ask(url: str) -> None:
        async with AsyncAutoGLM(url, **HIDDEN.settings(), max_attempts=1, timeout=0.5) as glm:
            await glm.chat("x")

    with raw_server(script) as server:
        for call in (
            lambda: asyncio.run(ask(server.url), debug=True),
            lambda: AutoGLM(server.url, **HIDDEN.settings(), max_attempts=1, timeout=0.5).chat("x"),
        ):
            with suppress(AutoGLMError):
                call()
    assert "send_request_headers.started" in logged.getvalue()
    assert not HIDDEN.among(logged.getvalue())


def test_p20_what_others_log_is_left_alone(logged: io.StringIO) -> None:
    AutoGLM("http://127.0.0.1:9/v1")
    contextvars.Context().run(logging.getLogger("httpcore2.http11").debug, "of %s", "nobody's")
    assert logged.getvalue() == "of nobody's\n"


def chat_model(url: str = "http://127.0.0.1:9/v1", **settings: Any) -> ChatAutoGLM:
    return ChatAutoGLM(base_url=url, api_key=HIDDEN.key, default_headers={"X-Team-Key": HIDDEN.header}, **settings)


def test_p20_no_chat_model_shows_it() -> None:
    model = chat_model(model_kwargs={"extra_headers": {"api-key": HIDDEN.header}})
    bound = model.bind_tools([])
    shown: list[Runnable[Any, Any]] = [model, bound]
    for one in shown:
        for text in (repr(one), str(one), dumps(one), pickle.dumps(one).decode("latin-1")):
            assert not HIDDEN.among(text), text
    for value in (model.lc_attributes, model._identifying_params, model._get_ls_params(), vars(model._clients)):
        assert not HIDDEN.among(str(value))
    assert not HIDDEN.among(model._get_llm_string())


def test_p20_no_wrong_setting_of_a_chat_model_shows_it() -> None:
    for wrong in ({"url": "nowhere"}, {"n": "x"}, {"nonsense": 1}, {"max_retries": -2}):
        with pytest.raises(ValueError) as caught:
            chat_model(**wrong)
        assert not HIDDEN.among(str(caught.value)), wrong


def test_p20_no_error_of_a_chat_model_shows_it() -> None:
    for name in ("reset", "refused 0", "said in the stream 1", "request id"):
        with raw_server(failing()[name]) as server:
            model = chat_model(server.url, max_retries=0)
            asks: list[Callable[[ChatAutoGLM], Any]] = [lambda one: one.invoke("x"), lambda one: list(one.stream("x"))]
            for ask in asks:
                with pytest.raises(AutoGLMError) as caught:
                    ask(model)
                assert found(caught.value) == []
                assert not HIDDEN.among(str(caught.value) + repr(caught.value))
