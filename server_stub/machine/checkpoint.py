"""Is a folder a whole checkpoint: what the engine will look for, without reading the weights themselves."""

from __future__ import annotations

import json
import shlex
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..findings import Finding

__all__ = ["ARCHITECTURE", "Problem", "check_folder", "check_gguf", "problems"]

ARCHITECTURE = "Glm4vForConditionalGeneration"
POINTER = b"version https://git-lfs.github.com/spec/"
"""How the file begins that git keeps instead of a large one."""
HEADER_LIMIT = 100_000_000
"""Bytes; the safetensors library refuses longer headers."""
NEEDED = {
    "config.json": ("config.json",),
    "tokenizer": ("tokenizer.json", "tokenizer.model"),
    "picture processor": ("preprocessor_config.json", "processor_config.json"),
}
"""What is needed, and the files that any one of is enough."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, and the file to fetch again (None: it is not there at all)."""

    text: str
    file: Path | None = None
    is_pointer: bool = False


def check_folder(folder: Path, fetch: str, *, weights: bool = True) -> Iterator[Finding]:
    """Whether all is there; ``fetch`` is the command that brings what is missing."""
    found = problems(folder, weights=weights)
    for problem in found:
        yield Finding("weights", "FAIL", f"{folder}: {problem.text}", _remedy(folder, problem, fetch))
    if not found:
        yield Finding("weights", "ok", _summary(folder, weights=weights))
        yield from _check_architecture(folder)


def problems(folder: Path, *, weights: bool = True) -> list[Problem]:
    """What is missing or broken; ``weights=False`` for random ones."""
    return [*_missing(folder), *(_broken_shards(folder) if weights else ())]


def check_gguf(file: Path, engine: str) -> Iterator[Finding]:
    """Whether a file is GGUF, and the engine one that reads it."""
    with file.open("rb") as opened:
        start = opened.read(len(POINTER))
    if start == POINTER:
        pull = f"git -C {_quoted(file.parent)} lfs pull"
        yield Finding("weights", "FAIL", f"{file} is git's pointer to the file", pull)
    elif not start.startswith(b"GGUF"):
        yield Finding("weights", "FAIL", f"{file} is no GGUF file", "--model takes a folder, a GGUF file or a hub id")
    elif engine == "vllm":
        remedy = f"llama-server -m {_quoted(file)}  # of llama.cpp"
        yield Finding("weights", "FAIL", "vLLM reads no GGUF of this architecture", remedy)
    else:
        yield Finding("weights", "ok", f"{file}: GGUF, {_size([file])}")


def _missing(folder: Path) -> Iterator[Problem]:
    for what, files in NEEDED.items():
        if not any((folder / file).is_file() for file in files):
            yield Problem(f"no {what}" if what in files else f"no {what} ({' or '.join(files)})")
    if not _has_template(folder):
        yield Problem("no chat template (chat_template.jinja)")


def _has_template(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    return "chat_template" in (_json(folder / "tokenizer_config.json") or {})  # where older tokenizers keep it


def _broken_shards(folder: Path) -> Iterator[Problem]:
    shards = _shards(folder)
    if not shards:
        yield Problem("no weights (model.safetensors.index.json or model.safetensors)")
    there = [shard for shard in shards if shard.is_file()]
    if len(there) < len(shards):
        gone = ", ".join(shard.name for shard in shards if shard not in there)
        yield Problem(f"{len(there)} of {len(shards)} shards, missing {gone}")
    for shard in there:
        if problem := _problem_of(shard):
            yield problem


def _shards(folder: Path) -> list[Path]:
    """The files that the index names; without an index the only one, or those of another format."""
    index = _json(folder / "model.safetensors.index.json")
    if index is not None:
        return [folder / name for name in sorted(set(index.get("weight_map", {}).values()))]
    return sorted(folder.glob("*.safetensors"))


def _problem_of(shard: Path) -> Problem | None:
    """A shard begins with the length of its header and the header, which tells where each tensor ends."""
    size = shard.stat().st_size
    with shard.open("rb") as opened:
        start = opened.read(8)
        if (start + opened.read(len(POINTER) - 8)) == POINTER:
            return Problem(f"{shard.name} is git's pointer to the file", shard, is_pointer=True)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        opened.seek(8)
        header = opened.read(length) if 0 < length <= HEADER_LIMIT else b""
    if (expected := _expected_size(header)) is None:
        return Problem(f"{shard.name} is broken: its header cannot be read ({size:,} bytes)", shard)
    if size != expected:
        return Problem(f"{shard.name} is not whole: {size:,} of {expected:,} bytes", shard)
    return None


def _expected_size(header: bytes) -> int | None:
    try:
        tensors = json.loads(header)
        ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
    except (ValueError, AttributeError, KeyError, TypeError, IndexError):
        return None
    return 8 + len(header) + max(ends, default=0)


def _remedy(folder: Path, problem: Problem, fetch: str) -> str:
    if problem.is_pointer:
        return f"git -C {_quoted(folder)} lfs pull"
    if problem.file is not None:  # in the hub's cache it is a link, and the file behind it would be kept
        return f"rm {_quoted(problem.file.resolve())} && {fetch}"
    return fetch


def _summary(folder: Path, *, weights: bool) -> str:
    shards = _shards(folder) if weights else []
    return (
        f"{folder}: {len(shards)} shard{'s'[: len(shards) != 1]}, {_size(shards)}" if weights else f"{folder}: random"
    )


def _check_architecture(folder: Path) -> Iterator[Finding]:
    names = (_json(folder / "config.json") or {}).get("architectures") or ["of no name"]
    if ARCHITECTURE not in names:
        detail = f"the architecture is {', '.join(names)}, AutoGLM's is {ARCHITECTURE}"
        yield Finding(
            "weights", "note", detail, "see that this is the model you mean: --model zai-org/AutoGLM-Phone-9B"
        )


def _json(file: Path) -> dict[str, Any] | None:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _size(files: list[Path]) -> str:
    size = sum(file.stat().st_size for file in files)
    return f"{size / (1 << 30):.1f} GiB" if size >> 30 else f"{size / (1 << 20):.1f} MiB"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
