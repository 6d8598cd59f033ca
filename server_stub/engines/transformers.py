"""``transformers serve``, as of 5.19: slow and simple, to see what the weights say without an engine between."""

from __future__ import annotations

from pathlib import Path

from ..command import Command, flags
from ..errors import ServeError
from ..options import ServeOptions
from .engine import Engine, refuse, without_effect

__all__ = ["TRANSFORMERS"]

_REFUSED = {
    "api_key": "cannot be asked for there (unset AUTOGLM_API_KEY and VLLM_API_KEY)",
    "tensor_parallel": "is unknown there",
    "pipeline_parallel": "is unknown there",
    "nodes": "is unknown there",
    "load_format": "cannot be chosen there",
    "media_folder": "cannot be limited to a folder there",
    "reasoning_parser": "is unknown there",
    "tool_parser": "is unknown there",
}
_WITHOUT_EFFECT = (
    *("context", "max_sequences", "max_queued", "gpu_memory", "kv_cache_gib"),
    *("images", "max_pixels", "prefix_caching", "eager"),
)
_QUANTIZATIONS = ("bnb-4bit", "bnb-8bit")


def _command(options: ServeOptions, python: Path) -> Command:
    refuse("Transformers", options, _REFUSED)
    if options.quantization not in (None, *_QUANTIZATIONS):
        raise ServeError(f"Transformers: quantization={options.quantization!r}: there are {', '.join(_QUANTIZATIONS)}")
    table = {
        "--device": options.device,
        "--dtype": options.dtype,
        "--quantization": options.quantization,
        "--host": options.host,
        "--port": options.port,
    }
    return Command(
        argv=(
            *(str(python), "-m", "transformers.cli.transformers", "serve"),
            f"{options.model}@{options.revision}" if options.revision else options.model,
            *flags(table),
            *options.extra,
        ),
        defaults={
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            **({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if options.folder else {}),
        },
        notes=(
            f"Transformers answers to the one name {options.request_model}: served_names has no effect",
            without_effect("Transformers", _WITHOUT_EFFECT),
        ),
    )


TRANSFORMERS = Engine(
    title="Transformers",
    module="transformers",
    distributions=("transformers",),
    install='pip install "transformers[serving]>=5" accelerate torch torchvision',
    command=_command,
)
