"""A server that speaks vLLM's HTTP without a model: it answers by the rules in `rules`, and starts at once."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, get_args

from .bodies import Generation, ReasoningForm, generate
from .checks import check_length, check_request, token_budget
from .listener import Listener
from .pictures import NOWHERE
from .prompt import Prompt, render
from .rules import Answer, respond

__all__ = ["RecordedRequest", "ScriptedServer"]

Rule = Callable[[dict[str, Any]], str | Answer | None]


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A POST as it arrived: header names in lower case, ``body`` None when it was no JSON object."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any] | None


class ScriptedServer:
    r"""A stand-in for a vLLM server with AutoGLM-Phone-9B; use it with ``with``, or `start` and `close`.

    ``answer`` is asked before the script: a function of the request's body that gives raw text with its tags
    (``"<think>...</think>\n<answer>..."``), an `Answer`, or None for the script's own. ``reasoning`` says where
    thinking shows: ``"tags"`` is a server without a parser (tags are visible when the request says
    ``skip_special_tokens: false``), ``"stripped"`` never shows tags, ``"reasoning"`` and ``"reasoning_content"`` are
    servers with a parser. With ``tool_parser`` it takes ``tools``, as vLLM with ``--tool-call-parser`` does, and counts
    them as part of the prompt. Pictures named by URL are taken for granted from ``allowed_media_domains``, never
    fetched, and refused from all others. ``pace`` is the time in seconds between two tokens.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        model: str = "autoglm-phone-9b",
        aliases: Sequence[str] = (),
        max_model_len: int = 25480,
        pace: float = 0.0,
        reasoning: ReasoningForm = "tags",
        tool_parser: bool = True,
        allowed_media_domains: Sequence[str] = NOWHERE,
        api_key: str | None = None,
        answer: Rule | None = None,
        record: bool = True,
    ) -> None:
        if reasoning not in get_args(ReasoningForm):
            raise ValueError(f"reasoning must be one of {', '.join(get_args(ReasoningForm))}, not {reasoning!r}")
        self.host, self.port = host, port
        self.models = [model, *aliases]
        self.max_model_len = max_model_len
        self.pace = pace
        self.reasoning: ReasoningForm = reasoning
        self.tool_parser = tool_parser
        self.allowed_media_domains = list(allowed_media_domains)
        self.answer = answer
        self.requests: list[RecordedRequest] = []
        """Every POST so far, refused ones included (unless ``record=False``)."""
        self.running = 0
        """How many answers are being generated now; `/metrics` tells it too."""
        self._api_key = api_key
        self._record = record
        self._failures: list[tuple[int, str, dict[str, str]]] = []
        self._lock = threading.Lock()
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """What a client takes as its base URL, ``http://127.0.0.1:PORT/v1``."""
        return f"http://{self._reachable}:{self.port}/v1"

    @property
    def _reachable(self) -> str:
        return "127.0.0.1" if self.host in ("", "0.0.0.0") else self.host  # noqa: S104 - read, not bound

    def start(self) -> Self:
        """Bind the port and serve from a thread of its own; the port is known when this returns."""
        if self._listener is None:
            self._listener = Listener((self.host, self.port), self)
            self.port = self._listener.server_address[1]
            self._thread = threading.Thread(target=self._listener.serve, daemon=True)
            self._thread.start()
        return self

    def close(self) -> None:
        """Stop: open connections are cut, and their threads have ended when this returns."""
        listener, self._listener = self._listener, None
        if listener is not None and self._thread is not None:
            listener.stop(self._reachable)
            self._thread.join()
            listener.server_close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def fail(self, status: int = 503, *, times: int = 1, message: str = "Scripted failure", **headers: str) -> None:
        """Answer the next ``times`` chat requests with ``status``; ``retry_after="1"`` adds that header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with self._lock:
            self._failures += [(status, message, named)] * times

    def prompt(self, request: dict[str, Any]) -> Prompt:
        """Put the prompt of a chat request together; raises what is to be refused of its messages."""
        return render(request, tools=self.tool_parser, domains=self.allowed_media_domains)

    def generation(self, request: dict[str, Any], *, name: str = "") -> Generation:
        """Work out the answer to a chat request, the same for plain and streamed; raises what is to be refused."""
        check_request(request, self.models, tool_parser=self.tool_parser)
        prompt = self.prompt(request)
        check_length(prompt, request, self.max_model_len)
        return generate(
            self._answer(request, prompt),
            request,
            prompt,
            form=self.reasoning,
            budget=token_budget(prompt, request, self.max_model_len),
            model=self.models[0],
            name=name or secrets.token_hex(8),
        )

    def _answer(self, request: dict[str, Any], prompt: Prompt) -> Answer:
        own = self.answer(request) if self.answer else None
        if own is None:
            return respond(request, prompt, parser=self.reasoning in ("reasoning", "reasoning_content"))
        return Answer(own) if isinstance(own, str) else own

    def admits(self, authorization: str | None) -> bool:
        """Whether this ``Authorization`` header opens the routes under ``/v1``."""
        scheme, _, key = (authorization or "").partition(" ")
        given, wanted = key.encode(), (self._api_key or "").encode()
        return self._api_key is None or (scheme.lower() == "bearer" and secrets.compare_digest(given, wanted))

    def remember(self, path: str, headers: dict[str, str], body: dict[str, Any] | None) -> None:
        """Note a request for the tests that read `requests`."""
        if self._record:
            with self._lock:
                self.requests.append(RecordedRequest(path, headers, body))

    def next_failure(self) -> tuple[int, str, dict[str, str]] | None:
        """Take the failure that the next chat request is to meet, if one was ordered with `fail`."""
        with self._lock:
            return self._failures.pop(0) if self._failures else None

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count an answer as running while it is generated."""
        with self._lock:
            self.running += 1
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1
