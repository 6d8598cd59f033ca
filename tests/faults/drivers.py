"""Ways to ask: our client and its peers, each with the same settings, and every end of a call made an `Outcome`.

A call runs in a thread of its own, which is left behind when it hangs.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

from autoglm_client import AsyncAutoGLM, AutoGLM, AutoGLMError, Reply, Timeouts

from ..raw_server import RawServer, Step, deaf_server, raw_server, sipping_server
from .catalogue import Fault, Kind, Outcome

Library = Literal["ours", "openai", "ChatOpenAI"]
MODEL = "autoglm-phone-9b"
KEY = "sk-4f9a1c77e0d2"
SENDS = re.compile(rb"(POST|GET) \S*(?<!/health)(?<!/healthz)(?<!/models) HTTP/")


@dataclass(frozen=True, kw_only=True)
class Driver:
    """One way to ask: ``ask`` does so once and notes in the outcome what comes, or raises."""

    library: Library
    asynchronous: bool
    ask: Callable[[Fault, str, Outcome], None]
    own: Callable[[], tuple[type[BaseException], ...]]
    kind: Callable[[BaseException], Kind]

    def __str__(self) -> str:
        return f"{self.library}-{'async' if self.asynchronous else 'sync'}"

    def meet(self, fault: Fault) -> Outcome:
        """Put the fault on a socket and ask."""
        with _serving(fault) as (url, server, elsewhere):
            outcome = Outcome()
            thread = threading.Thread(target=self._run, args=(fault, url, outcome), daemon=True)
            started = time.monotonic()
            thread.start()
            thread.join(fault.wall)
            seconds = time.monotonic() - started
            found = replace(outcome, hung=thread.is_alive(), elsewhere=len(elsewhere.requests))
            found.asked = sum(bool(SENDS.match(request)) for request in server.requests)
            found.hung_up = fault.ideal.hung_up and server.hung_up.wait(1)
            found.seconds = seconds if found.hung or fault.calls == 1 else 0.0
            return found

    def _run(self, fault: Fault, url: str, outcome: Outcome) -> None:
        try:
            self.ask(fault, url, outcome)
        except Exception as error:
            self.note(error, outcome)

    def note(self, error: Exception, outcome: Outcome) -> None:
        """What an error says."""
        outcome.error = type(error).__name__
        outcome.typed = isinstance(error, self.own())
        outcome.words = str(error)
        outcome.kind = self.kind(error)
        partial: Reply | None = getattr(error, "partial", None)
        outcome.partial = None if partial is None else partial.reasoning + partial.text


@contextmanager
def _serving(fault: Fault) -> Iterator[tuple[str, RawServer, RawServer]]:
    """The address to ask, the server there, and another one."""
    with ExitStack() as stack:
        elsewhere = stack.enter_context(raw_server(*fault.elsewhere)) if fault.elsewhere else RawServer()
        if fault.server == "refuses":
            yield "http://127.0.0.1:9/v1", RawServer(), elsewhere
        elif fault.server != "raw":
            sips = fault.server == "sips"
            deaf = sipping_server() if sips else deaf_server(accepts=fault.server == "never reads")
            address = stack.enter_context(deaf)
            yield f"http://{address}/v1", RawServer(), elsewhere
        else:
            scripts = [_addressed(script, elsewhere.url) for script in fault.scripts]
            server = stack.enter_context(raw_server(*scripts))
            yield server.url, server, elsewhere


def _addressed(script: Sequence[Step], elsewhere: str) -> list[Step]:
    def filled(step: Step) -> Step:
        if not isinstance(step, bytes):
            return step
        return step.replace(b"{elsewhere}", elsewhere.encode()).replace(b"{here}", b"/v1")

    return [filled(step) for step in script]


def _repeat(fault: Fault, outcome: Outcome, ask: Callable[[], None]) -> None:
    """Ask as often as the fault says; the last end counts."""
    for call in range(1, fault.calls + 1):
        for name, value in vars(Outcome()).items():
            setattr(outcome, name, value)
        if call == fault.calls:
            ask()
        else:
            with suppress(Exception):
                ask()
            time.sleep(fault.pause)


def _read_ours(outcome: Outcome, reply: Reply) -> None:
    outcome.text, outcome.reasoning, outcome.finish = reply.text, reply.reasoning, reply.finish_reason


def _ours(fault: Fault, url: str, outcome: Outcome) -> None:
    def ask() -> None:
        if fault.way == "plain":
            _read_ours(outcome, glm.chat(fault.question))
            return
        with glm.stream(fault.question) as stream:
            for _ in stream:
                pass
            _read_ours(outcome, stream.reply)

    with AutoGLM(url, api_key=KEY, timeout=fault.timeouts) as glm:
        _repeat(fault, outcome, ask)


def _ours_async(fault: Fault, url: str, outcome: Outcome) -> None:
    async def ask(glm: AsyncAutoGLM) -> None:
        if fault.way == "plain":
            _read_ours(outcome, await glm.chat(fault.question))
            return
        async with glm.stream(fault.question) as stream:
            async for _ in stream:
                pass
            _read_ours(outcome, stream.reply)

    glm = AsyncAutoGLM(url, api_key=KEY, timeout=fault.timeouts)
    with asyncio.Runner() as runner:
        try:
            _repeat(fault, outcome, lambda: runner.run(ask(glm)))
        finally:
            runner.run(glm.close())


def one_limit(timeouts: Timeouts) -> float:
    """What a careful user gives a peer as its limit for a read: it has one for first and later tokens."""
    limits = (timeouts.first_token, timeouts.between_tokens)
    return min(timeouts.total or 600.0, max(limit or 600.0 for limit in limits))


def _peer_timeout(timeouts: Timeouts) -> Any:
    import httpx2

    total = timeouts.total or 600.0
    return httpx2.Timeout(
        one_limit(timeouts), connect=min(timeouts.connect or 5.0, total), write=min(timeouts.send or 30.0, total)
    )


def _add(outcome: Outcome, content: Any, holder: Any, finish: str | None) -> None:
    """A piece of an answer; the thinking has two names, and stands where the library leaves what it does not know."""
    outcome.text += content or ""
    outcome.reasoning += getattr(holder, "reasoning", None) or getattr(holder, "reasoning_content", None) or ""
    outcome.finish = finish or outcome.finish


def _openai_chunk(outcome: Outcome, chunk: Any) -> None:
    for choice in chunk.choices:
        _add(outcome, choice.delta.content, choice.delta, choice.finish_reason)


def _openai_whole(outcome: Outcome, completion: Any) -> None:
    choice = completion.choices[0]
    _add(outcome, choice.message.content, choice.message, choice.finish_reason)


def _openai_question(fault: Fault) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": fault.question}]}


def _openai(fault: Fault, url: str, outcome: Outcome) -> None:
    from openai import OpenAI

    def ask() -> None:
        if fault.way == "plain":
            _openai_whole(outcome, client.chat.completions.create(**_openai_question(fault)))
            return
        with client.chat.completions.create(**_openai_question(fault), stream=True) as stream:
            for chunk in stream:
                _openai_chunk(outcome, chunk)

    with OpenAI(base_url=url, api_key=KEY, timeout=_peer_timeout(fault.timeouts)) as client:
        _repeat(fault, outcome, ask)


def _openai_async(fault: Fault, url: str, outcome: Outcome) -> None:
    from openai import AsyncOpenAI

    async def ask() -> None:
        if fault.way == "plain":
            _openai_whole(outcome, await client.chat.completions.create(**_openai_question(fault)))
            return
        async with await client.chat.completions.create(**_openai_question(fault), stream=True) as stream:
            async for chunk in stream:
                _openai_chunk(outcome, chunk)

    client = AsyncOpenAI(base_url=url, api_key=KEY, timeout=_peer_timeout(fault.timeouts))
    with asyncio.Runner() as runner:
        try:
            _repeat(fault, outcome, lambda: runner.run(ask()))
        finally:
            runner.run(client.close())


def _langchain_message(outcome: Outcome, message: Any) -> None:
    extra = message.additional_kwargs
    outcome.text += message.text
    outcome.reasoning += extra.get("reasoning") or extra.get("reasoning_content") or ""
    outcome.finish = message.response_metadata.get("finish_reason") or outcome.finish


def chat_openai(url: str, timeouts: Timeouts, **more: Any) -> Any:
    """The peer in LangChain, as a careful user makes it."""
    from langchain_openai import ChatOpenAI
    from pydantic import SecretStr

    return ChatOpenAI(
        base_url=url,
        api_key=SecretStr(KEY),
        model=MODEL,
        timeout=_peer_timeout(timeouts),
        max_retries=2,
        stream_chunk_timeout=one_limit(timeouts),
        http_socket_options=(),
        **more,
    )


def _langchain(fault: Fault, url: str, outcome: Outcome) -> None:
    def ask() -> None:
        if fault.way == "plain":
            _langchain_message(outcome, model.invoke(fault.question))
            return
        for chunk in model.stream(fault.question):
            _langchain_message(outcome, chunk)

    model = chat_openai(url, fault.timeouts)
    _repeat(fault, outcome, ask)


def _langchain_async(fault: Fault, url: str, outcome: Outcome) -> None:
    async def ask() -> None:
        if fault.way == "plain":
            _langchain_message(outcome, await model.ainvoke(fault.question))
            return
        async for chunk in model.astream(fault.question):
            _langchain_message(outcome, chunk)

    model = chat_openai(url, fault.timeouts)
    with asyncio.Runner() as runner:
        _repeat(fault, outcome, lambda: runner.run(ask()))


_OUR_KINDS: dict[str, Kind] = {
    "ContextOverflow": "context",
    "BadRequest": "bad_request",
    "AuthenticationFailed": "key",
    "NotFound": "not_found",
    "RateLimited": "rate_limit",
    "ServerDied": "died",
    "ServerFailed": "server",
    "Redirected": "redirect",
    "RequestTimedOut": "timeout",
    "DeadlineExceeded": "timeout",
}
_PEER_KINDS: dict[str, Kind] = {
    "ContextOverflowError": "context",
    "BadRequestError": "bad_request",
    "UnprocessableEntityError": "bad_request",
    "AuthenticationError": "key",
    "PermissionDeniedError": "key",
    "NotFoundError": "not_found",
    "RateLimitError": "rate_limit",
    "InternalServerError": "server",
    "APITimeoutError": "timeout",
    "StreamChunkTimeoutError": "timeout",
}


def _by_class(kinds: dict[str, Kind]) -> Callable[[BaseException], Kind]:
    def kind(error: BaseException) -> Kind:
        names = {cls.__name__ for cls in type(error).__mro__}
        found = next((kind for name, kind in kinds.items() if name in names), None)
        status = getattr(error, "status_code", 0)  # openai's general class tells it apart by this
        return found or ("bad_request" if status == 413 else "other")

    return kind


def _own_of_ours() -> tuple[type[BaseException], ...]:
    return (AutoGLMError,)


def _own_of_openai() -> tuple[type[BaseException], ...]:
    from openai import OpenAIError

    return (OpenAIError,)


def _own_of_langchain() -> tuple[type[BaseException], ...]:
    """What its documentation names: openai's errors come out of it, and two families of its own."""
    from langchain_core.exceptions import LangChainException
    from langchain_openai import StreamChunkTimeoutError

    return (*_own_of_openai(), LangChainException, StreamChunkTimeoutError)


_OURS, _PEERS = _by_class(_OUR_KINDS), _by_class(_PEER_KINDS)
OURS = (
    Driver(library="ours", asynchronous=False, ask=_ours, own=_own_of_ours, kind=_OURS),
    Driver(library="ours", asynchronous=True, ask=_ours_async, own=_own_of_ours, kind=_OURS),
)
PEERS = (
    Driver(library="openai", asynchronous=False, ask=_openai, own=_own_of_openai, kind=_PEERS),
    Driver(library="openai", asynchronous=True, ask=_openai_async, own=_own_of_openai, kind=_PEERS),
    Driver(library="ChatOpenAI", asynchronous=False, ask=_langchain, own=_own_of_langchain, kind=_PEERS),
    Driver(library="ChatOpenAI", asynchronous=True, ask=_langchain_async, own=_own_of_langchain, kind=_PEERS),
)
