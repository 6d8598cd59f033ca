"""SGLang's server: written after its documentation (``server_arguments.md``, commit 004813e), not tried.

It has no option that keeps requests from naming any address or file as a picture: do not let strangers reach it.
"""

from __future__ import annotations

from pathlib import Path

from ..command import Command, flags
from ..options import ServeOptions
from .engine import Engine, refuse, without_effect

__all__ = ["SGLANG"]

_REFUSED = {
    "api_key": "would stand in the command line, where every user of this machine reads it (unset AUTOGLM_API_KEY)",
    "nodes": "needs one command per machine there",
    "media_folder": "cannot be limited to a folder there",
}


def _command(options: ServeOptions, python: Path) -> Command:
    refuse("SGLang", options, _REFUSED)
    pixels = f'{{"image":{{"max_pixels":{options.max_pixels}}}}}' if options.max_pixels else None
    table = {
        "--model-path": options.checkpoint,
        "--revision": options.revision,
        "--served-model-name": options.served_names[0],
        "--dtype": options.dtype,
        "--quantization": options.quantization,
        "--load-format": options.load_format,
        "--device": options.device,
        "--disable-cuda-graph": options.eager,
        "--tensor-parallel-size": options.tensor_parallel,
        "--pipeline-parallel-size": options.pipeline_parallel if options.pipeline_parallel > 1 else None,
        "--mm-enable-dp-encoder": options.tensor_parallel > 1,
        "--mem-fraction-static": options.gpu_memory,
        "--context-length": options.context,
        "--max-running-requests": options.max_sequences,
        "--max-queued-requests": options.max_queued,
        "--disable-radix-cache": not options.prefix_caching,
        "--limit-mm-data-per-request": options.image_limits,
        "--mm-process-config": pixels,
        "--host": options.host,
        "--port": options.port,
        "--reasoning-parser": options.reasoning_parser,
        "--tool-call-parser": options.tool_parser,
    }
    return Command(
        argv=(str(python), "-m", "sglang.launch_server", *flags(table), *options.extra),
        notes=(
            "SGLang limits neither the addresses nor the files that a request may name as a picture",
            without_effect("SGLang", ["kv_cache_gib"]),
            *_one_name(options),
        ),
    )


def _one_name(options: ServeOptions) -> tuple[str, ...]:
    first, *others = options.served_names
    return (f"SGLang answers to one name, {first}: not to {', '.join(others)}",) if others else ()


SGLANG = Engine(
    title="SGLang",
    module="sglang",
    distributions=("sglang",),
    install='pip install "sglang>=0.5.6.post1"  # the publisher\'s requirement',
    command=_command,
)
