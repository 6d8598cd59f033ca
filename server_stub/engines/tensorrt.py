"""TensorRT-LLM's ``trtllm-serve``: written after its source and documentation (1.3.0 release candidates), not tried.

The list of models of 1.3.0rc22 names no ``Glm4vForConditionalGeneration``: expect it to refuse AutoGLM-Phone-9B until
a later version learns it.
"""

from __future__ import annotations

from pathlib import Path

from ..command import Command, flags
from ..options import ServeOptions
from .engine import Engine, refuse, without_effect

__all__ = ["TENSORRT"]

_REFUSED = {
    "device": "has to be cuda there",
    "api_key": "cannot be asked for there (unset AUTOGLM_API_KEY and VLLM_API_KEY)",
    "nodes": "needs mpirun there",
    "quantization": "is part of the checkpoint there",
    "load_format": "cannot be chosen there",
    "dtype": "is part of the checkpoint there",
    "media_folder": "cannot be limited to a folder there",
}
_WITHOUT_EFFECT = (
    *("max_queued", "gpu_memory", "kv_cache_gib", "images", "max_pixels", "prefix_caching", "eager", "served_names"),
)


def _command(options: ServeOptions, python: Path) -> Command:
    refuse("TensorRT-LLM", options, _REFUSED)
    table = {
        "--backend": "pytorch",
        "--revision": options.revision,
        "--tp_size": options.tensor_parallel,
        "--pp_size": options.pipeline_parallel,
        "--max_seq_len": options.context,
        "--max_batch_size": options.max_sequences,
        "--host": options.host,
        "--port": options.port,
        "--reasoning_parser": options.reasoning_parser,
        "--tool_parser": options.tool_parser,
    }
    return Command(
        argv=(str(python.with_name("trtllm-serve")), options.checkpoint, *flags(table), *options.extra),
        notes=(
            "TensorRT-LLM 1.3.0rc22 does not list the architecture of AutoGLM-Phone-9B",
            without_effect("TensorRT-LLM", _WITHOUT_EFFECT),
        ),
    )


TENSORRT = Engine(
    title="TensorRT-LLM",
    module="tensorrt_llm",
    distributions=("tensorrt-llm", "tensorrt_llm"),
    install="pip install tensorrt-llm  # Linux with an NVIDIA GPU",
    command=_command,
)
