"""Content blocks that become parts of a message: texts and media, in every dialect.

The dialects are LangChain's blocks of version 1, its older ``source_type`` ones, OpenAI's and Anthropic's.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from ..errors import ConfigurationError

__all__ = ["PART_READERS", "Block", "Part", "refused", "string_of", "text_part"]

Block: TypeAlias = Mapping[str, Any]
Part: TypeAlias = dict[str, Any]
"""A part as it goes over the wire; wider than the client's own, for the file of another model."""


def text_part(text: str) -> Part:
    """A text among other parts."""
    return {"type": "text", "text": text}


def refused(block: Block, where: str, why: str) -> ConfigurationError:
    """The error for a block that cannot be sent: why, and what to do."""
    return ConfigurationError(f"{where}: a block of type {block.get('type')!r} {why}")


def string_of(block: Block, key: str, where: str) -> str:
    """A string that the block must have."""
    if not isinstance(value := block.get(key), str):
        raise refused(block, where, f"needs a string as its {key!r}")
    return value


def _mapping(block: Block, key: str, where: str) -> Block:
    if not isinstance(value := block.get(key), Mapping):
        raise refused(block, where, f"needs a dict as its {key!r}")
    return value


def _text(block: Block, where: str) -> Iterator[Part]:
    yield text_part(string_of(block, "text", where))


def _refusal(block: Block, where: str) -> Iterator[Part]:
    yield text_part(string_of(block, "refusal", where))


def _plain_text(block: Block, where: str) -> Iterator[Part]:
    found = _located(block)
    if (text := found.get("text")) is None and isinstance(data := found.get("base64"), str):
        text = _decoded(data, block, where)
    if not isinstance(text, str):
        raise refused(block, where, "has no text with it; this client fetches nothing: give its 'text'")
    heads = [head for key in ("title", "context") if isinstance(head := block.get(key), str)]
    yield text_part("\n".join([*heads, text]))


def _decoded(data: str, block: Block, where: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise refused(block, where, f"holds no text ({error}); give its 'text'") from error


SOURCES = {
    "base64": ("base64", ("data",)),
    "file": ("file_id", ("file_id",)),
    "id": ("file_id", ("id",)),
    "text": ("text", ("data", "text", "url")),
    "url": ("url", ("url",)),
}
"""What Anthropic and LangChain's older blocks call a source: its name in version 1, and where it stands."""


def _located(block: Block) -> Block:
    if isinstance(source := block.get("source"), Mapping):
        kind, mime = source.get("type"), source.get("media_type")
    elif "source_type" in block:
        source, kind, mime = block, block["source_type"], block.get("mime_type")
    else:
        return block
    key, places = SOURCES.get(str(kind), ("", ()))
    value = next((source[place] for place in places if source.get(place) is not None), None)
    return {key: value, "mime_type": mime}


def _url(block: Block, where: str) -> str:
    found = _located(block)
    if isinstance(url := found.get("url"), str):
        return url
    if isinstance(data := found.get("base64"), str):
        return _data_uri(data, block, where)
    if found.get("base64") is not None:
        raise refused(block, where, "needs a string as its base64; of bytes make one by base64.b64encode(...).decode()")
    if found.get("file_id") is not None:
        raise refused(block, where, "names a file of another provider; send its base64, or a URL")
    raise refused(block, where, "has no data; give it a 'url', or 'base64' with its 'mime_type'")


def _data_uri(data: str, block: Block, where: str) -> str:
    return data if data.startswith("data:") else f"data:{_mime(block, where)};base64,{data}"


def _mime(block: Block, where: str) -> str:
    if not isinstance(mime := _located(block).get("mime_type"), str):
        raise refused(block, where, "has base64, but does not say of what; add its 'mime_type'")
    return mime


def _option(block: Block, name: str) -> Mapping[str, str]:
    places = (block, block.get("extras"), block.get("metadata"))
    values = [place[name] for place in places if isinstance(place, Mapping) and isinstance(place.get(name), str)]
    return {name: values[0]} if values else {}


_SENDABLE = ("http://", "https://", "data:")


def _picture(url: str, block: Block, where: str) -> str:
    if not url.lower().startswith(_SENDABLE):
        raise refused(
            block,
            where,
            "names no picture that a server can fetch; take autoglm_client.image(path), which makes a block of a file, "
            "or give 'base64' with its 'mime_type'",
        )
    return url


def _image(block: Block, where: str) -> Iterator[Part]:
    url = _picture(_url(block, where), block, where)
    yield {"type": "image_url", "image_url": {"url": url, **_option(block, "detail")}}


def _image_url(block: Block, where: str) -> Iterator[Part]:
    if isinstance(url := block.get("image_url"), str):
        yield {"type": "image_url", "image_url": {"url": _picture(url, block, where)}}
    else:
        image = _mapping(block, "image_url", where)
        url = _picture(string_of({**image, "type": block["type"]}, "url", where), block, where)
        yield {"type": "image_url", "image_url": {"url": url, **_option(image, "detail")}}


FORMATS = {"mpeg": "mp3", "wave": "wav", "x-wav": "wav", "vnd.wave": "wav"}


def _audio(block: Block, where: str) -> Iterator[Part]:
    found = _located(block)
    if isinstance(data := found.get("base64"), str):
        kind = _mime(block, where).rpartition("/")[2]
        yield {"type": "input_audio", "input_audio": {"data": data, "format": FORMATS.get(kind, kind)}}
    else:
        yield {"type": "audio_url", "audio_url": {"url": _url(block, where)}}


def _video(block: Block, where: str) -> Iterator[Part]:
    yield {"type": "video_url", "video_url": {"url": _url(block, where)}}


def _as_it_is(block: Block, where: str) -> Iterator[Part]:
    kind = block["type"]
    yield {"type": kind, kind: dict(_mapping(block, kind, where))}


def _file(block: Block, where: str) -> Iterator[Part]:
    if "file" in block:
        yield from _as_it_is(block, where)
        return
    found = _located(block)
    if isinstance(text := found.get("text"), str):
        yield text_part(text)
    elif isinstance(file_id := found.get("file_id"), str):
        yield {"type": "file", "file": {"file_id": file_id}}
    elif isinstance(data := found.get("base64"), str):
        yield {"type": "file", "file": {"file_data": _data_uri(data, block, where), **_option(block, "filename")}}
    else:
        raise refused(block, where, "has no data with it; this client fetches nothing: give 'base64' and 'mime_type'")


PART_READERS: Mapping[str, Callable[[Block, str], Iterator[Part]]] = {
    "audio": _audio,
    "audio_url": _as_it_is,
    "document": _file,
    "file": _file,
    "image": _image,
    "image_url": _image_url,
    "input_audio": _as_it_is,
    "refusal": _refusal,
    "text": _text,
    "text-plain": _plain_text,
    "video": _video,
    "video_url": _as_it_is,
}
