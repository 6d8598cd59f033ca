"""Messages to the prompt's tokens, with GLM-4.1V's template and a toy tokenizer.

That template shows no tools: vLLM's ``/tokenize`` counts the same with and without them. A server that can read calls
is one with another template, which does show them, so `render` can too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from .pictures import NOWHERE, Size, image_tokens, load_size
from .refusal import Refusal

__all__ = ["MAX_IMAGES", "Prompt", "cut", "plain_text", "render", "token_id"]

MAX_IMAGES = 10

_IMAGE = "<|image|>"
_TOKEN = re.compile(
    r"</?(?:think|answer)>|<\|\w+\|>|\[gMASK\]|<sop>"  # what the model writes as one token
    r"| ?[A-Za-z]{1,8}|\d{1,3}|.",  # a word (long ones in pieces), up to three digits, any other character
    re.DOTALL,
)
_SPECIAL_IDS = {"<|endoftext|>": 151329, "<|user|>": 151336, "<|observation|>": 151338, "</answer>": 151348}
_TEXT_PARTS = {"text", "input_text", "output_text", "refusal", "thinking", "tool_reference"}
_PARTS = (
    "audio_embeds, audio_url, image_embeds, image_pil, image_url, input_audio, input_image, input_text, output_text, "
    "prompt_embeds, refusal, text, thinking, tool_reference, video_embeds, video_url"
)
_REFUSED_PARTS = {"input_audio": "audio", "audio_url": "audio", "video_url": "video"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model would see: its tokens, and the sizes of the pictures in order."""

    tokens: list[str]
    images: list[Size]
    image_tokens: int

    @property
    def last_image(self) -> Size | None:
        """The picture that the question is about, if there is one."""
        return self.images[-1] if self.images else None


def cut(text: str) -> list[str]:
    """Cut with the toy tokenizer: always the same pieces, which joined give the text again."""
    return _TOKEN.findall(text)


def token_id(token: str) -> int:
    """Number a token: always the same, and the model's own for the tokens that end an answer."""
    return _SPECIAL_IDS.get(token, crc32(token.encode("utf-8", "replace")) % 151_000)


def render(request: dict[str, Any], *, tools: bool = False, domains: Sequence[str] = NOWHERE) -> Prompt:
    """Build the prompt of a chat request, with its ``tools``; refuse parts of messages that the model cannot take."""
    tokens, images = ["[gMASK]", "<sop>"], list[Size]()
    if tools and request.get("tools"):
        tokens += ["<|system|>", *cut(json.dumps(request["tools"], ensure_ascii=False))]
    for message in request["messages"]:
        sizes = [load_size(url, domains) for url in _image_urls(message)]
        images += sizes
        if len(images) > MAX_IMAGES:
            raise Refusal(f"At most {MAX_IMAGES} image(s) may be provided in one prompt.", param="image")
        tokens += _turn(message, sizes)
    if request.get("add_generation_prompt", True):
        tokens += ["<|assistant|>", "\n"]
    return Prompt(tokens, images, tokens.count(_IMAGE))


def plain_text(message: dict[str, Any]) -> str:
    """Join the text parts of a message by line breaks, as the server's ``string`` format does."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(_texts(content)) if isinstance(content, list) else ""


def _turn(message: dict[str, Any], images: list[Size]) -> Iterator[str]:
    """One message in the template, which does not render the role ``tool``; pictures come first."""
    if message.get("role") not in ("system", "user", "assistant"):
        if images:
            found = f"Expected there to be {len(images)} prompt placeholders corresponding to {len(images)} image items"
            raise Refusal(f"{found}, but instead found 0 prompt placeholders!", status=500)
        return
    yield f"<|{message['role']}|>"
    yield "\n"
    for size in images:
        yield "<|begin_of_image|>"
        yield from [_IMAGE] * image_tokens(size)
        yield "<|end_of_image|>"
    yield from cut(plain_text(message))


def _texts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict) and part.get("type", "text") in _TEXT_PARTS:
            yield str(part.get("text") or "")


def _image_urls(message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content")
    for part in content if isinstance(content, list) else ():
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if kind in ("image_url", "input_image"):
            image = part.get("image_url")
            yield str(image.get("url", "") if isinstance(image, dict) else image)
        elif kind in _REFUSED_PARTS:
            modality = _REFUSED_PARTS[kind]
            raise Refusal(f"At most 0 {modality}(s) may be provided in one prompt.", param=modality)
        elif kind not in _TEXT_PARTS:
            message_ = f"Unsupported chat content part type: '{kind}'. Supported types: {_PARTS}."
            raise Refusal(message_, param="type", value=kind)
