"""What to serve and how: one object that every engine's command line is made from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self, get_args

from autoglm_client.defaults import CONTEXT, HOST, MODEL, PORT

from .errors import ServeError

__all__ = ["Device", "EngineName", "ServeOptions"]

EngineName = Literal["vllm", "sglang", "transformers", "tensorrt-llm"]
Device = Literal["cuda", "cpu"]

WEIGHTS = "zai-org/AutoGLM-Phone-9B"

_LEAST = {
    **dict.fromkeys(("tensor_parallel", "pipeline_parallel", "nodes", "replicas", "max_replicas"), 1),
    **dict.fromkeys(("context", "max_sequences", "images", "max_pixels", "kv_cache_gib"), 1),
    "max_queued": 0,
}
_OURS = {
    **dict.fromkeys(("--host", "--port"), "the launcher must know it, give it before the --"),
    "--api-key": "every user of this machine would read it; set AUTOGLM_API_KEY",
}
"""Options of the engine that would open what is closed, or hide the server from its launcher."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What to serve and how; the defaults are the publisher's, save where those are unsafe.

    ``extra`` is given to the engine as it is, after everything else.
    """

    engine: EngineName = "vllm"
    model: str = WEIGHTS
    """A hub id, or the folder of a checkpoint."""
    revision: str | None = None
    served_names: tuple[str, ...] = (MODEL,)
    device: Device = "cuda"
    host: str = HOST
    port: int = PORT
    api_key: str | None = field(default=None, repr=False)
    """Travels in the environment, never in a command line."""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    nodes: int = 1
    replicas: int = 1
    max_replicas: int | None = None
    """Ray Serve adds replicas up to this many while more requests come than ``max_sequences`` for each; None: none."""
    context: int = CONTEXT
    max_sequences: int = 16
    max_queued: int = 64
    """Requests that may wait beyond those; more are turned away with 503."""
    gpu_memory: float | None = None
    """The share of each GPU's memory that the engine may take, 0 to 1; the engine's own default if None."""
    kv_cache_gib: int = 1
    """Memory for the key-value cache on a CPU."""
    dtype: str | None = None
    quantization: str | None = None
    load_format: str | None = None
    eager: bool = False
    """Run without compiling and without CUDA graphs: slower, starts sooner, takes less memory."""
    images: int = 10
    """Pictures that one prompt may hold."""
    max_pixels: int | None = 5_000_000
    """Of a picture, counted twice (as two frames of a video): 5,000,000 are 2.5 megapixels; None: the checkpoint's."""
    prefix_caching: bool = True
    reasoning_parser: str | None = None
    tool_parser: str | None = None
    media_folder: Path | None = None
    """Requests may name pictures in this folder by ``file://``; none without it."""
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ServeError(f"{name}={value}: at least {least}")
        if self.engine not in get_args(EngineName):
            raise ServeError(f"engine={self.engine!r}: there are {', '.join(get_args(EngineName))}")
        if not 0 <= self.port <= 65535:
            raise ServeError(f"port={self.port}: 0 (a free one) to 65535")
        if self.gpu_memory is not None and not 0 < self.gpu_memory <= 1:
            raise ServeError(f"gpu_memory={self.gpu_memory}: a share of each GPU, above 0 and at most 1")
        if not re.fullmatch(r"[!-~]*", self.api_key or ""):  # as a header takes it; the words must not hold it
            raise ServeError("api_key: only visible ASCII characters, without spaces and ends of lines")
        for word in self.extra:
            if word.partition("=")[0].replace("_", "-") in _OURS:
                name = word.partition("=")[0]
                raise ServeError(f"{name} cannot be given to the engine itself: {_OURS[name.replace('_', '-')]}")

    def with_(self, **changes: Any) -> Self:
        """The same options, but for these."""
        return replace(self, **changes)

    @property
    def request_model(self) -> str:
        """The name that requests must give; ``transformers serve`` refuses all but its own for the model."""
        if self.engine != "transformers":
            return self.served_names[0]
        return f"{self.model}@{self.revision}" if self.revision else self.model

    @property
    def folder(self) -> Path | None:
        """The checkpoint's folder, if the model is not a hub id; it need not exist."""
        try:
            path = Path(self.model).expanduser()
        except RuntimeError:  # ~somebody, who has no home here
            path = Path(self.model).absolute()
        return path if path.is_absolute() or self.model.startswith(".") or path.is_dir() else None

    @property
    def checkpoint(self) -> str:
        """The model as the engines take it: a hub id, or a path without ``~``."""
        return str(self.folder or self.model)

    @property
    def gpus(self) -> int:
        """How many GPUs all replicas need together."""
        return self.tensor_parallel * self.pipeline_parallel * self.replicas if self.device == "cuda" else 0

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def image_limits(self) -> str:
        """JSON for the engines: how many pictures, and no videos (a video decoder is a wide door)."""
        return json.dumps({"image": self.images, "video": 0}, separators=(",", ":"))
