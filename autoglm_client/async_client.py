"""The async client: what can be asked. Every decision lives in the layers below.

``client.py`` is derived from this file by ``scripts/derive_sync.py``: change this one and run it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, Unpack

from . import defaults
from ._call import Call
from ._checks import checked_options
from ._concurrency import Together, async_map, async_pause
from ._exchange import Configuration, read_shape
from ._pool import AsyncPool
from ._secret import Secret
from .async_stream import AsyncReplyStream, async_is_well, async_read
from .errors import (
    AutoGLMError,
    ConfigurationError,
    ConnectionFailed,
    InvalidReply,
    ServerFailed,
    StatusError,
)
from .messages import Messages
from .reply import Reply
from .timeouts import Timeouts
from .wire import ChatOptions, ModelCard, ModelList, Resume, Tokens

if TYPE_CHECKING:
    import httpx
    import httpx2
    from pydantic import BaseModel

__all__ = ["AsyncAutoGLM"]

Model = TypeVar("Model", bound="BaseModel")


class AsyncAutoGLM:
    """A client for AutoGLM-Phone-9B behind any OpenAI-compatible endpoint.

    Arguments win over the variables ``AUTOGLM_BASE_URL``, ``AUTOGLM_API_KEY`` and ``AUTOGLM_MODEL``, these over
    Open-AutoGLM's ``PHONE_AGENT_*``, these over a vLLM on this machine. ``options`` are defaults for every call. A
    message that names a picture (or a sound, a film) by an http(s) URL is refused unless ``allow_remote_images``: this
    client fetches nothing, so **the server would fetch it**, and what it can reach may be private. An
    ``http_client`` of your own, of httpx2 or httpx, stays yours to close; redirects are not followed with it either,
    and the clocks are held between one piece of the answer and the next, not inside its reads.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        model: str | None = None,
        timeout: float | Timeouts | None = Timeouts(),  # noqa: B008 - frozen
        max_attempts: int = defaults.MAX_ATTEMPTS,
        max_event_bytes: int = defaults.MAX_EVENT_BYTES,
        resume: Resume = "never",
        allow_remote_images: bool = False,
        headers: Mapping[str, str] | None = None,
        options: ChatOptions | None = None,
        http_client: httpx2.AsyncClient | httpx.AsyncClient | None = None,
    ) -> None:
        key = Secret.of(api_key)
        del api_key  # a reporter of errors may show locals
        self._configuration = Configuration(
            base_url=base_url,
            api_key=key,
            model=model,
            timeout=timeout,
            max_attempts=max_attempts,
            max_event_bytes=max_event_bytes,
            headers=headers,
            options={"resume": resume, "allow_remote_images": allow_remote_images, **(options or {})},
        )
        self._pool = AsyncPool(self._configuration.base_url, http_client)

    def __repr__(self) -> str:
        if not hasattr(self, "_pool"):
            return f"<{type(self).__name__} that was not made>"  # an error's report may ask
        return f"{type(self).__name__}({self.base_url!r}, model={self.model!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled: it holds connections and a key; make one per process"
        )

    @property
    def base_url(self) -> str:
        """Where the calls go."""
        return self._configuration.base_url

    @property
    def model(self) -> str:
        """The model that is asked unless a call names another."""
        return self._configuration.model

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the client can be used again and opens new ones."""
        await self._pool.close()

    async def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> Reply:
        """Ask, and wait for the whole answer.

        Raises an :class:`AutoGLMError`; an incomplete answer is never returned, it is in the error's ``partial``.
        """
        return await self._answer(self._configuration.chat(messages, options, stream=False))

    def stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> AsyncReplyStream:
        """Ask, and watch the answer come: ``async with glm.stream(...) as stream: async for event in stream: ...``.

        Leaving the block ends the generation on the server, too.
        """
        return AsyncReplyStream(
            self._configuration, self._pool, self._configuration.chat(messages, options, stream=True)
        )

    async def parse(self, messages: Messages, schema: type[Model], **options: Unpack[ChatOptions]) -> Model:
        """Ask for JSON of a pydantic model's schema (vLLM holds the model to it) and get an instance back."""
        if not hasattr(schema, "model_json_schema"):
            raise ConfigurationError(f"parse() takes a pydantic model, not {schema!r}")
        json_schema = {"name": schema.__name__, "schema": schema.model_json_schema(), "strict": True}
        options.setdefault("response_format", {"type": "json_schema", "json_schema": json_schema})
        reply = await self.chat(messages, **options)
        try:
            return schema.model_validate_json(reply.text)
        except ValueError as error:
            raise _not_of(schema, reply, error) from error

    async def map(
        self,
        many: Iterable[Messages],
        *,
        concurrency: int = 8,
        progress: bool | Callable[[int, int], object] = False,
        **options: Unpack[ChatOptions],
    ) -> list[Reply | AutoGLMError]:
        """Ask many things, ``concurrency`` at a time; the answers come in the order of the questions.

        An item that fails has its error in the list, the others go on. ``progress=True`` shows a tqdm bar; a function
        is called with how many are done and how many there are.
        """
        if isinstance(many, str | Mapping):
            raise ConfigurationError("map() takes many questions: give a list")
        checked_options(options)
        running = Together()

        async def ask(messages: Messages) -> Reply | AutoGLMError:
            try:
                call = self._configuration.chat(messages, options, stream=False)
                running.add(call.clock)
                return await self._answer(call)
            except AutoGLMError as error:
                return error

        try:
            return await async_map(ask, list(many), concurrency, progress)
        except BaseException:  # Ctrl-C, or an error of progress
            running.cancel()
            raise

    async def models(self) -> list[ModelCard]:
        """The models that the server offers."""
        call = self._configuration.request("GET", f"{self.base_url}/models")
        return read_shape(ModelList, await self._read_route(call), call)["data"]

    async def tokenize(
        self,
        prompt: Messages,
        *,
        template: bool = True,
        allow_remote_images: bool | None = None,
        deadline: float | None = None,
        **extra: Any,
    ) -> Tokens:
        """Count the tokens of a prompt exactly, with vLLM's ``/tokenize``; ``return_token_strs=True`` shows them.

        ``template=False`` counts a string as it is, without what the chat template puts around it. ``deadline`` and
        ``allow_remote_images`` are those of a chat.
        """
        options = ChatOptions()
        if allow_remote_images is not None:
            options["allow_remote_images"] = allow_remote_images
        if deadline is not None:
            options["deadline"] = deadline
        call = self._configuration.tokenize(prompt, template, extra, options)
        return read_shape(Tokens, await self._read_route(call), call)

    async def health(self) -> bool:
        """Whether the server says that it is well."""
        try:
            return await async_is_well(self._configuration, self._pool, None)
        except (InvalidReply, StatusError):
            return False

    async def wait_until_ready(
        self, timeout: float = 600.0, progress: Callable[[float, str], object] | None = None
    ) -> None:
        """Wait until the server has answered with a token: one that is well can still fail at its first request.

        ``progress`` is called twice a second with the seconds that have passed and what is waited for. Raises
        :class:`ConnectionFailed` after ``timeout`` seconds, and at once what waiting cannot mend, such as a wrong key.
        """
        clock = self._configuration.clock(timeout)
        while not clock.is_over():
            waiting_for = "the server"
            try:
                if await async_is_well(self._configuration, self._pool, clock):
                    waiting_for = "the first token"
                    await self.chat("Hi", max_tokens=1, timeout=clock.within(None))
                    self._configuration.budget.renew()
                    return
            except (ConnectionFailed, ServerFailed):
                pass
            if progress is not None:
                progress(clock.elapsed(), waiting_for)
            await async_pause(clock, 0.5)
        raise clock.error()

    async def _answer(self, call: Call) -> Reply:
        async with AsyncReplyStream(self._configuration, self._pool, call) as answer:
            return await answer.finish()

    async def _read_route(self, call: Call) -> bytes:
        return await async_read(self._configuration, self._pool, call, self._configuration.policy(call))


def _not_of(schema: type[BaseModel], reply: Reply, error: ValueError) -> InvalidReply:
    cut = " (the answer was cut: raise max_tokens)" if reply.finish_reason == "length" else ""
    failure = InvalidReply(f"the answer is not a {schema.__name__}{cut}: {error}")
    failure.partial, failure.attempts = reply, reply.attempts
    return failure
