"""The engines that can serve the model: each turns the options into its own command line."""

from __future__ import annotations

from ..errors import ServeError
from ..options import ServeOptions
from .engine import Engine
from .sglang import SGLANG
from .tensorrt import TENSORRT
from .transformers import TRANSFORMERS
from .vllm import VLLM

__all__ = ["Engine", "engine_for"]

_ENGINES = {"vllm": VLLM, "sglang": SGLANG, "transformers": TRANSFORMERS, "tensorrt-llm": TENSORRT}


def engine_for(options: ServeOptions) -> Engine:
    """The engine that the options name; more than one replica of it is run by Ray Serve.

    Every command line passes here, so this is where a server that anybody could use is refused.
    """
    if not options.is_local and not options.api_key:
        raise ServeError(
            f"host={options.host!r} can be reached from other machines: it needs an API key (api_key, or "
            "AUTOGLM_API_KEY in a shell), or stay on 127.0.0.1"
        )
    if max(options.replicas, options.max_replicas or 1) == 1:
        return _ENGINES[options.engine]
    from .ray import RAY  # late: it writes its configuration with the engines of this package

    return RAY
