"""Messages as plain dictionaries, and the layout of turns that AutoGLM-Phone-9B was trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NotRequired, Protocol, TypeAlias, TypedDict, cast, get_args

from .errors import ConfigurationError
from .media import AudioPart, AudioUrlPart, ImagePart, VideoPart

__all__ = [
    "Answer",
    "Message",
    "Messages",
    "Part",
    "Role",
    "TextPart",
    "as_messages",
    "assistant",
    "extend",
    "fetched_from",
    "first_turn",
    "next_turn",
    "refuse_remote",
    "system",
    "tool",
    "user",
    "without_images",
]

Role = Literal["system", "user", "assistant", "tool"]

ADDRESS = {
    "image_url": re.compile(r"https?://|data:image/", re.IGNORECASE),
    "audio_url": re.compile(r"https?://|data:audio/", re.IGNORECASE),
    "video_url": re.compile(r"https?://|data:video/", re.IGNORECASE),
}
"""What a server may be told to look at; above all not ``file:``, which would be its own disk."""
FETCHED = re.compile(r"(https?://)(?:[^/?#]*@)?([^/?#]*)", re.IGNORECASE)
"""A URL up to its path, which may hold a secret as its user and its query may."""

TAGS_AT_THE_ENDS = re.compile(r"\A(?:\s*</?(?:think|answer|ans)>)+|(?:</?(?:think|answer|ans)>\s*)+\Z")


class TextPart(TypedDict):
    """Text in a message that also has other parts."""

    type: Literal["text"]
    text: str


Part: TypeAlias = TextPart | ImagePart | AudioPart | AudioUrlPart | VideoPart


class Message(TypedDict):
    """One message as it goes over the wire."""

    role: Role
    content: NotRequired[str | list[Part] | None]
    name: NotRequired[str]
    tool_calls: NotRequired[Sequence[Mapping[str, object]]]
    tool_call_id: NotRequired[str]


Messages: TypeAlias = str | Message | Sequence[Message]


class _ToolCall(Protocol):
    def to_dict(self) -> Mapping[str, object]: ...


class _ActionCall(Protocol):
    @property
    def thinking(self) -> str: ...

    @property
    def action(self) -> object: ...


class Answer(Protocol):
    """What `assistant` reads of a reply."""

    @property
    def reasoning(self) -> str | None:
        """The thinking, without tags."""

    @property
    def text(self) -> str:
        """The answer, without tags."""

    @property
    def tool_calls(self) -> Sequence[_ToolCall]:
        """The native tool calls; AutoGLM makes none."""

    @property
    def action_call(self) -> _ActionCall | None:
        """The phone action, which ``str()`` writes as a call, and the thinking that led to it."""


def system(text: str) -> Message:
    """Say how the model should behave; for a phone, see `system_prompt`."""
    return {"role": "system", "content": text}


def user(*parts: str | Part) -> Message:
    """Say something to the model: text, pictures from `image()`, or both, in the order given.

    Put the picture first if the server may not be vLLM: the model was trained that way, and only vLLM sorts it so.
    """
    if len(parts) == 1 and isinstance(parts[0], str):
        return {"role": "user", "content": parts[0]}
    content = [_text(part) if isinstance(part, str) else part for part in parts]
    _check_parts(content, "user()", allow_remote_images=True)  # the call that sends it says whether it may
    return {"role": "user", "content": content}


def assistant(content: str | Answer) -> Message:
    """Repeat what the model said: a string as it is, a reply as ``<think>...</think><answer>...</answer>``.

    The tags are written once and the action cleanly, whatever the server left in or out: a model that reads doubled
    tags soon writes them too. A reply with native tool calls, from another model, keeps them and gets no tags.
    """
    if isinstance(content, str):
        return {"role": "assistant", "content": content}
    if content.tool_calls:
        calls = [call.to_dict() for call in content.tool_calls]
        return {"role": "assistant", "content": content.text or None, "tool_calls": calls}
    return {"role": "assistant", "content": _tagged(content)}


def tool(content: str, tool_call_id: str) -> Message:
    """Give the result of a tool call. For other models: AutoGLM's template does not render this role."""
    return {"role": "tool", "content": content, "tool_call_id": tool_call_id}


def first_turn(task: str, image: ImagePart, screen_info: Mapping[str, object]) -> Message:
    """Open a phone task: the screen, what to do, and facts such as ``{"current_app": "System Home"}``."""
    return user(image, f"{task}\n\n{_json(screen_info)}")


def next_turn(image: ImagePart, screen_info: Mapping[str, object]) -> Message:
    """Show the screen after the model's last action was carried out."""
    return user(image, f"** Screen Info **\n\n{_json(screen_info)}")


def extend(messages: Sequence[Message], answer: str | Answer, turn: Message) -> list[Message]:
    """Continue a phone task: the turns so far without their pictures, the model's answer, and the next turn.

    So a request holds exactly one picture, the current screen. With two of them the model taps in the wrong place.
    """
    return [*without_images(messages), assistant(answer), turn]


def without_images(messages: Sequence[Message]) -> list[Message]:
    """Copy messages without their pictures; a turn of pictures alone stays, empty, to keep the order of roles."""
    return [_without_images(message) for message in messages]


def as_messages(prompt: Messages, *, allow_remote_images: bool = False) -> list[Message]:
    """Read what a call was given, a string being a user's, into a list of its own.

    Raises `ConfigurationError`, which names the message and what is wrong with it, before anything is sent. What the
    server would have to fetch is wrong, too, unless ``allow_remote_images``: pictures, sounds and films by URL.
    """
    if isinstance(prompt, str):
        return [user(_said(prompt))]
    if isinstance(prompt, Mapping):
        return [_checked(prompt, "the message", allow_remote_images)]
    return [
        _checked(message, f"messages[{index}]", allow_remote_images) for index, message in enumerate(_listed(prompt))
    ]


def fetched_from(part: Mapping[str, object]) -> str | None:
    """Where a server would fetch what the part names: scheme and host, or ``None`` for what needs no fetching."""
    found = (FETCHED.match(url) for _, url in _urls(part) if isinstance(url, str))
    return next((match[1] + match[2] for match in found if match), None)


def refuse_remote(part: Mapping[str, object], where: str) -> None:
    """Raise `ConfigurationError` for a part that would make the server fetch something."""
    if source := fetched_from(part):
        raise ConfigurationError(
            f"{where}: the server would fetch this from {source[:80]!r}, so it is not sent; download it yourself and "
            "pass image(path), audio(path) or video(path), or allow it with allow_remote_images=True"
        )


def _listed(prompt: object) -> Sequence[object]:
    if not isinstance(prompt, Sequence) or isinstance(prompt, (bytes, bytearray, memoryview)):
        raise ConfigurationError(
            f"messages: a {type(prompt).__name__}; pass a string, or a list of user(...) and so on"
        )
    if not prompt:
        raise ConfigurationError("messages: the list is empty; pass at least user('...')")
    return prompt


def _text(text: str) -> TextPart:
    return {"type": "text", "text": text}


def _tagged(answer: Answer) -> str:
    if (call := answer.action_call) is not None:
        return f"<think>{call.thinking}</think><answer>{call.action}</answer>"
    if answer.text.lstrip().startswith("<think>"):
        return answer.text.strip()
    return f"<think>{_bare(answer.reasoning or '')}</think><answer>{_bare(answer.text)}</answer>"


def _bare(text: str) -> str:
    return TAGS_AT_THE_ENDS.sub("", text).strip()


def _json(screen_info: Mapping[str, object]) -> str:
    try:
        return json.dumps(screen_info, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"screen_info: it cannot be written as JSON ({error})") from error


def _without_images(message: Message) -> Message:
    content = message.get("content")
    if not isinstance(content, list):
        return message.copy()
    return {**message, "content": [part for part in content if part.get("type") != "image_url"] or ""}


def _said(text: str) -> str:
    if not text.strip():
        raise ConfigurationError("messages: the string is empty; say something")
    return text


def _checked(message: object, where: str, allow_remote_images: bool) -> Message:
    if not isinstance(message, Mapping):
        raise ConfigurationError(f"{where}: a {type(message).__name__}; use user(...), assistant(...), system(...)")
    role, content = message.get("role"), message.get("content")
    if role not in get_args(Role):
        raise ConfigurationError(f"{where}: the role {role!r}; use one of {', '.join(get_args(Role))}")
    if content is None and not message.get("tool_calls"):
        raise ConfigurationError(f"{where}: there is no content; give a string or a list of parts")
    if content is not None and not isinstance(content, str):
        _check_parts(content, where, allow_remote_images=allow_remote_images)
    return cast("Message", dict(message))


def _check_parts(content: object, where: str, *, allow_remote_images: bool) -> None:
    if not isinstance(content, list) or not content:
        raise ConfigurationError(f"{where}: the content must be a string or a list with at least one part")
    for part in content:
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise ConfigurationError(
                f"{where}: a {type(part).__name__} is no part of a message; wrap a picture in image(...), "
                "and give text as a string"
            )
        _check_addresses(part, where)
        _check_sound(part, where)
        if not allow_remote_images:
            refuse_remote(part, where)


def _urls(part: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for kind in ADDRESS:  # whatever the type says: vLLM goes by the key that is there
        held = part.get(kind)
        url = held.get("url") if isinstance(held, Mapping) else held
        if url is not None:  # vLLM takes none with a uuid, for what it has seen before
            yield kind, url


def _check_addresses(part: Mapping[str, object], where: str) -> None:
    for kind, url in _urls(part):
        if not isinstance(url, str):
            raise ConfigurationError(f"{where}: the {kind} is a {type(url).__name__}; give a string as its 'url'")
        if not ADDRESS[kind].match(url):
            raise ConfigurationError(
                f"{where}: the {kind} {url[:40]!r} is neither http(s) nor a data URI of its kind, so it is not sent; "
                f"{kind.removesuffix('_url')}(path) reads a file here"
            )


def _check_sound(part: Mapping[str, object], where: str) -> None:
    held = part.get("input_audio")
    if held is not None and not (isinstance(held, Mapping) and held.get("format")):
        raise ConfigurationError(
            f"{where}: the input_audio has no format, and without it a server may take the data for an address or a "
            "path; audio(path) makes a whole one"
        )
