"""What works on a server, step by step, and what to do where something does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from server_stub.findings import Finding

from .client import AutoGLM
from .errors import AuthenticationFailed, AutoGLMError, NotFound
from .media import image
from .messages import user

__all__ = ["check"]

QUESTION = "Who are you?"


Step = Callable[[AutoGLM], Iterator[Finding]]


def check(glm: AutoGLM) -> list[Finding]:
    """Go through all steps; when the server cannot be reached, the others are not tried."""
    findings: list[Finding] = []
    for name, step, remedy in _STEPS:
        try:
            findings += step(glm)
        except AutoGLMError as error:
            findings.append(Finding(name, "FAIL", " ".join(str(error).split()), _remedy(error) or remedy))
            if step is _health:
                break
    return findings


def _remedy(error: AutoGLMError) -> str:
    if isinstance(error, AuthenticationFailed):
        return "set AUTOGLM_API_KEY to the key that the server was started with"
    return "pass --model with a name that the server offers" if isinstance(error, NotFound) else ""


def _health(glm: AutoGLM) -> Iterator[Finding]:
    models = glm.models()  # raises what is wrong, where health() only says that something is
    yield Finding("health", "ok" if glm.health() else "note", "the server answers")
    yield from _model(glm, [model.id for model in models], {model.id: model.max_model_len for model in models})


def _model(glm: AutoGLM, names: list[str], lengths: dict[str, int | None]) -> Iterator[Finding]:
    if glm.model in names:
        length = lengths[glm.model]
        yield Finding("model", "ok", f"{glm.model}" + (f", context of {length} tokens" if length else ""))
    else:
        yield Finding(
            "model", "FAIL", f"{glm.model} is not served", f"pass --model with one of: {', '.join(names) or '(none)'}"
        )


def _text(glm: AutoGLM) -> Iterator[Finding]:
    reply = glm.chat(QUESTION, max_tokens=300)
    yield Finding("text", "ok", f"{reply.timing.total:.2f} s for {_tokens(reply.usage)}")
    if "<think>" in reply.raw:
        yield Finding("tags", "ok", "think and answer tags are visible")
    elif reply.reasoning:
        yield Finding("tags", "ok", "the server has a reasoning parser")
    else:
        yield Finding(
            "tags",
            "note",
            "no tags and no reasoning came: thinking is read as text",
            "usual for hosted endpoints; a vLLM of your own must accept skip_special_tokens: false",
        )


def _image(glm: AutoGLM) -> Iterator[Finding]:
    from server_stub.screen import Button, draw_screen

    screen = draw_screen(720, 1280, [Button("blue", 200, 600, 320, 120)])
    with_image = glm.chat(user(image(screen), "What do you see?"), max_tokens=16)
    yield Finding("image", "ok", f"a screen of 720 x 1280 costs {_prompt_tokens(with_image.usage)} prompt tokens")


def _stream(glm: AutoGLM) -> Iterator[Finding]:
    with glm.stream(QUESTION, max_tokens=64) as stream:
        reply = stream.finish()
    first, total = reply.timing.first_token or 0.0, reply.timing.total
    yield Finding("stream", "ok", f"first token after {first:.2f} s, whole answer after {total:.2f} s")
    if total > 1 and first > 0.9 * total:
        yield Finding(
            "buffering", "note", "all tokens came at once", "a proxy holds the stream back: proxy_buffering off"
        )


def _tokens(usage: object) -> str:
    return f"{getattr(usage, 'completion_tokens', '?')} tokens"


def _prompt_tokens(usage: object) -> str:
    return str(getattr(usage, "prompt_tokens", "?"))


_STEPS: tuple[tuple[str, Step, str], ...] = (
    ("health", _health, "start a server (autoglm demo shows one), or say where it is with --base-url"),
    ("text", _text, "look at the server's log"),
    ("image", _image, "serve the model with --limit-mm-per-prompt '{\"image\": 10}'; look at the server's log"),
    ("stream", _stream, "a proxy in between may not let streams through"),
)
