"""Known failures of engines: how their logs name them, what they mean, and what to try next."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["FAILURES", "Failure", "diagnose"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that a line of a log gives away."""

    name: str
    pattern: re.Pattern[str]
    cause: str
    remedy: str

    def __str__(self) -> str:
        """Explain it in one paragraph."""
        return f"{self.cause} {self.remedy}"


def _failure(name: str, cause: str, remedy: str, *messages: str) -> Failure:
    return Failure(name, re.compile("|".join(messages)), cause, remedy)


# The messages are those of vLLM 0.32, torch 2.13, transformers 5 and huggingface_hub 1 (searched for in their source,
# many of them provoked), and of the issues of vLLM on GitHub. Root causes come first, what merely follows comes last:
# the first entry that is found in a log is the answer, wherever in the log it stands.
FAILURES: tuple[Failure, ...] = (
    _failure(
        "GPU memory taken",
        "Other processes hold so much of the GPU's memory that the share asked for is not free.",
        "End them (`nvidia-smi` lists them), or ask for less with --gpu-memory.",
        r"Free memory on device .* on startup is less than",
    ),
    _failure(
        "no memory for the cache",
        "Weights and pictures leave no memory for the key-value cache.",
        "Try a larger --gpu-memory (up to 0.95), --eager, a smaller --max-pixels, or --tensor-parallel 2.",
        r"No available memory for the cache blocks",
    ),
    _failure(
        "context too long",
        "The key-value cache does not hold one prompt of the whole context.",
        "Try a shorter --context (the log names the longest that fits), a larger --gpu-memory, or --tensor-parallel 2.",
        r"larger than the available KV cache memory",
    ),
    _failure(
        "out of GPU memory",
        "The GPU ran out of memory.",
        "Try a shorter --context, fewer --max-sequences, --eager, a smaller --max-pixels, --quantization fp8, or "
        "--tensor-parallel 2; end what else holds memory of the GPU (`nvidia-smi`).",
        r"CUDA out of memory",
        r"CUDA error: out of memory",
        r"torch\.(cuda\.)?OutOfMemoryError",
    ),
    _failure(
        "too little memory",
        "The machine has less free memory than the key-value cache is to take.",
        "Ask for a smaller cache (kv_cache_gib), or end what else takes memory.",
        r"on kv cache allocation is less than requested",
        r"DefaultCPUAllocator: can't allocate memory",
    ),
    _failure(
        "port taken",
        "Another process has the port.",
        "Take another --port (0 is a free one), or stop the other: `autoglm serve --status` lists servers of ours.",
        r"\[Errno 98\]",
        r"[Aa]ddress already in use",
    ),
    _failure(
        "torchvision does not fit",
        "torchvision was built for another torch, so that transformers cannot load the picture processor.",
        "Install the torchvision that belongs to the installed torch, from the same index (the CPU one for a CPU).",
        r"operator torchvision::\w+ does not exist",
    ),
    _failure(
        "transformers too old",
        "The installed transformers does not know this architecture.",
        "Update it in the engine's environment: pip install --upgrade 'transformers>=5'.",
        r"Transformers does not recognize this architecture",
        r"cannot import name '\w*[Gg]lm4v\w*'",
    ),
    _failure(
        "architecture not supported",
        "The engine does not know the checkpoint's architecture.",
        "Update the engine (AutoGLM-Phone-9B wants vLLM 0.12 or newer), or look whether --model names the right one.",
        r"Model architectures \[.*\] are not supported for now",
        r"Unsupported model architecture",
    ),
    _failure(
        "bfloat16 not supported",
        "The GPU is too old for bfloat16.",
        "Try --dtype half.",
        r"Bfloat16 is only supported on GPUs",
    ),
    _failure(
        "quantization does not fit",
        "The checkpoint, its number format or this GPU do not go with the quantization asked for.",
        "Leave --quantization out for a checkpoint that is quantized already; otherwise fp8 with --dtype bfloat16.",
        r"does not match the quantization method specified",
        r"Unknown quantization method",
        r"is not supported for quantization method",
        r"quantization method \S+ is not supported for the current GPU",
        r"Cannot find the config file for",
    ),
    _failure(
        "no kernel for this GPU",
        "The engine or torch was built for other GPUs than this one.",
        "Install builds for its generation: the newest vLLM and torch for the driver's CUDA, or the vendor's image.",
        r"no kernel image is available for execution",
    ),
    _failure(
        "no kernel for this processor",
        "The engine has no attention for this model on a CPU: head sizes below 32 are not supported there.",
        "Serve another model here (--profile tiny), or this one on a GPU.",
        r"Unsupported CPU attention configuration",
    ),
    _failure(
        "driver too old",
        "The NVIDIA driver is older than the CUDA that torch was built with.",
        "Update the driver, or install torch and vLLM for the CUDA version that `nvidia-smi` shows.",
        r"NVIDIA driver on your system is too old",
        r"CUDA driver version is insufficient",
    ),
    _failure(
        "no GPU",
        "The engine found no GPU that it can use.",
        "Look whether `nvidia-smi` works (in a container: --gpus all); without a GPU try --profile tiny with vLLM's "
        "build for the CPU.",
        r"libcuda\.so(\.\d+)?: cannot open shared object",
        r"Failed to infer device type",
        r"Found no NVIDIA driver on your system",
        r"No CUDA GPUs are available",
        r"no CUDA-capable device is detected",
    ),
    _failure(
        "CUDA libraries do not fit",
        "The engine was built for another CUDA than the libraries that are installed.",
        "Install vLLM into a fresh environment, and let it bring its own torch.",
        r"libcudart\.so[.\d]*: cannot open shared object",
        r"libtorch_cuda\.so: cannot open shared object",
    ),
    _failure(
        "too few GPUs",
        "More GPUs were asked for than this machine has.",
        "Lower --tensor-parallel or --pipeline-parallel; other machines are reached with --nodes.",
        r"World size \(\d+\) is larger than the number of available GPUs",
    ),
    _failure(
        "number of GPUs does not divide",
        "The model cannot be cut into so many equal parts.",
        "Take --tensor-parallel 1, 2 or 4 for AutoGLM-Phone-9B.",
        r"must be divisible by tensor parallel size",
    ),
    _failure(
        "shared memory full",
        "There is no room in /dev/shm, by which the GPUs' processes talk to each other.",
        "Remove what ended servers left there (`ls -l /dev/shm`), or give the container more: --shm-size 8g.",
        r"Error while creating shared memory segment",
        r"No space left on device.*/dev/shm|/dev/shm.*No space left on device",
        r"unable to open shared memory object",
        r"Unexpected bus error encountered in worker",
    ),
    _failure(
        "stale shared memory",
        "Shared memory of another run is in the way, or was removed by it.",
        "Stop the other servers of this machine, remove the psm_* and nccl-* in /dev/shm that nobody uses, try again.",
        r"Error while attaching to shared memory segment",
        r"FileExistsError: .*psm_",
        r"FileNotFoundError: .*/psm_",
        r"SemLock\._rebuild",
    ),
    _failure(
        "NCCL",
        "The GPUs could not talk to each other (NCCL).",
        "NCCL_DEBUG=INFO in the environment makes it say why; often NCCL_P2P_DISABLE=1 helps, or a larger /dev/shm.",
        r"NCCL error",
        r"ncclSystemError|ncclInternalError|ncclUnhandledCudaError",
    ),
    _failure(
        "picture too large",
        "A picture has more tokens than the engine has room for (its encoder cache).",
        "Lower --max-pixels, or send smaller pictures.",
        r"exceeds the pre-allocated encoder cache size",
    ),
    _failure(
        "no weights",
        "The folder holds no weights, or not all of them.",
        "Download the checkpoint again: `hf download` fetches only what is missing.",
        r"Cannot find any model weights with",
        r"weights were not initialized from checkpoint",
        r"No such file or directory: .*\.safetensors",
        r"Error while deserializing header|SafetensorError|MetadataIncompleteBuffer",
    ),
    _failure(
        "access to the repository",
        "The hub gives this model only to those who were granted access.",
        "Ask for it on the model's page, then set HF_TOKEN.",
        r"access a gated repo|Cannot access gated repo",
    ),
    _failure(
        "no such model",
        "There is neither a folder nor a repository of this name.",
        "Look at --model for a mistake in the path or the name.",
        r"is not a local folder and is not a valid model identifier",
        r"Repo id must be in the form",
        r"Repository Not Found",
    ),
    _failure(
        "model not on this machine",
        "The model is not on this machine, and the hub cannot be reached from it.",
        "Download it where there is a network, and give its folder as --model; HF_ENDPOINT names a mirror.",
        r"Cannot find an appropriate cached snapshot folder",
        r"outgoing traffic has been disabled",
        r"couldn't connect to '?https://huggingface\.co",
    ),
    _failure(
        "engine process killed",
        "A process of the engine died, probably killed for want of memory (`dmesg` tells).",
        "End what else takes memory, ask for a smaller cache, or take a machine with more.",
        r"Engine core process \S+ died unexpectedly",
        r"Worker proc \S+ died unexpectedly \(exit code: -9\)",
        r"Failed core proc\(s\): \{'\w+': -9\}",
    ),
    _failure(
        "unknown option",
        "The engine does not take one of its options; the log names it.",
        "Look at what was given after --, and at the engine's version: `autoglm serve --dry-run` shows the command.",
        r"error: (unrecognized arguments|ambiguous option|argument )",
    ),
    _failure(
        "engine not installed",
        "Something that the engine needs is not installed in its environment.",
        "Name the interpreter of its environment with --python or AUTOGLM_ENGINE_PYTHON; the log says what lacks.",
        r"ModuleNotFoundError: No module named",
    ),
    _failure(
        "engine core died",
        "The engine's inner process ended while it worked, for no reason that is known here.",
        "Its last words stand before EngineDeadError in the log; without any it was killed, maybe for want of memory.",
        r"EngineDeadError",
        r"engine core exited unexpectedly",
    ),
)


def diagnose(lines: Iterable[str]) -> Failure | None:
    """The root cause that the lines name, if it is a known one."""
    kept = list(lines)
    return next((failure for failure in FAILURES if any(map(failure.pattern.search, kept))), None)
